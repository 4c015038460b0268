"""A sandbox whose commands are started by a supervisor: what `local` and `bubblewrap` share on the host's side."""

import errno
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.abc import TaskGroup

from fbench.engine.errors import SandboxFailed, SandboxLost
from fbench.engine.logs import get_logger
from fbench.engine.seams import Capabilities, ExecExit, ExecRequest
from fbench.sandboxes.cgroups import ControlGroups
from fbench.sandboxes.execs import SupervisedExec
from fbench.sandboxes.limits import Enforcement
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
        rlimits: names of `resource` and their values.
        capabilities: what the sandbox does on this machine.
    """

    kind: str
    workspace: str
    workdir: str
    env: Mapping[str, str]
    rlimits: Mapping[str, int]
    capabilities: Capabilities


class SupervisedSandbox:
    """The `Sandbox` of `local` and `bubblewrap`; made by `open_supervised`."""

    def __init__(
        self, surroundings: Surroundings, link: SupervisorLink, groups: ControlGroups | None, tasks: TaskGroup
    ) -> None:
        self.kind = surroundings.kind
        self.capabilities = surroundings.capabilities
        self.workspace = surroundings.workspace
        self._surroundings = surroundings
        self._link = link
        self._groups = groups
        self._tasks = tasks
        self._execs: dict[int, SupervisedExec] = {}
        self._last_id = 0
        self._kills: dict[int, anyio.Event] = {}
        self._ends: list[anyio.Event] = []
        # A cancelled owner still has commands to end, and must hear that they are gone: only closing ends this.
        self.listening = anyio.CancelScope(shield=True)
        self.is_cleared = False
        """Whether the supervisor said, at the close, that it has ended what ran; one that is gone or stopped cannot."""

    @property
    def is_busy(self) -> bool:
        """Whether a command is running."""
        return bool(self._execs)

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

    async def end_processes(self) -> None:
        """End every process of the sandbox's user, background jobs included; the sandbox stays usable."""
        event = anyio.Event()
        self._ends.append(event)
        await self._link.send({"op": "end"})
        await event.wait()
        self._raise_if_lost()

    # --------------------------------------------------------------------------------------------------- internals

    async def _start(self, running: SupervisedExec, request: ExecRequest) -> None:
        self._raise_if_lost()
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
        message = {
            "op": "exec",
            "id": running.id,
            "argv": argv,
            "env": env,
            "cwd": cwd,
            "rlimits": dict(surroundings.rlimits),
            "has_stdin": bool(request.stdin),
        }
        fds: list[int] = []
        try:
            if request.stdin:
                fds.append(memory_file(request.stdin))
            outputs = running.open_pipes()
            fds += outputs
            running.oom_kills_before = self._groups.count_oom_kills() if self._groups else 0
            self._execs[running.id] = running
            await self._link.send(message, [*fds, outputs[0]] if request.merge_stderr else fds)
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
        if not running.is_started:
            return
        event = self._kills.get(running.id)
        if event is None:
            event = self._kills[running.id] = anyio.Event()
            try:
                await self._link.send({"op": "kill", "id": running.id})
            except BaseException:
                self._kills.pop(running.id, None)
                event.set()
                raise
        await event.wait()
        self._raise_if_lost()

    def _raise_if_lost(self) -> None:
        if self._link.is_lost:
            raise SandboxLost(self._loss())

    def _loss(self) -> str:
        return (
            f"the {self.kind} sandbox's supervisor is gone; what it said last: "
            f"{self._link.last_words() or 'nothing'}. Run the task again"
        )

    async def _listen(self) -> None:
        """Take the supervisor's messages until it is gone, then tell everybody who waits."""
        with self.listening:
            async for reply in self._link.replies():
                self._take(reply)
        loss = self._loss()
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
        out_of_memory = bool(is_killed and self._groups and self._groups.count_oom_kills() > running.oom_kills_before)
        return ExecExit(exit_code, number, running.stop_reason, out_of_memory)

    async def stop_all(self, reason: str) -> None:
        """End everything that runs and give `reason` to the commands it ends."""
        for running in self._execs.values():
            running.stop_reason = reason
        log.warning("sandbox.stopped_processes", sandbox=self.kind, reason=reason)
        await self.end_processes()


@asynccontextmanager
async def open_supervised(
    surroundings: Surroundings,
    start: Callable[[], Awaitable[SupervisorLink]],
    found: Enforcement,
    watch: DiskWatch,
) -> AsyncIterator[SupervisedSandbox]:
    """A sandbox around the supervisor that `await start()` gives; on exit all its processes are dead."""
    failure: BaseException | None = None
    groups = found.groups
    try:
        link = await start()
        try:
            if groups is not None:
                groups.add(link.pid)
            if found.cpus:
                os.sched_setaffinity(link.pid, found.cpus)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await link.aclose()
            raise
        async with anyio.create_task_group() as tasks:
            sandbox = SupervisedSandbox(surroundings, link, groups, tasks)
            tasks.start_soon(sandbox._listen)  # noqa: SLF001 - one module, one owner
            try:
                tasks.start_soon(watch.run, sandbox)
                yield sandbox
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:  # noqa: BLE001 - raised below, outside of the group that would wrap it
                failure = error
            finally:
                with anyio.CancelScope(shield=True):
                    await _close(sandbox, tasks)
                    if not await link.aclose():
                        log.error("sandbox.close_timed_out", sandbox=surroundings.kind)
    finally:
        if groups is not None:
            with anyio.CancelScope(shield=True):
                await groups.remove()
    if failure is not None:
        raise failure


async def _close(sandbox: SupervisedSandbox, tasks: TaskGroup) -> None:
    """End every process while the supervisor is still heard, then the background work."""
    with anyio.move_on_after(KILL_GRACE_S):
        try:
            await sandbox.end_processes()
            sandbox.is_cleared = True
        except SandboxLost:
            log.warning("sandbox.lost_before_close", sandbox=sandbox.kind)
    sandbox.listening.cancel()
    tasks.cancel_scope.cancel()


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
