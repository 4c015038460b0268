"""The openai SDK by itself: what a call over HTTP costs with nothing around it. Run by any side's interpreter.

It sends the very requests that fbench sent, kept by the fake server, as a program would that holds a conversation in
lists and dictionaries: `create(messages=..., tools=...)`, the answer read as the SDK's own models.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI, DefaultAioHttpClient, DefaultAsyncHttpxClient

from tests.benchmarks.peers.measure import Meter, main, peak_mib, raise_open_files, require


def http(url: str, bodies: str, turns: int, conversations: int, transport: str) -> dict[str, Any]:
    """`conversations` at once, through one client."""
    raise_open_files()
    requests = json.loads(Path(bodies).read_text(encoding="utf-8"))[:turns]
    meter = Meter()
    asyncio.run(_converse(url, requests, conversations, transport))
    cost = meter.read()
    return {**cost._asdict(), "turns": len(requests) * conversations, "peak_mib": peak_mib()}


async def _converse(url: str, requests: list[dict[str, Any]], conversations: int, transport: str) -> None:
    http_client = DefaultAioHttpClient() if transport == "aiohttp" else DefaultAsyncHttpxClient()
    async with AsyncOpenAI(base_url=url, api_key="none", http_client=http_client, max_retries=0) as client:

        async def converse() -> None:
            for turn, body in enumerate(requests):
                completion = await client.chat.completions.create(**body)
                message = completion.choices[0].message
                is_last = turn == len(requests) - 1
                require(bool(message.content if is_last else message.tool_calls), f"turn {turn}: {message}")
                require(completion.usage is not None, "an answer without usage")

        async with asyncio.TaskGroup() as group:
            for _ in range(conversations):
                group.create_task(converse())


if __name__ == "__main__":
    main({"http": http})
