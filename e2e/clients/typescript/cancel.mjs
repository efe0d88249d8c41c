// The official TypeScript client stops waiting for a call once it has heard that the call is under way. Then it asks for the outcome, by the call's key.
// Prints what it was told as one JSON document; the test that starts it judges that.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The packages are in a cache of their own, not beside this file.
const { resolve } = createRequire(`${process.env.POLITY_MODULES}/`);
const { Client } = await import(pathToFileURL(resolve("@modelcontextprotocol/sdk/client/index.js")).href);
const { StreamableHTTPClientTransport } = await import(pathToFileURL(resolve("@modelcontextprotocol/sdk/client/streamableHttp.js")).href);

const headers = { Authorization: `Bearer ${process.env.POLITY_TOKEN}` };
const transport = new StreamableHTTPClientTransport(new URL(`${process.env.POLITY_URL}/mcp`), { requestInit: { headers } });
const client = new Client({ name: "polity-e2e", version: "1.0.0" });
await client.connect(transport);

const asked = { name: "pay", arguments: { amount: 20, to: "ann" }, _meta: { "polity.dev/idempotencyKey": "typescript" } };
const unwanted = new AbortController();
let progress;
const onprogress = ({ message }) => {
  progress ??= message;
  unwanted.abort("not wanted any more");
};
try {
  await client.callTool(asked, undefined, { timeout: 120_000, signal: unwanted.signal, onprogress });
  throw new Error("the call was not given up");
} catch (error) {
  if (!unwanted.signal.aborted) throw error;
}
const after = await client.callTool(asked, undefined, { timeout: 120_000 });
await client.close();
console.log(JSON.stringify({ legacy: { progress, after: { isError: Boolean(after.isError), text: after.content[0].text } } }));
