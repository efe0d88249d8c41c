"""An agent of a framework (Pydantic AI), with a scripted model in place of a real one: the model asks for what it is told to ask and nothing else.

The framework finds the Org's tools over MCP, hands the calls on, and gives the model what came back. Prints what the model was given as JSON.
"""

import asyncio
import json
import os
import ssl

from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart, RetryPromptPart
from pydantic_ai.models.function import FunctionModel

# What the scripted model asks for, one call after the other: the second is what it makes of the first one's denial.
SCRIPT = [{"amount": 20, "to": "mallory"}, {"amount": 20, "to": "ann"}]


def scripted(messages, info):
    """The scripted model: the next call of the script, or at its end all that it was given."""
    given = [part for message in messages for part in message.parts if isinstance(part, (ToolReturnPart, RetryPromptPart))]
    if len(given) < len(SCRIPT):
        return ModelResponse(parts=[ToolCallPart("pay", SCRIPT[len(given)])])
    told = {"tools": [tool.name for tool in info.function_tools], "given": [str(part.content) for part in given]}
    return ModelResponse(parts=[TextPart(json.dumps(told))])


async def main():
    """One run of the agent."""
    headers = {"Authorization": f"Bearer {os.environ['POLITY_TOKEN']}"}
    tls = ssl.create_default_context(cafile=os.environ["POLITY_CA_FILE"])
    tools = MCPToolset(os.environ["POLITY_URL"] + "/mcp", headers=headers, verify=tls, max_retries=3)
    async with Agent(FunctionModel(scripted), toolsets=[tools]) as agent:
        print((await agent.run("pay mallory")).output)


asyncio.run(main())
