"""A sandbox whose commands are started by a supervisor: what `local` and `bubblewrap` share on the host's side."""

import errno
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import anyio
from anyio.abc import TaskGroup

from fbench.engine.errors import SandboxFailed, SandboxLost
from fbench.engine.logs import get_logger
from fbench.engine.own_task import unwrapping_group
from fbench.engine.seams import Capabilities, ExecExit, ExecRequest, Limits
from fbench.sandboxes.execs import SupervisedExec
from fbench.sandboxes.limits import Enforcement, enforce
from fbench.sandboxes.link import SupervisorLink, memory_file
from fbench.sandboxes.watching import DiskWatch

KILL_GRACE_S = 12.0
"""How long ending one tree may take; the supervisor itself gives up after 5 s and names the survivors."""
DISCARD_PAUSE_S = 0.01
"""Pause between reads of output nobody wants, so that a background job that floods its pipe costs the host little."""
CANNOT_START, NOT_FOUND = 126, 127

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every command of a sandbox gets.

    Attributes:
        kind: the sandbox's kind.
        workspace: the workspace as commands see it.
        workdir: where commands start.
        env: their environment, to which a request adds.
        capabilities: what the sandbox does on this machine.
    """

    kind: str
    workspace: str
    workdir: str
    env: Mapping[str, str]
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class Begun:
    """A supervisor that answers, and what holds its commands within their limits."""

    link: SupervisorLink
    found: Enforcement


class SupervisedSandbox:
    """The `Sandbox` of `local` and `bubblewrap`; made by `open_supervised`.

    Its supervisor comes with `begin`, which the first command calls where nobody did before: a run whose agent
    executes nothing has none.
    """

    def __init__(
        self, surroundings: Surroundings, start: Callable[[], Awaitable[Begun]], watch: DiskWatch, tasks: TaskGroup
    ) -> None:
        self.kind = surroundings.kind
        self.capabilities = surroundings.capabilities
        self.workspace = surroundings.workspace
        self.begun: Begun | None = None
        self._surroundings = surroundings
        self._begin = start
        self._watch = watch
        self._beginning = anyio.Lock(fast_acquire=True)
        self._tasks = tasks
        self._execs: dict[int, SupervisedExec] = {}
        self._last_id = 0
        self._kills: dict[int, anyio.Event] = {}
        self._ends: list[anyio.Event] = []
        # A cancelled owner still has commands to end, and must hear that they are gone: only closing ends this.
        self.listening = anyio.CancelScope(shield=True)
        self.is_closed = False
        self.is_cleared = False
        """Whether the supervisor said, at the close, that it has ended what ran; one that is gone or stopped cannot."""

    @property
    def is_busy(self) -> bool:
        """Whether a command is running."""
        return bool(self._execs)

    async def begin(self) -> Begun:
        """The supervisor, started by the first call. Raises SandboxFailed; SandboxLost once this is closed."""
        if self.begun is not None:
            return self.begun
        async with self._beginning:
            if self.is_closed:
                msg = f"the {self.kind} sandbox is closed: start no command after its run has left it"
                raise SandboxLost(msg)
            if self.begun is None:
                self.begun = begun = await self._begin()
                self.capabilities = replace(self.capabilities, limits={**self.capabilities.limits, **begun.found.how})
                self._tasks.start_soon(self._listen, begun.link)
                self._tasks.start_soon(self._watch.run, self)
        return self.begun

    # ---------------------------------------------------------------------------------------------------- the seam

    @asynccontextmanager
    async def exec(self, request: ExecRequest) -> AsyncIterator[SupervisedExec]:
        """Start a command. Leaving the context while it still runs ends its whole tree."""
        self._last_id += 1
        running = SupervisedExec(self._last_id, self._kill, merge_stderr=request.merge_stderr)
        try:
            await self._start(running, request)
            yield running
        finally:
            with anyio.move_on_after(KILL_GRACE_S, shield=True) as grace, suppress(SandboxLost):
                if running.is_started and not running.has_ended:
                    await self._kill(running)
            if grace.cancelled_caught:
                log.error("exec.kill_timed_out", sandbox=self.kind, grace_s=KILL_GRACE_S)
            for fd in running.release():
                self._tasks.start_soon(_discard, fd)

    async def close_for_commands(self) -> None:
        """Let no command begin a supervisor any more, and wait for the one that is beginning: nobody else ends it."""
        self.is_closed = True
        async with self._beginning:
            pass

    async def end_processes(self) -> None:
        """End every process of the sandbox's user, background jobs included; the sandbox stays usable."""
        if self.begun is None:
            return
        event = anyio.Event()
        self._ends.append(event)
        try:
            await self.begun.link.send({"op": "end"})
        except BaseException:
            self._ends.remove(event)  # nothing was sent, so nothing answers it
            raise
        await event.wait()
        _raise_if_lost(self.kind, self.begun.link)

    # --------------------------------------------------------------------------------------------------- internals

    async def _start(self, running: SupervisedExec, request: ExecRequest) -> None:
        surroundings = self._surroundings
        try:
            argv = [_as_wire(argument) for argument in request.argv]
            env = {_as_wire(k): _as_wire(v) for k, v in {**surroundings.env, **request.env}.items()}
            cwd = _as_wire(request.cwd or surroundings.workdir)
        except ValueError as error:
            running.finish(ExecExit(CANNOT_START, reason=f"the command cannot be started: {error}"))
            return
        if not argv or not argv[0]:
            running.finish(ExecExit(CANNOT_START, reason="the command cannot be started: it names no program"))
            return
        begun = await self.begin()
        _raise_if_lost(self.kind, begun.link)
        message = {
            "op": "exec",
            "id": running.id,
            "argv": argv,
            "env": env,
            "cwd": cwd,
            "rlimits": dict(begun.found.rlimits),
            "has_stdin": bool(request.stdin),
        }
        fds: list[int] = []
        try:
            if request.stdin:
                fds.append(memory_file(request.stdin))
            outputs = running.open_pipes()
            fds += outputs
            running.oom_kills_before = _count_oom_kills(begun)
            self._execs[running.id] = running
            await begun.link.send(message, [*fds, outputs[0]] if request.merge_stderr else fds)
            running.is_started = True
        except OSError as error:
            msg = f"no pipes for a command: {error}; raise the limit of open files (ulimit -n)"
            raise SandboxFailed(msg) from error
        finally:
            if not running.is_started:
                self._execs.pop(running.id, None)
            for fd in fds:
                os.close(fd)

    async def _kill(self, running: SupervisedExec) -> None:
        if not running.is_started or self.begun is None:
            return
        link = self.begun.link
        event = self._kills.get(running.id)
        if event is None:
            event = self._kills[running.id] = anyio.Event()
            try:
                await link.send({"op": "kill", "id": running.id})
            except BaseException:
                self._kills.pop(running.id, None)
                event.set()
                raise
        await event.wait()
        _raise_if_lost(self.kind, link)

    async def _listen(self, link: SupervisorLink) -> None:
        """Take the supervisor's messages until it is gone, then tell everybody who waits."""
        with self.listening:
            async for reply in link.replies():
                self._take(reply)
        loss = _loss(self.kind, link)
        for running in list(self._execs.values()):
            running.lose(loss)
        self._execs.clear()
        for event in [*self._kills.values(), *self._ends]:
            event.set()

    def _take(self, reply: Mapping[str, Any]) -> None:
        event = reply["event"]
        if survivors := reply.get("survivors"):
            log.error("processes.survived_kill", sandbox=self.kind, pids=survivors)
        if event == "killed":
            if (waiting := self._kills.pop(reply["id"], None)) is not None:
                waiting.set()
        elif event == "ended":
            self._ends.pop(0).set()
        elif event in {"exited", "failed"} and (running := self._execs.pop(reply["id"], None)) is not None:
            running.finish(self._exit_of(running, reply))

    def _exit_of(self, running: SupervisedExec, reply: Mapping[str, Any]) -> ExecExit:
        if reply["event"] == "failed":
            return _failure(reply["errno"], reply["what"])
        code = os.waitstatus_to_exitcode(reply["status"])
        number = -code if code < 0 else None
        exit_code = 128 - code if code < 0 else code
        is_killed = exit_code == 128 + signal.SIGKILL
        out_of_memory = bool(is_killed and self.begun and _count_oom_kills(self.begun) > running.oom_kills_before)
        return ExecExit(exit_code, number, running.stop_reason, out_of_memory)

    async def stop_all(self, reason: str) -> None:
        """End everything that runs and give `reason` to the commands it ends."""
        for running in self._execs.values():
            running.stop_reason = reason
        log.warning("sandbox.stopped_processes", sandbox=self.kind, reason=reason)
        await self.end_processes()


