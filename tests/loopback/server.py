"""An OpenAI-compatible HTTP server on loopback that can be as unpleasant as the real ones, and worse.

It runs in a thread with a loop of its own, so it serves async tests, sync tests and subprocesses alike. What it does
next is planned as a queue of behaviours; what it received, and the usage it served, can be read back.
"""

import asyncio
import gzip
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

Headers = Mapping[str, str]
MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Received:
    """One request; header names are in lower case."""

    method: str
    path: str
    headers: Headers
    body: bytes
    json: Any


@dataclass(slots=True)
class Exchange:
    """A request being answered; behaviours write to it as they please."""

    request: Received
    writer: asyncio.StreamWriter
    served: Callable[[Any], None]
    keep_open: bool = True

    async def send(
        self, body: bytes, *, status: int = 200, headers: Headers | None = None, length: int | None = None
    ) -> None:
        """A whole HTTP answer; `length` may lie about the body."""
        lines = {"content-type": "application/json", "content-length": str(len(body) if length is None else length)}
        lines.update(headers or {})
        head = f"HTTP/1.1 {status} Whatever\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.writer.write(head.encode("latin-1") + b"\r\n" + body)
        await self.writer.drain()

    def reset(self) -> None:
        """End the connection with a RST."""
        self.keep_open = False
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Exchange], Awaitable[None]]


@dataclass(slots=True)
class _State:
    requests: list[Received] = field(default_factory=list)
    usages: list[Any] = field(default_factory=list)
    open_connections: int = 0


