// The official TypeScript client against an Org's MCP server, unchanged: it is given an address, a CA (NODE_EXTRA_CA_CERTS) and a token, as a worker
// Pod has them. Prints what it was told as one JSON document; the test that starts it judges that.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";


// The packages are in a cache of their own, not beside this file.
const { resolve } = createRequire(`${process.env.POLITY_MODULES}/`);
const { Client } = await import(pathToFileURL(resolve("@modelcontextprotocol/sdk/client/index.js")).href);
const { StreamableHTTPClientTransport } = await import(pathToFileURL(resolve("@modelcontextprotocol/sdk/client/streamableHttp.js")).href);

const shown = (result) => ({
  isError: Boolean(result.isError),
  structured: result.structuredContent ?? null,
  text: result.content.map((block) => block.text).join("\n"),
});

const headers = { Authorization: `Bearer ${process.env.POLITY_TOKEN}` };
const transport = new StreamableHTTPClientTransport(new URL(`${process.env.POLITY_URL}/mcp`), { requestInit: { headers } });
const client = new Client({ name: "polity-e2e", version: "1.0.0" });
await client.connect(transport);

const call = async (name, args, meta) => shown(await client.callTool({ name, arguments: args, _meta: meta }, undefined, { timeout: 120_000 }));
const told = { version: transport.protocolVersion };
told.tools = (await client.listTools()).tools.map((tool) => tool.name);
const allowed = await client.callTool({ name: "pay", arguments: { amount: 20, to: "ann" } }, undefined, { timeout: 120_000 });
told.allowed = shown(allowed);
told.denied = await call("pay", { amount: 20, to: "mallory" });
told.invalid = await call("pay", { amount: "20", to: "ann" });
told.waits = await call("pay", { amount: 200, to: "ann" }, { "polity.dev/idempotencyKey": "typescript" });
const read = async (uri) => JSON.parse((await client.readResource({ uri })).contents[0].text);
told.resources = (await client.listResources()).resources.map((resource) => resource.uri);
const template = (await client.listResourceTemplates()).resourceTemplates[0].uriTemplate;
told.call = await read(template.replace("{id}", allowed._meta["polity.dev/call"].id));
told.approvals = (await read(told.resources[1])).approvals;
try {
  told.unknown = await call("pai", {});
} catch (error) {
  told.unknown = { protocolError: error.code };
}
await client.close();
console.log(JSON.stringify({ legacy: told }));