async def begin_supervised(argv: Sequence[str], kind: str, limits: Limits, *, own_user_namespace: bool) -> Begun:
    """A supervisor started by `argv`, in its groups and on its processors. Raises SandboxFailed; failing, it leaves
    nothing."""
    found = enforce(limits, own_user_namespace=own_user_namespace)
    try:
        link = await SupervisorLink.start(argv, what=f"the {kind} sandbox")
        try:
            if found.groups is not None:
                found.groups.add(link.pid)
            if found.cpus:
                os.sched_setaffinity(link.pid, found.cpus)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await link.aclose()
            raise
    except BaseException:
        if found.groups is not None:
            with anyio.CancelScope(shield=True):
                await found.groups.remove()
        raise
    return Begun(link, found)


@asynccontextmanager
async def open_supervised(
    surroundings: Surroundings, begin: Callable[[], Awaitable[Begun]], watch: DiskWatch
) -> AsyncIterator[SupervisedSandbox]:
    """A sandbox around the supervisor that `await begin()` gives; on exit all its processes are dead."""
    async with unwrapping_group() as tasks:
        sandbox = SupervisedSandbox(surroundings, begin, watch, tasks)
        try:
            yield sandbox
        finally:
            with anyio.CancelScope(shield=True):
                await _close(sandbox, tasks)


