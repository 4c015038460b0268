"""One command in a sandbox, run to its end or its timeout, with its output in bounded memory."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from fbench.engine.seams import ExecExit, ExecRequest, Sandbox


class OutputBuffer:
    """Keeps the head and the tail of a stream, `keep_bytes` at most, and counts what lay between.

    Args:
        keep_bytes: how much to keep; half of it is head, half tail.
    """

    def __init__(self, keep_bytes: int) -> None:
        self.total_bytes = 0
        self._head_limit = keep_bytes - keep_bytes // 2
        self._tail_limit = keep_bytes // 2
        self._head = bytearray()
        self._tail = bytearray()

    def add(self, data: bytes) -> None:
        """Take in what came next."""
        self.total_bytes += len(data)
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail += data[-self._tail_limit :] if self._tail_limit else b""
            # Trimmed only when twice as long, so that many small pieces cost no more than a few large ones.
            if len(self._tail) > 2 * self._tail_limit:
                del self._tail[: len(self._tail) - self._tail_limit]

    @property
    def dropped_bytes(self) -> int:
        """How many bytes were not kept."""
        return self.total_bytes - len(self._head) - min(len(self._tail), self._tail_limit)

    def head(self) -> bytes:
        """The kept bytes before the gap; all of them when nothing was dropped."""
        return bytes(self._head) if self.dropped_bytes else bytes(self._head + self._tail)

    def tail(self) -> bytes:
        """The kept bytes after the gap."""
        return bytes(self._tail[-self._tail_limit :]) if self.dropped_bytes and self._tail_limit else b""

    def text(self) -> str:
        """The kept bytes as text, with a note where bytes were left out. What is no UTF-8 is replaced."""
        if not self.dropped_bytes:
            return self.head().decode("utf-8", "replace")
        head, tail = self.head(), self.tail()
        # A character cut in two by the gap is left out with it.
        head = head[: len(head) - _torn_end(head)]
        tail = tail[_torn_start(tail) :]
        dropped = self.total_bytes - len(head) - len(tail)
        before, after = head.decode("utf-8", "replace"), tail.decode("utf-8", "replace")
        return f"{before}\n[... {dropped} bytes left out ...]\n{after}"


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command went.

    Attributes:
        exit_code: None when it timed out.
        output: what it printed; with streams apart, its stdout.
        stderr: what it printed there; empty when the streams were merged.
        stdout_bytes: the kept bytes of `output` as they came; without the middle when `dropped_bytes` says so.
        dropped_bytes: bytes of both streams that were not kept.
        reason: why it could not start, or what ended it, where the sandbox knows.
        out_of_memory: the sandbox's memory cap ended it.
    """

    exit_code: int | None
    output: str
    stderr: str
    stdout_bytes: bytes
    dropped_bytes: int
    timed_out: bool
    duration_s: float
    signal: int | None = None
    reason: str | None = None
    out_of_memory: bool = False


async def run_exec(
    sandbox: Sandbox,
    request: ExecRequest,
    *,
    timeout_s: float | None,
    keep_bytes: int,
    on_output: Callable[[bytes], None] | None = None,
) -> ExecResult:
    """Run `request` to its end; at the timeout its whole tree is ended and what it had printed is kept.

    A cancellation from outside ends the tree too and goes on to the caller.

    Args:
        sandbox: where to run it.
        request: the command.
        timeout_s: seconds it may take, None for no limit.
        keep_bytes: bytes kept of each stream.
        on_output: told of output as it comes.

    Raises:
        SandboxLost: the sandbox went away.
    """
    started = time.monotonic()
    stdout, stderr = OutputBuffer(keep_bytes), OutputBuffer(keep_bytes)
    end: ExecExit | None = None
    with anyio.move_on_after(timeout_s):
        # Leaving the exec while it runs is what ends its tree.
        async with sandbox.exec(request) as running:
            async for chunk in running:
                (stdout if chunk.stream == "stdout" else stderr).add(chunk.data)
                if on_output is not None:
                    on_output(chunk.data)
            end = await running.wait()
    return ExecResult(
        exit_code=None if end is None else end.exit_code,
        output=stdout.text(),
        stderr=stderr.text(),
        stdout_bytes=stdout.head() + stdout.tail(),
        dropped_bytes=stdout.dropped_bytes + stderr.dropped_bytes,
        timed_out=end is None,
        duration_s=time.monotonic() - started,
        signal=None if end is None else end.signal,
        reason=None if end is None else end.reason,
        out_of_memory=end is not None and end.out_of_memory,
    )


def cut_text(text: str, keep_bytes: int) -> tuple[str, int]:
    """The text without its middle where it is longer than `keep_bytes`, and how many bytes were left out."""
    buffer = OutputBuffer(keep_bytes)
    buffer.add(text.encode("utf-8", "replace"))
    return buffer.text(), buffer.dropped_bytes


def _torn_end(data: bytes) -> int:
    """How many bytes at the end begin a UTF-8 character that is not all there."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 == 0xC0:  # noqa: PLR2004 - a lead byte of UTF-8
            length = 2 + (byte >= 0xE0) + (byte >= 0xF0)  # noqa: PLR2004 - by its high bits
            return back if back < length else 0
        if byte & 0x80 == 0:
            return 0
    return 0


def _torn_start(data: bytes) -> int:
    """How many bytes at the start continue a UTF-8 character that began earlier."""
    for index in range(min(3, len(data))):
        if data[index] & 0xC0 != 0x80:  # noqa: PLR2004 - no continuation byte of UTF-8
            return index
    return min(3, len(data))
