"""One command of a supervised sandbox, as the host sees it: its pipes and its end."""

import fcntl
import os
import select
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Literal

import anyio
from anyio.lowlevel import checkpoint

from fbench.engine.errors import SandboxLost
from fbench.engine.seams import ExecExit, OutputChunk

PIPE_BYTES = 256 * 1024
"""Asked for, not needed: fewer wake-ups for commands that print much."""
READ_BYTES = 256 * 1024


class SupervisedExec:
    """A command in a sandbox; see `fbench.engine.seams.RunningExec`.

    Attributes:
        is_started: whether the supervisor was told of it.
        stop_reason: why the sandbox itself ended it, None when it did not.
        oom_kills_before: the sandbox's count of out-of-memory kills when it started.
    """

    def __init__(self, id_: int, kill: "Callable[[SupervisedExec], Awaitable[None]]", *, merge_stderr: bool) -> None:
        self.id = id_
        self.is_started = False
        self.stop_reason: str | None = None
        self.oom_kills_before = 0
        self._kill = kill
        self._names: tuple[Literal["stdout", "stderr"], ...] = ("stdout",) if merge_stderr else ("stdout", "stderr")
        self._pipes: dict[int, Literal["stdout", "stderr"]] = {}
        self._ended = anyio.Event()
        self._exit: ExecExit | None = None
        self._loss: str | None = None
        self._reader: anyio.CancelScope | None = None

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
        return self._exit

    async def kill(self) -> None:
        """End the whole tree of this command, setsid children and daemons included; returns when it is gone."""
        await self._kill(self)

    # ----------------------------------------------------------------------------------------- for the sandbox only

    def open_pipes(self) -> list[int]:
        """Make its pipes; gives the ends for the command, which the caller closes."""
        writers: list[int] = []
        try:
            for name in self._names:
                reader, writer = os.pipe2(os.O_CLOEXEC)
                self._pipes[reader] = name
                writers.append(writer)
                os.set_blocking(reader, False)
                with suppress(OSError):  # the user's share of pipe memory is used up: the usual size does as well
                    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except BaseException:
            for fd in writers:
                os.close(fd)
            raise
        return writers

    def finish(self, outcome: ExecExit) -> None:
        """The command's process has ended."""
        self._exit = outcome
        self._wake()

    def lose(self, loss: str) -> None:
        """The sandbox is gone, and the command with it."""
        self._loss = loss
        self._wake()

    def release(self) -> list[int]:
        """Give up the pipes: closes those nobody writes to any more, gives those somebody still may."""
        held: list[int] = []
        for fd in self._pipes:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            has_hung_up = any(event & select.POLLHUP for _, event in poll.poll(0))
            if has_hung_up or not self.is_started:
                os.close(fd)
            else:
                held.append(fd)
        self._pipes = {}
        return held

    # --------------------------------------------------------------------------------------------------- internals

    def _wake(self) -> None:
        self._ended.set()
        if self._reader is not None:
            self._reader.cancel()

    async def _chunks(self) -> AsyncIterator[OutputChunk]:
        open_pipes = dict(self._pipes)
        left = {fd: fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) for fd in open_pipes}
        while open_pipes:
            is_last_round = self.has_ended
            idle = True
            for fd, name in list(open_pipes.items()):
                try:
                    data = os.read(fd, READ_BYTES)
                except BlockingIOError:
                    if is_last_round:
                        del open_pipes[fd]
                    continue
                idle = False
                if not data:
                    del open_pipes[fd]
                    continue
                if is_last_round:
                    # What the command wrote is at most a pipe full; the rest is a background child's.
                    left[fd] -= len(data)
                    if left[fd] <= 0:
                        del open_pipes[fd]
                yield OutputChunk(name, data)
                await checkpoint()
            if idle and open_pipes and not self.has_ended:
                await self._wait_for_output(list(open_pipes))
        await self._ended.wait()

    async def _wait_for_output(self, fds: list[int]) -> None:
        """Until one of `fds` can be read or the command has ended."""
        with anyio.CancelScope() as scope:
            self._reader = scope
            try:
                if len(fds) == 1:
                    await anyio.wait_readable(fds[0])
                    return
                with select.epoll(len(fds)) as both:
                    for fd in fds:
                        both.register(fd, select.EPOLLIN)
                    await anyio.wait_readable(both.fileno())
            finally:
                self._reader = None
