"""A container whose commands are started through the engine's API: for images without Python, and engines elsewhere.

The first process is a `sleep` of root without any right, so that everything else in the container is a command's.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio.abc import TaskGroup

from fbench.engine.errors import SandboxFailed, SandboxLost
from fbench.engine.logs import get_logger
from fbench.engine.own_task import unwrapping_group
from fbench.engine.seams import ExecExit, ExecRequest
from fbench.sandboxes.docker_container import Container
from fbench.sandboxes.docker_engine import REQUEST_PATIENCE_S
from fbench.sandboxes.docker_exec import CANNOT_START, ContainerExec, exec_script, exit_of
from fbench.sandboxes.docker_link import PLACE, ContainerGroups
from fbench.sandboxes.docker_ownership import Account
from fbench.sandboxes.docker_processes import (
    MARK,
    InsideProcesses,
    OutsideProcesses,
    Processes,
    end_all,
    end_tree,
    now_ticks,
)
from fbench.sandboxes.supervised import KILL_GRACE_S, Surroundings
from fbench.sandboxes.watching import DiskWatch

LIFETIME_S = 24 * 3600
"""A container ends by itself after this, whatever became of fbench."""
COMMAND = ("sleep", str(LIFETIME_S))
KILLED = 137
ENDED_PAUSE_S = 0.05
DEATH_PATIENCE_S = 2.0
"""How long a container that starts nothing any more may take to be known as ended; seen are 0.1 s."""
OOM_SCRIPT = (
    "cat /sys/fs/cgroup/memory/memory.oom_control /sys/fs/cgroup/memory.events 2>/dev/null | "
    'while read -r key count; do if [ "$key" = oom_kill ]; then echo "$count"; fi; done'
)

log = get_logger(__name__)


class PlainSandbox:
    """The `Sandbox` of a container without a supervisor; made by `open_plain`. `folder` is seen inside at `PLACE`."""

    def __init__(
        self, surroundings: Surroundings, container: Container, account: Account, folder: Path, tasks: TaskGroup
    ) -> None:
        self.kind = surroundings.kind
        self.capabilities = surroundings.capabilities
        self.workspace = surroundings.workspace
        self.container = container
        self._surroundings = surroundings
        self._account = account
        self._folder = folder
        self._tasks = tasks
        self._execs: dict[str, ContainerExec] = {}
        self._oom_kills_seen = 0
        self._groups = ContainerGroups(container.groups)
        self._processes: Processes = InsideProcesses(self._run_script, account.uid)
        if container.is_local and os.geteuid() in {0, account.uid}:
            self._processes = OutsideProcesses(container.groups["all"], account.uid)
        # A cancelled owner still has commands to end, and must hear that they are gone: only closing ends these.
        self.background: set[anyio.CancelScope] = set()

    @property
    def is_busy(self) -> bool:
        """Whether a command is running."""
        return bool(self._execs)

    # ---------------------------------------------------------------------------------------------------- the seam

    @asynccontextmanager
    async def exec(self, request: ExecRequest) -> AsyncIterator[ContainerExec]:
        """Start a command. Leaving the context while it still runs ends its whole tree."""
        mark = uuid4().hex
        running = ContainerExec(mark, f"{PLACE}/{mark}", self._kill)
        try:
            await self._start(running, request)
            yield running
        finally:
            with anyio.move_on_after(KILL_GRACE_S, shield=True) as grace, suppress(SandboxLost):
                if running.is_started and not running.has_ended:
                    await self._kill(running)
            if grace.cancelled_caught:
                log.error("exec.kill_timed_out", sandbox=self.kind, grace_s=KILL_GRACE_S)
            for suffix in ("", ".in"):
                (self._folder / f"{mark}{suffix}").unlink(missing_ok=True)
            if running.is_started:
                self._tasks.start_soon(self._in_background, running.discard)

    async def end_processes(self) -> None:
        """End every process of the sandbox's user, background jobs included; the sandbox stays usable."""
        for running in self._execs.values():
            running.is_killed = True
        with anyio.move_on_after(KILL_GRACE_S) as grace:
            await self._or_lost(lambda: end_all(self._processes))
        if grace.cancelled_caught:
            log.error("processes.survived_kill", sandbox=self.kind, container=self.container.name)
        if not await self._is_running():
            raise SandboxLost(self._loss())

    async def stop_all(self, reason: str) -> None:
        """End everything that runs and give `reason` to the commands it ends."""
        for running in self._execs.values():
            running.stop_reason = reason
        log.warning("sandbox.stopped_processes", sandbox=self.kind, reason=reason)
        await self.end_processes()

    # --------------------------------------------------------------------------------------------------- internals

    async def _start(self, running: ContainerExec, request: ExecRequest) -> None:
        surroundings = self._surroundings
        stdin = f"{PLACE}/{running.mark}.in" if request.stdin else "/dev/null"
        try:
            env = {**surroundings.env, **request.env}
            script = exec_script(request, env, request.cwd or surroundings.workdir, stdin)
        except ValueError as error:
            running.finish(ExecExit(CANNOT_START, reason=f"the command cannot be started: {error}"))
            return
        if not request.argv or not request.argv[0]:
            running.finish(ExecExit(CANNOT_START, reason="the command cannot be started: it names no program"))
            return
        try:
            await anyio.to_thread.run_sync(self._write, running.mark, script)
            if request.stdin:
                await anyio.to_thread.run_sync(self._write, f"{running.mark}.in", request.stdin)
        except OSError as error:
            msg = f"a command's files cannot be written to {self._folder}: {error}; check TMPDIR and the disk"
            raise SandboxFailed(msg) from error
        container = self.container
        running.since = now_ticks() if container.is_local else None
        running.oom_kills_before = self._groups.count_oom_kills() if container.is_local else self._oom_kills_seen
        try:
            with container.host.errors("could not start a command"), anyio.fail_after(REQUEST_PATIENCE_S):
                execution = await container.host.client.containers.container(container.id).exec(
                    ["/bin/sh", f"{PLACE}/{running.mark}"],
                    user=f"{self._account.uid}:{self._account.gid}",
                    environment={MARK: running.mark},
                )
                await running.start(execution)
        except SandboxFailed as error:
            raise SandboxLost(self._loss(error)) from error
        self._execs[running.mark] = running
        self._tasks.start_soon(self._in_background, lambda: self._follow(running))
        await anyio.lowlevel.checkpoint()

    def _write(self, name: str, data: bytes) -> None:
        file = self._folder / name
        file.write_bytes(data)
        if os.geteuid() == 0:
            os.chown(file, self._account.uid, self._account.gid)
        file.chmod(0o400)

    async def _follow(self, running: ContainerExec) -> None:
        """Wait for the end of a command's process and say how it was."""
        try:
            with self.container.host.errors("did not say how a command ended"):
                facts = await running.facts_at_end()
            code = int(facts["ExitCode"])
            if not facts.get("Pid"):
                running.finish(ExecExit(CANNOT_START, reason="the container could not start the command's shell"))
            elif code == KILLED and not await self._has_survived(running):
                running.lose(self._loss())
            else:
                out_of_memory = code == KILLED and await self._oom_kills() > running.oom_kills_before
                running.finish(exit_of(code, reason=running.stop_reason, out_of_memory=out_of_memory))
        except (SandboxFailed, SandboxLost) as error:
            running.lose(self._loss(error))
        finally:
            self._execs.pop(running.mark, None)

    async def _kill(self, running: ContainerExec) -> None:
        if not running.is_started:
            return
        running.is_killed = True
        with anyio.move_on_after(KILL_GRACE_S) as grace:
            await self._or_lost(lambda: self._end_tree(running))
            await running.wait()
        if grace.cancelled_caught:
            running.lose(self._loss(TimeoutError(f"a command did not end within {KILL_GRACE_S:.0f} s of its kill")))
            raise SandboxLost(self._loss())

    async def _end_tree(self, running: ContainerExec) -> None:
        """The engine answers before the process is there: it is looked for until it is known to have ended."""
        while True:
            has_ended = running.has_ended
            await end_tree(self._processes, running.mark, running.since)
            if has_ended:
                return
            with anyio.move_on_after(ENDED_PAUSE_S):
                await running.ended()

    async def _or_lost(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except SandboxFailed as error:
            raise SandboxLost(self._loss(error)) from error

    async def _oom_kills(self) -> int:
        """How many processes the memory cap has ended so far."""
        if self.container.is_local:
            return self._groups.count_oom_kills()
        counts = [int(word) for word in (await self._run_script(OOM_SCRIPT, ())).split() if word.isdecimal()]
        self._oom_kills_seen = max(self._oom_kills_seen, *counts, 0)
        return self._oom_kills_seen

    async def _run_script(self, script: str, arguments: tuple[str, ...]) -> str:
        """A helper of ours, as the commands' user; gives its stdout."""
        container = self.container
        said = bytearray()
        with container.host.errors("could not run a helper"), anyio.fail_after(REQUEST_PATIENCE_S):
            execution = await container.host.client.containers.container(container.id).exec(
                ["/bin/sh", "-c", script, "fbench", *arguments],
                user=f"{self._account.uid}:{self._account.gid}",
                stderr=False,
            )
            async with execution.start(detach=False) as stream:
                while (message := await stream.read_out()) is not None:
                    said += message.data
        return said.decode(errors="replace")

    async def _has_survived(self, running: ContainerExec) -> bool:
        """Whether the container lives on after one of its commands was killed.

        Its end takes the commands first, while the engine still calls it running: but then nothing starts in it.
        """
        if not await self._is_running():
            return False
        if running.is_killed:
            return True
        with suppress(SandboxFailed):
            if (await self._run_script("echo alive", ())).strip() == "alive":
                return True
        with anyio.move_on_after(DEATH_PATIENCE_S):
            while await self._is_running():  # noqa: ASYNC110 - the engine is asked, nobody tells
                await anyio.sleep(ENDED_PAUSE_S)
            return False
        return True

    async def _is_running(self) -> bool:
        try:
            return await self.container.is_running()
        except SandboxFailed:
            return False

    async def _in_background(self, work: Callable[[], Awaitable[None]]) -> None:
        with anyio.CancelScope(shield=True) as scope:
            self.background.add(scope)
            try:
                await work()
            finally:
                self.background.discard(scope)

    def _loss(self, error: Exception | None = None) -> str:
        why = f" ({error})" if error is not None else ""
        return f"the container {self.container.name} has ended, was removed, or its engine is gone{why}; run it again"


@asynccontextmanager
async def open_plain(
    surroundings: Surroundings, container: Container, account: Account, folder: Path, watch: DiskWatch
) -> AsyncIterator[PlainSandbox]:
    """A sandbox in a container that runs `COMMAND`; on exit its commands' processes are dead."""
    async with unwrapping_group() as tasks:
        sandbox = PlainSandbox(surroundings, container, account, folder, tasks)
        try:
            tasks.start_soon(watch.run, sandbox)
            yield sandbox
        finally:
            with anyio.move_on_after(KILL_GRACE_S, shield=True):
                try:
                    await sandbox.end_processes()
                except SandboxLost:
                    log.warning("sandbox.lost_before_close", sandbox=sandbox.kind)
            for scope in list(sandbox.background):
                scope.cancel()
            tasks.cancel_scope.cancel()