class Answers:
    """Behaviours by name, reached through the server: `loopback.html()`."""

    @staticmethod
    def document(
        content: Any = "Hello.",
        *,
        tool_calls: Any = MISSING,
        usage: Any = MISSING,
        message: Any = MISSING,
        **more: Any,
    ) -> dict[str, Any]:
        """A Chat Completions answer as a document; anything in it may be replaced."""
        said: Any = {"role": "assistant", "content": content} if message is MISSING else message
        if tool_calls is not MISSING:
            said["tool_calls"] = tool_calls
        finish = "tool_calls" if tool_calls is not MISSING else "stop"
        document = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "loopback-1",
            "choices": [{"index": 0, "message": said, "finish_reason": finish}],
            "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18} if usage is MISSING else usage,
        }
        if usage is None:
            del document["usage"]
        return {**document, **more}

    @staticmethod
    def response(
        content: Any = "Hello.",
        *,
        calls: Sequence[dict[str, Any]] = (),
        reasoning: str | None = None,
        usage: Any = MISSING,
        **more: Any,
    ) -> dict[str, Any]:
        """An answer of the Responses API as a document, its reasoning encrypted; anything in it may be replaced."""
        thought: dict[str, Any] = {
            "type": "reasoning",
            "id": f"rs_{reasoning}",
            "summary": [],
            "encrypted_content": reasoning,
        }
        part = {"type": "output_text", "text": content, "annotations": [], "logprobs": []}
        said = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
        output = [*([thought] if reasoning else []), *([said] if content is not None else []), *calls]
        counts = {"input_tokens": 11, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 7,
                  "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 18}  # fmt: skip
        document = {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "status": "completed",
            "error": None,
            "incomplete_details": None,
            "model": "loopback-1",
            "output": output,
            "usage": counts if usage is MISSING else usage,
        }
        return {**document, **more}

    @staticmethod
    def function_call(name: str, arguments: Any, call_id: Any = "call_1") -> dict[str, Any]:
        """One call as the Responses API sends it."""
        raw = arguments if isinstance(arguments, str) else json.dumps(arguments)
        facts = {"id": "fc_1", "call_id": call_id, "name": name, "arguments": raw, "status": "completed"}
        return {"type": "function_call", **facts}

    @classmethod
    def respond(cls, content: Any = "Hello.", **more: Any) -> Behaviour:
        """A good answer of the Responses API."""
        return cls.json(cls.response(content, **more))

    @staticmethod
    def call(name: str, arguments: Any, call_id: Any = "call_1") -> dict[str, Any]:
        """One tool call as a server sends it."""
        raw = arguments if isinstance(arguments, str) else json.dumps(arguments)
        return {"id": call_id, "type": "function", "function": {"name": name, "arguments": raw}}

    @classmethod
    def say(cls, content: Any = "Hello.", **more: Any) -> Behaviour:
        """A good answer; `usage=None` leaves the usage out."""
        return cls.json(cls.document(content, **more))

    @classmethod
    def submit(cls, **more: Any) -> Behaviour:
        """An answer that calls `submit`."""
        return cls.say(None, tool_calls=[cls.call("submit", {})], **more)

    @staticmethod
    def json(document: Any, *, status: int = 200, headers: Headers | None = None) -> Behaviour:
        """Any JSON document with any status."""

        async def behave(exchange: Exchange) -> None:
            if status == 200 and isinstance(document, dict) and document.get("usage") is not None:
                exchange.served(document["usage"])
            await exchange.send(json.dumps(document).encode(), status=status, headers=headers)

        return behave

    @classmethod
    def error(cls, status: int, message: str = "no", *, code: str | None = None, **headers: str) -> Behaviour:
        """An error as OpenAI words it; headers are given with underscores (`retry_after="1"`)."""
        document = {"error": {"message": message, "type": "some_error", "param": None, "code": code}}
        return cls.json(
            document, status=status, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    @staticmethod
    def raw(
        body: bytes,
        *,
        status: int = 200,
        headers: Headers | None = None,
        length: int | None = None,
        close: bool = False,
    ) -> Behaviour:
        """Any bytes with any headers."""

        async def behave(exchange: Exchange) -> None:
            await exchange.send(body, status=status, headers=headers, length=length)
            exchange.keep_open = not close

        return behave

    @classmethod
    def html(cls, status: int = 200) -> Behaviour:
        """A proxy's page where JSON was wanted."""
        page = b"<!DOCTYPE html>\n<html><body><h1>Welcome\nto nginx</h1></body></html>"
        return cls.raw(page, status=status, headers={"content-type": "text/html"})

    @classmethod
    def cut_json(cls) -> Behaviour:
        """The first half of a good answer, with a Content-Length that fits the half."""
        body = json.dumps(cls.document()).encode()
        return cls.raw(body[: len(body) // 2])

    @classmethod
    def cut_body(cls) -> Behaviour:
        """The connection ends politely before the announced length."""
        body = json.dumps(cls.document()).encode()
        return cls.raw(body[: len(body) // 2], length=len(body), close=True)

    @classmethod
    def reset(cls, *, after: int = 0) -> Behaviour:
        """RST: at once, or after so many bytes of a body."""

        async def behave(exchange: Exchange) -> None:
            if after:
                body = json.dumps(cls.document()).encode()
                await exchange.send(body[:after], length=len(body))
                await asyncio.sleep(0.05)
            exchange.reset()

        return behave

    @staticmethod
    def silence(seconds: float, then: Behaviour | None = None) -> Behaviour:
        """Nothing for a while; then an answer, or the end of the connection."""

        async def behave(exchange: Exchange) -> None:
            await asyncio.sleep(seconds)
            if then is None:
                exchange.keep_open = False
            else:
                await then(exchange)

        return behave

    @classmethod
    def drip(cls, *, every_s: float) -> Behaviour:
        """A good answer, one byte at a time: no read ever times out."""

        async def behave(exchange: Exchange) -> None:
            body = json.dumps(cls.document()).encode()
            await exchange.send(b"", length=len(body))
            for byte in body:
                exchange.writer.write(bytes([byte]))
                await exchange.writer.drain()
                await asyncio.sleep(every_s)

        return behave

    @classmethod
    def chunked(cls, content: str = "in chunks") -> Behaviour:
        """A good answer in chunked encoding, cut in the middle of characters."""

        async def behave(exchange: Exchange) -> None:
            document = cls.document(content)
            exchange.served(document["usage"])
            body = json.dumps(document, ensure_ascii=False).encode()
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
            exchange.writer.write(head)
            for start in range(0, len(body), 7):
                piece = body[start : start + 7]
                exchange.writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                await exchange.writer.drain()
            exchange.writer.write(b"0\r\n\r\n")
            await exchange.writer.drain()

        return behave

    @classmethod
    def gzipped(cls) -> Behaviour:
        """A good answer, compressed."""
        return cls.raw(gzip.compress(json.dumps(cls.document()).encode()), headers={"content-encoding": "gzip"})

    @classmethod
    def gzip_garbage(cls) -> Behaviour:
        """Something that says it is gzip and is not."""
        return cls.raw(b"this is no gzip at all", headers={"content-encoding": "gzip"})

    @classmethod
    def gzip_bomb(cls, megabytes: int) -> Behaviour:
        """A small body that grows when it is unpacked."""
        return cls.raw(gzip.compress(bytes(megabytes * 1024**2)), headers={"content-encoding": "gzip"})

    @staticmethod
    def no_http() -> Behaviour:
        """Bytes that are no HTTP."""

        async def behave(exchange: Exchange) -> None:
            exchange.writer.write(b"\x00\x01SSH-2.0-surprise\r\n\r\n")
            await exchange.writer.drain()
            exchange.keep_open = False

        return behave


class LoopbackServer(Answers):
    """Serves from entering to leaving. `url` is the base URL to give to clients."""

    def __init__(self) -> None:
        self.url = ""
        self._state = _State()
        self._plan: deque[Behaviour] = deque()
        self._default: Behaviour | None = None
        self._models: Sequence[str] = ("loopback-1",)
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="loopback", daemon=True)
        self._handlers: set[asyncio.Task[None]] = set()

    def plan(self, *behaviours: Behaviour) -> None:
        """What the next calls get, one each; after them comes what `always` set."""
        self._plan.extend(behaviours)

    def always(self, behaviour: Behaviour) -> None:
        """What every call gets that nothing is planned for. At the start: a text in the format of its path."""
        self._default = behaviour

    @property
    def requests(self) -> list[Received]:
        """The calls of models so far."""
        return list(self._state.requests)

    @property
    def open_connections(self) -> int:
        """Connections that are open now."""
        return self._state.open_connections

    def tokens_served(self) -> tuple[int, int]:
        """Input and output tokens of all answers sent with a usage, in either format."""
        usages = [usage for usage in self._state.usages if isinstance(usage, dict)]
        return (
            sum(usage["prompt_tokens"] if "prompt_tokens" in usage else usage["input_tokens"] for usage in usages),
            sum(usage["completion_tokens"] if "prompt_tokens" in usage else usage["output_tokens"] for usage in usages),
        )

    def wait_for(self, condition: Callable[[], bool], *, within_s: float = 5.0) -> bool:
        """Whether `condition` comes true in time."""
        until = time.monotonic() + within_s
        while not condition() and time.monotonic() < until:
            time.sleep(0.01)
        return condition()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10), "the loopback server did not start"
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the loopback server did not stop"

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._started.set()
        try:
            await self._stop.wait()
        finally:
            server.close()
            for handler in tuple(self._handlers):
                handler.cancel()
            await asyncio.gather(*self._handlers, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.current_task()
        assert handler is not None
        self._handlers.add(handler)
        self._state.open_connections += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the client has gone, or the server stops
        finally:
            self._handlers.discard(handler)
            self._state.open_connections -= 1
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection stays. A client that leaves meanwhile ends the behaviour."""
        request = await _read_request(reader)
        if request is None:
            return False
        exchange = Exchange(request, writer, self._state.usages.append)
        if request.path.endswith("/models"):
            listed = [{"id": name, "object": "model"} for name in self._models]
            await exchange.send(json.dumps({"object": "list", "data": listed}).encode())
            return True
        self._state.requests.append(request)
        usual = self._default or (self.respond() if request.path.endswith("/responses") else self.say())
        behaviour = self._plan.popleft() if self._plan else usual
        acting = asyncio.ensure_future(behaviour(exchange))
        try:
            while not acting.done():
                await asyncio.wait({acting}, timeout=0.02)
                if reader.at_eof() or reader.exception() is not None:
                    return False
            acting.result()
        finally:
            acting.cancel()
            await asyncio.wait({acting})
        return exchange.keep_open


async def _read_request(reader: asyncio.StreamReader) -> Received | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, body, json.loads(body) if body else None)