async def _close(sandbox: SupervisedSandbox, tasks: TaskGroup) -> None:
    """End every process while the supervisor is still heard, then the background work, then the supervisor."""
    await sandbox.close_for_commands()
    with anyio.move_on_after(KILL_GRACE_S):
        try:
            await sandbox.end_processes()
            sandbox.is_cleared = True
        except SandboxLost:
            log.warning("sandbox.lost_before_close", sandbox=sandbox.kind)
    sandbox.listening.cancel()
    tasks.cancel_scope.cancel()
    if sandbox.begun is None:
        return
    try:
        if not await sandbox.begun.link.aclose():
            log.error("sandbox.close_timed_out", sandbox=sandbox.kind)
    finally:
        if (groups := sandbox.begun.found.groups) is not None:
            await groups.remove()


def _raise_if_lost(kind: str, link: SupervisorLink) -> None:
    if link.is_lost:
        raise SandboxLost(_loss(kind, link))


def _loss(kind: str, link: SupervisorLink) -> str:
    return (
        f"the {kind} sandbox's supervisor is gone; what it said last: {link.last_words() or 'nothing'}. "
        f"Run the task again"
    )


def _count_oom_kills(begun: Begun) -> int:
    return begun.found.groups.count_oom_kills() if begun.found.groups else 0


async def _discard(fd: int) -> None:
    """Read and drop what a background child still writes, so that it never meets a closed or a full pipe."""
    try:
        while True:
            try:
                if not os.read(fd, 1 << 20):
                    return
            except BlockingIOError:
                await anyio.wait_readable(fd)
            await anyio.sleep(DISCARD_PAUSE_S)
    finally:
        os.close(fd)


def _as_wire(text: str) -> str:
    """The latin-1 image of the bytes a text stands for; names of files that are no UTF-8 come back as they were."""
    if "\0" in text:
        msg = f"{text[:80]!r} holds a NUL byte, which no argument, variable or path can"
        raise ValueError(msg)
    try:
        data = text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        data = text.encode(errors="replace")
    return data.decode("latin-1")


def _failure(number: int, what: str) -> ExecExit:
    text = os.strerror(number)
    if what == "cwd":
        return ExecExit(CANNOT_START, reason=f"the working folder cannot be entered: {text}")
    if what == "fork":
        return ExecExit(CANNOT_START, reason=f"no further process can be started in the sandbox: {text}")
    if number in {errno.ENOENT, errno.ENOTDIR}:
        return ExecExit(NOT_FOUND, reason=f"the program was not found: {text}")
    return ExecExit(CANNOT_START, reason=f"the program could not be started: {text}")


def require_linux(kind: str) -> None:
    """Raises SandboxFailed where there is no /proc, no subreaper and no pidfd."""
    if sys.platform != "linux":
        msg = f"the {kind} sandbox needs Linux, this is {sys.platform}: run fbench on Linux"
        raise SandboxFailed(msg)
