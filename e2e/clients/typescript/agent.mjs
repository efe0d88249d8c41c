// An agent of a framework (Vercel's AI SDK), with a scripted model in place of a real one: the model asks for what it is told to ask and nothing else.
//
// The framework finds the Org's tools over MCP, hands the calls on, and gives the model what came back. Prints what the model was given as JSON.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The packages are in a cache of their own, not beside this file.
const { resolve } = createRequire(`${process.env.POLITY_MODULES}/`);
const load = (name) => import(pathToFileURL(resolve(name)).href);
const { generateText, isStepCount } = await load("ai");
const { createMCPClient } = await load("@ai-sdk/mcp");

// What the scripted model asks for, one call after the other: the second is what it makes of the first one's denial.
const SCRIPT = [{ amount: 20, to: "mallory" }, { amount: 20, to: "ann" }];

const tokens = { total: 0 };
const usage = { inputTokens: { ...tokens, noCache: 0, cacheRead: 0, cacheWrite: 0 }, outputTokens: { ...tokens, text: 0, reasoning: 0 } };

// The scripted model: the next call of the script, or at its end all that it was given.
const scripted = {
  specificationVersion: "v4",
  provider: "scripted",
  modelId: "scripted",
  supportedUrls: {},
  async doGenerate({ prompt, tools }) {
    const given = prompt.filter((message) => message.role === "tool").flatMap((message) => message.content);
    const next = SCRIPT[given.length];
    const content = next
      ? { type: "tool-call", toolCallId: `call-${given.length}`, toolName: "pay", input: JSON.stringify(next) }
      : { type: "text", text: JSON.stringify({ tools: tools.map((tool) => tool.name), given: given.map((part) => JSON.stringify(part.output)) }) };
    return { content: [content], finishReason: { unified: next ? "tool-calls" : "stop", raw: undefined }, usage, warnings: [] };
  },
  async doStream() {
    throw new Error("the scripted model does not stream");
  },
};

const headers = { Authorization: `Bearer ${process.env.POLITY_TOKEN}` };
const client = await createMCPClient({ transport: { type: "http", url: `${process.env.POLITY_URL}/mcp`, headers } });
try {
  const told = await generateText({ model: scripted, tools: await client.tools(), stopWhen: isStepCount(5), prompt: "pay mallory" });
  console.log(told.text);
} finally {
  await client.close();
}
