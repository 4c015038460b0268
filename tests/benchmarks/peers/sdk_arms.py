"""The openai SDK by itself: what a call over HTTP costs with nothing around it. Run by any side's interpreter.

It sends the very requests that fbench sent, kept by the fake server, as a program would that holds a conversation in
lists and dictionaries: `create(messages=..., tools=...)`, the answer read as the SDK's own models.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
from openai import AsyncOpenAI, DefaultAioHttpClient, DefaultAsyncHttpxClient

from tests.benchmarks.peers.measure import Meter, main, peak_mib, raise_open_files, require


def http(url: str, bodies: str, turns: int, conversations: int, transport: str) -> dict[str, Any]:
    """`conversations` at once, each with a client of its own: one for all would search its pool of connections for each
    call, which makes a call twice as dear at 200 of them."""
    raise_open_files()
    requests = json.loads(Path(bodies).read_text(encoding="utf-8"))[:turns]
    meter = Meter()
    asyncio.run(_converse_at_once(url, requests, conversations, transport))
    cost = meter.read()
    return {**cost._asdict(), "turns": len(requests) * conversations, "peak_mib": peak_mib()}


async def _converse_at_once(url: str, requests: list[dict[str, Any]], conversations: int, transport: str) -> None:
    trusted = httpx2.create_ssl_context()
    async with asyncio.TaskGroup() as group:
        for _ in range(conversations):
            make_client = DefaultAioHttpClient if transport == "aiohttp" else DefaultAsyncHttpxClient
            client = AsyncOpenAI(base_url=url, api_key="none", http_client=make_client(verify=trusted), max_retries=0)
            group.create_task(_converse(client, requests))


async def _converse(client: AsyncOpenAI, requests: list[dict[str, Any]]) -> None:
    async with client:
        for turn, body in enumerate(requests):
            completion = await client.chat.completions.create(**body)
            message = completion.choices[0].message
            is_last = turn == len(requests) - 1 and message.content
            require(bool(is_last or message.tool_calls), f"turn {turn}: {message}")
            require(completion.usage is not None, "an answer without usage")


if __name__ == "__main__":
    main({"http": http})
