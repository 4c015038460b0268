"""A model behind HTTP that costs next to nothing: Chat Completions, keep-alive, answers `latency_s` after each request.

`python -m tests.benchmarks.peers.fake_server '{"turns": 10, "latency_s": 0.05, "tool": NAME, "arguments": {...}}'`
prints its base URL, then serves until its standard input ends and prints what it has seen. In each conversation it asks
for the tool `turns - 1` times and then says that it is done. It reads how far a conversation is from the number of
assistant messages, without parsing the request. `keep` names a file for one request body of each turn.
"""

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.peers.measure import Meter, raise_open_files

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ASSISTANT = re.compile(rb'"role": ?"assistant"')
_END_OF_HEAD = b"\r\n\r\n"


class Answers:
    """Ready-made answers, one a turn, and what was asked so far."""

    def __init__(self, turns: int, latency_s: float, tool: str, arguments: dict[str, Any]) -> None:
        self.latency_s = latency_s
        self.requests = [0] * turns
        self.request_bytes = self.connections = self.waiting = self.most_waiting = 0
        self.bodies: dict[int, bytes] = {}
        calls = [
            {"id": f"call_{turn}", "type": "function", "function": {"name": tool, "arguments": json.dumps(arguments)}}
            for turn in range(turns - 1)
        ]
        self._answers = [
            *(_answer({"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls") for call in calls),
            _answer({"role": "assistant", "content": "I am done."}, "stop"),
        ]

    def next_to(self, body: bytes) -> bytes:
        """The answer to a request."""
        turn = min(len(_ASSISTANT.findall(body)), len(self._answers) - 1)
        self.requests[turn] += 1
        self.request_bytes += len(body)
        self.bodies[turn] = body
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        return self._answers[turn]

    def keep(self, path: Path) -> None:
        """Write the last request body of each turn, in their order."""
        bodies = [json.loads(self.bodies[turn]) for turn in sorted(self.bodies)]
        path.write_text(json.dumps(bodies), encoding="utf-8")


def _answer(message: dict[str, Any], finish_reason: str) -> bytes:
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "fake",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One client's connection: requests come one after the other, none before the last one was answered."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._data = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._answers.connections += 1

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, _ = self._data.partition(_END_OF_HEAD)
        length = _LENGTH.search(head)
        if not end or length is None:
            return
        start = len(head) + len(end)
        if len(self._data) < start + int(length[1]):
            return
        body, self._data = bytes(self._data[start:]), bytearray()
        loop = asyncio.get_running_loop()
        loop.call_later(self._answers.latency_s, self._send, self._answers.next_to(body))

    def _send(self, answer: bytes) -> None:
        self._answers.waiting -= 1
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


async def _serve(turns: int, latency_s: float, tool: str, arguments: dict[str, Any], keep: str | None = None) -> None:
    answers = Answers(turns, latency_s, tool, arguments)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(answers), "127.0.0.1", 0, backlog=4096)
    meter = Meter()
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    cost = meter.read()
    if keep is not None:
        answers.keep(Path(keep))
    seen = {
        "requests": sum(answers.requests),
        "requests_by_turn": answers.requests,
        "request_kib": answers.request_bytes / 1024,
        "connections": answers.connections,
        "most_waiting": answers.most_waiting,
        "cpu_s": cost.cpu_s,
        "wall_s": cost.wall_s,
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    raise_open_files()
    asyncio.run(_serve(**json.loads(sys.argv[1])))
