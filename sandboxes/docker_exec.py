"""One command of a container, run through the engine's API: its script, its output, its end."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import anyio

from fbench.engine.errors import SandboxLost
from fbench.engine.seams import ExecExit, ExecRequest, OutputChunk
from fbench.sandboxes.docker_engine import REQUEST_PATIENCE_S

if TYPE_CHECKING:
    from aiodocker.execs import Exec
    from aiodocker.stream import Message, Stream

POLL_FIRST_S, POLL_MOST_S = 0.02, 0.25
"""How often to ask whether a command has ended whose output has not: a daemon may hold the pipe."""
DRAIN_IDLE_S = 0.1
"""After the end: this long without output means that what is there has been read."""
DRAIN_MOST_BYTES = 4 * 1024**2
"""After the end: more than pipes and the engine's buffers hold is a background child's."""
DISCARD_PAUSE_S = 0.01
STDERR = 2
CANNOT_START, NOT_FOUND = 126, 127
SIGNALLED, MAX_SIGNAL = 128, 64
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def exec_script(request: ExecRequest, env: Mapping[str, str], cwd: str, stdin: str) -> bytes:
    """The shell script that becomes the command; every byte of its arguments reaches it.

    What the shell itself has to say starts with the script's own path, which nothing else prints first.
    Raises ValueError for what no argument, variable or path can hold.
    """
    lines = [b"unset HOSTNAME"]
    odd: list[bytes] = []
    for name, value in env.items():
        pair = _bytes(name) + b"=" + _quoted(value)
        if _NAME.fullmatch(name):
            lines.append(b"export " + pair)
        else:
            odd.append(_quoted(f"{name}={value}"))
    if request.merge_stderr:
        lines.append(b"exec 2>&1")
    lines.append(b"cd " + _quoted(cwd if cwd.startswith("/") else f"./{cwd}") + b" || exit %d" % CANNOT_START)
    lines.append(b"unset OLDPWD")
    words = [b"env", *odd] if odd else []
    words += [_quoted(argument) for argument in request.argv]
    lines.append(b"exec " + b" ".join(words) + b" <" + _quoted(stdin))
    return b"\n".join(lines) + b"\n"


class ContainerExec:
    """A command in a container; see `fbench.engine.seams.RunningExec`.

    Attributes:
        mark: the value of FBENCH_EXEC in its processes.
        stop_reason: why the sandbox itself ended it, None when it did not.
        is_killed: whether we have set about ending it.
        oom_kills_before: the sandbox's count of out-of-memory kills when it started.
    """

    def __init__(self, mark: str, place: str, kill: "Callable[[ContainerExec], Awaitable[None]]") -> None:
        self.mark = mark
        self.stop_reason: str | None = None
        self.is_killed = False
        self.oom_kills_before = 0
        self.since: int | None = None
        self._prefix = place.encode() + b":"
        self._kill = kill
        self._exec: Exec | None = None
        self._stream: Stream | None = None
        self._ended = anyio.Event()
        self._at_end = anyio.Event()
        self._exit: ExecExit | None = None
        self._loss: str | None = None
        self._reader: anyio.CancelScope | None = None
        self._first: dict[Literal["stdout", "stderr"], bytes] = {}
        self._said = b""
        self._pending: list[OutputChunk] = []

    @property
    def is_started(self) -> bool:
        """Whether there is a process to end."""
        return self._stream is not None

    @property
    def has_ended(self) -> bool:
        """Whether the command's own process has ended, or nobody can tell any more."""
        return self._ended.is_set()

    def __aiter__(self) -> AsyncIterator[OutputChunk]:
        return self._chunks()

    async def wait(self) -> ExecExit:
        """The exit, once the command's own process has ended. Raises SandboxLost when the sandbox is gone."""
        await self._ended.wait()
        if self._exit is None:
            raise SandboxLost(self._loss)
        if self._exit.exit_code not in {CANNOT_START, NOT_FOUND} or self._exit.reason is not None:
            return self._exit
        if self._stream is not None and not self._first:  # nobody read what the shell had to say
            async for chunk in self._read():
                self._pending.append(chunk)
                break
        if not self._said:
            return self._exit
        return ExecExit(self._exit.exit_code, reason=_reason(self._said, self._prefix))

    async def kill(self) -> None:
        """End the whole tree of this command, setsid children and daemons included; returns when it is gone."""
        await self._kill(self)

    # ----------------------------------------------------------------------------------------- for the sandbox only

    async def start(self, execution: "Exec") -> None:
        """Start it. A cancelled caller leaves it started or not at all; `is_started` tells."""
        stream = execution.start(detach=False)
        with anyio.CancelScope(shield=True):
            await stream._init()  # noqa: SLF001 - what `__aenter__` does; closing is `discard`'s
        self._exec, self._stream = execution, stream

    async def ended(self) -> None:
        """Wait until `has_ended`."""
        await self._ended.wait()

    def finish(self, outcome: ExecExit) -> None:
        """The command's process has ended."""
        self._exit = outcome
        self._wake()

    def lose(self, loss: str) -> None:
        """The sandbox is gone, and the command with it."""
        self._loss = loss
        self._wake()

    async def facts_at_end(self) -> Mapping[str, Any]:
        """What the engine says of the process once it has ended.

        Raises what the client raises, and TimeoutError when the engine leaves one question unanswered.
        """
        assert self._exec is not None
        pause = POLL_FIRST_S
        while True:
            with anyio.fail_after(REQUEST_PATIENCE_S):
                facts: Mapping[str, Any] = await self._exec.inspect()
            if not facts["Running"] and facts["ExitCode"] is not None:
                return facts
            with anyio.move_on_after(pause):
                if self._at_end.is_set():
                    await anyio.sleep(POLL_FIRST_S)  # its output has ended, so it is about to
                else:
                    await self._at_end.wait()
            pause = min(pause * 1.5, POLL_MOST_S)

    async def discard(self) -> None:
        """Read and drop what a background child still writes, so that it never meets a closed or a full pipe."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        try:
            with suppress(Exception):  # the connection broke: then there is nothing left to read
                while await stream.read_out() is not None:  # noqa: ASYNC110 - the pause spares the loop
                    await anyio.sleep(DISCARD_PAUSE_S)
        finally:
            with anyio.CancelScope(shield=True), suppress(Exception):  # closing what is closed already
                await stream.close()

    # --------------------------------------------------------------------------------------------------- internals

    def _wake(self) -> None:
        self._ended.set()
        if self._reader is not None:
            self._reader.cancel()

    async def _chunks(self) -> AsyncIterator[OutputChunk]:
        for chunk in self._pending:
            yield chunk
        self._pending = []
        async for chunk in self._read():
            yield chunk
        await self._ended.wait()

    async def _read(self) -> AsyncIterator[OutputChunk]:
        left = DRAIN_MOST_BYTES
        while self._stream is not None and left > 0:
            was_ended = self.has_ended
            message = await self._next_message(self._stream)
            if message is not None:
                left -= len(message.data) if was_ended else 0
                name: Literal["stdout", "stderr"] = "stderr" if message.stream == STDERR else "stdout"
                if data := self._without_the_shells(name, message.data):
                    yield OutputChunk(name, data)
            elif was_ended or self._at_end.is_set():
                break
        for name, data in self._first.items():  # too short to tell until now
            if data and not data.startswith(self._prefix):
                yield OutputChunk(name, data)
        self._first = dict.fromkeys(self._first, b"") or {"stdout": b""}

    async def _next_message(self, stream: "Stream") -> "Message | None":
        """What comes next; None at the end of the output, when the command ends meanwhile and, once it has ended, when
        nothing is there."""
        with anyio.CancelScope() as scope:
            if self.has_ended:
                scope.deadline = anyio.current_time() + DRAIN_IDLE_S
            else:
                self._reader = scope
            try:
                message = await stream.read_out()
            except Exception:  # noqa: BLE001 - the connection broke; what became of the process is asked elsewhere
                message = None
            finally:
                self._reader = None
            if message is None:
                self._at_end.set()
            return message
        return None

    def _without_the_shells(self, name: Literal["stdout", "stderr"], data: bytes) -> bytes:
        """What is the command's of a piece of output; what the shell says instead of it is kept for the reason."""
        if name in self._first and not self._first[name]:
            return data
        data = self._first.get(name, b"") + data
        if data.startswith(self._prefix):
            self._first[name] = data[:4096]
            self._said = self._first[name]
            return b""
        if self._prefix.startswith(data):
            self._first[name] = data
            return b""
        self._first[name] = b""
        return data


def exit_of(code: int, *, reason: str | None, out_of_memory: bool) -> ExecExit:
    """The exit as the seam has it; a code over 128 is taken for a signal's, which the engine does not tell apart."""
    number = code - SIGNALLED if SIGNALLED < code <= SIGNALLED + MAX_SIGNAL else None
    return ExecExit(code, number, reason, out_of_memory)


def _reason(said: bytes, prefix: bytes) -> str:
    text = said.removeprefix(prefix).decode(errors="replace").strip()
    text = re.sub(r"^(line )?\d+: ", "", text)
    if text.startswith("cd:") or ": cd:" in text:
        return f"the working folder cannot be entered: {text}"
    what = "was not found" if "not found" in text else "could not be started"
    return f"the program {what}: {text.removeprefix('exec: ')}"


def _bytes(text: str) -> bytes:
    if "\0" in text:
        msg = f"{text[:80]!r} holds a NUL byte, which no argument, variable or path can"
        raise ValueError(msg)
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode(errors="replace")


def _quoted(text: str) -> bytes:
    return b"'" + _bytes(text).replace(b"'", b"'\"'\"'") + b"'"
