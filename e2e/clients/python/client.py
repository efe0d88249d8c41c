"""The official Python client against an Org's MCP server, unchanged: it is given an address, a CA and a token, as a worker Pod has them.

Prints what it was told as one JSON document; the test that starts it judges that.
"""

import asyncio
import json
import os
import ssl
import sys

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client


def shown(result):
    """A result of a call, as far as the test looks at it."""
    texts = [block.text for block in result.content]
    return {"isError": bool(result.is_error), "structured": result.structured_content, "text": "\n".join(texts)}


async def read(client, uri):
    """A resource, which is JSON."""
    return json.loads((await client.read_resource(uri)).contents[0].text)


async def session(mode):
    """Everything that one client does, in the named lifecycle."""
    token = os.environ["POLITY_TOKEN"]
    tls = ssl.create_default_context(cafile=os.environ["POLITY_CA_FILE"])
    headers = {"Authorization": f"Bearer {token}"}
    told = {}
    async with httpx2.AsyncClient(verify=tls, headers=headers, timeout=120) as http:
        transport = streamable_http_client(os.environ["POLITY_URL"] + "/mcp", http_client=http)
        async with Client(transport, mode=mode) as client:
            told["version"] = client.protocol_version
            told["tools"] = [tool.name for tool in (await client.list_tools()).tools]
            heard = []

            async def progress(done, total, message):
                heard.append(message)

            allowed = await client.call_tool("pay", {"amount": 20, "to": "ann"}, progress_callback=progress)
            told["allowed"] = shown(allowed)
            told["denied"] = shown(await client.call_tool("pay", {"amount": 20, "to": "mallory"}))
            told["invalid"] = shown(await client.call_tool("pay", {"amount": "20", "to": "ann"}))
            key = {"polity.dev/idempotencyKey": f"python-{mode}"}
            told["waits"] = shown(await client.call_tool("pay", {"amount": 200, "to": "ann"}, meta=key))
            told["resources"] = [str(resource.uri) for resource in (await client.list_resources()).resources]
            template = (await client.list_resource_templates()).resource_templates[0].uri_template
            told["call"] = await read(client, template.replace("{id}", allowed.meta["polity.dev/call"]["id"]))
            told["approvals"] = (await read(client, told["resources"][1]))["approvals"]
            try:
                told["unknown"] = shown(await client.call_tool("pai", {}))
            except MCPError as error:
                told["unknown"] = {"protocolError": error.error.code}
    return told


async def main():
    """Both lifecycles, one after the other."""
    print(json.dumps({mode: await session(mode) for mode in ("legacy", "auto")}))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
