// An MCP server of the official TypeScript SDK, without sessions, answering in JSON. Its port is its argument.

import { createServer } from "node:http";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The packages are in a cache of their own, not beside this file.
const { resolve } = createRequire(`${process.env.POLITY_MODULES}/`);
const load = (name) => import(pathToFileURL(resolve(`@modelcontextprotocol/sdk/${name}`)).href);
const { Server } = await load("server/index.js");
const { StreamableHTTPServerTransport } = await load("server/streamableHttp.js");
const { ListToolsRequestSchema, CallToolRequestSchema } = await load("types.js");

const tool = {
  name: "book",
  title: "Add an entry",
  description: "Books an amount on an account.",
  inputSchema: { type: "object", required: ["cents"], properties: { cents: { type: "integer" } } },
};

createServer(async (request, response) => {
  const server = new Server({ name: "ledgerbook", version: "1.0.0" }, { capabilities: { tools: {} } });
  server.setRequestHandler(ListToolsRequestSchema, async () => ({ tools: [tool] }));
  server.setRequestHandler(CallToolRequestSchema, async ({ params }) => ({
    content: [{ type: "text", text: "booked" }],
    structuredContent: { booked: params.arguments.cents },
  }));
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined, enableJsonResponse: true });
  response.on("close", () => transport.close());
  await server.connect(transport);
  await transport.handleRequest(request, response);
}).listen(Number(process.argv[2]), "127.0.0.1");
