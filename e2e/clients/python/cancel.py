"""The official Python client stops waiting for a call once it has heard that the call is under way. Then it asks for the outcome, by the call's key.

Prints what it was told as one JSON document; the test that starts it judges that.
"""

import asyncio
import json
import os
import ssl
import sys

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def session(mode):
    """One call, given up, in the named lifecycle."""
    tls = ssl.create_default_context(cafile=os.environ["POLITY_CA_FILE"])
    headers = {"Authorization": f"Bearer {os.environ['POLITY_TOKEN']}"}
    async with httpx2.AsyncClient(verify=tls, headers=headers, timeout=120) as http:
        transport = streamable_http_client(os.environ["POLITY_URL"] + "/mcp", http_client=http)
        async with Client(transport, mode=mode) as client:
            asked = {"name": "pay", "arguments": {"amount": 20, "to": "ann"}, "meta": {"polity.dev/idempotencyKey": f"python-{mode}"}}
            heard, said = anyio.Event(), []

            async def progress(done, total, message):
                said.append(message)
                heard.set()

            async with anyio.create_task_group() as group:

                async def call():
                    await client.call_tool(**asked, progress_callback=progress)

                group.start_soon(call)
                await heard.wait()
                group.cancel_scope.cancel()
            after = await client.call_tool(**asked)
            return {"progress": said[0], "after": {"isError": bool(after.is_error), "text": after.content[0].text}}


async def main():
    """Both lifecycles, one after the other."""
    print(json.dumps({mode: await session(mode) for mode in ("legacy", "auto")}))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
