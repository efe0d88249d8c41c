// Runs the official conformance suite's server scenarios against an Org's MCP server. The suite can send no token and trusts no CA of ours, so its
// requests pass through a forwarder on loopback that adds both and changes nothing else, Host and Origin included. Scenarios that do not apply are
// named in conformance.yml; one that newly fails, or newly passes, makes the suite exit with 1.

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { request } from "node:https";
import { createRequire } from "node:module";

const upstream = new URL(`${process.env.POLITY_URL}/mcp`);
const ca = readFileSync(process.env.POLITY_CA_FILE);
const token = process.env.POLITY_TOKEN;

const forwarder = createServer((incoming, outgoing) => {
  const headers = { ...incoming.headers, authorization: `Bearer ${token}` };
  const options = { method: incoming.method, headers, ca, servername: "localhost" };
  const sent = request(upstream, options, (answer) => {
    outgoing.writeHead(answer.statusCode, answer.headers);
    answer.pipe(outgoing);
  });
  sent.on("error", (error) => outgoing.destroy(error));
  outgoing.on("close", () => sent.destroy());
  incoming.pipe(sent);
});

forwarder.listen(0, "127.0.0.1", () => {
  const url = `http://localhost:${forwarder.address().port}/mcp`;
  const suite = createRequire(`${process.env.POLITY_MODULES}/`).resolve("@modelcontextprotocol/conformance/package.json").replace("package.json", "dist/index.js");
  const args = [suite, "server", "--url", url, "--suite", "all", "--expected-failures", process.env.POLITY_BASELINE];
  spawn(process.execPath, args, { stdio: "inherit" }).on("exit", (code) => process.exit(code ?? 1));
});
