"""The `local` sandbox: commands run as ordinary processes of this machine. Their trees are ended; nothing is hidden."""

import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import anyio

from fbench.engine.errors import SandboxFailed
from fbench.engine.logs import get_logger
from fbench.engine.seams import Capabilities, ExecRequest, OpenSandbox, SandboxSpec, SiteSpec
from fbench.sandboxes.limits import foresee
from fbench.sandboxes.link import SUPERVISOR_FILE, supervisor_argv
from fbench.sandboxes.supervised import (
    Begun,
    SupervisedSandbox,
    Surroundings,
    begin_supervised,
    open_supervised,
    require_linux,
)
from fbench.sandboxes.surroundings import (
    absolute,
    base_environment,
    check_folders,
    make_scratch,
    real,
    split_workdir,
    write_shims,
)
from fbench.sandboxes.watching import DiskWatch

MARK = "FBENCH_SANDBOX"
"""Variable by which processes are found whose supervisor was killed or stopped under them."""
SWEEP_PATIENCE_S = 3.0

_with_bash: set[str] = set()

log = get_logger(__name__)


@asynccontextmanager
async def open_sandbox(spec: SandboxSpec) -> AsyncIterator[SupervisedSandbox]:
    """A sandbox on this machine itself, the workspace at its own path; on exit every process of it is dead.

    Not isolated: commands read what this user reads, graders included, and reach the network. Raises SandboxFailed.
    """
    require_linux("local")
    check_folders(spec)
    workspace, scratch = real(spec.workspace), real(spec.scratch)
    shims = spec.scratch / "state" / "bin"
    mark = uuid4().hex
    env = base_environment(
        spec,
        path=[absolute(shims)] if write_shims(shims) else [],
        home=f"{scratch}/home",
        tmp=f"{scratch}/tmp",  # noqa: S108 - its own
        workspace=workspace,
        mounts={mount.name: real(mount.source) for mount in spec.mounts},
    )
    env[MARK] = mark
    if not _has_bash(env["PATH"]):
        msg = f"this machine has no bash in {env['PATH']}, which tools and checks need: install it, or use Docker"
        raise SandboxFailed(msg)
    below = split_workdir(spec.workdir)[1]
    surroundings = Surroundings(
        kind="local",
        workspace=workspace,
        workdir=f"{workspace}/{below}" if below else workspace,
        env=env,
        capabilities=Capabilities(isolated=False, limits={**foresee(spec.limits), "network": ""}, has_bash=True),
    )

    async def begin() -> Begun:
        make_scratch(spec.scratch)
        # The mark is an argument nobody reads: a supervisor's environment cannot be looked into, its command line can.
        argv = [*supervisor_argv(str(SUPERVISOR_FILE)), mark]
        return await begin_supervised(argv, surroundings.kind, spec.limits, own_user_namespace=False)

    watch = DiskWatch((spec.workspace, spec.scratch), spec.limits.disk_bytes)
    opened: SupervisedSandbox | None = None
    try:
        async with open_supervised(surroundings, begin, watch) as opened:
            if below:
                await make_workdir(opened, surroundings)
            yield opened
    finally:
        if opened is not None and not opened.is_cleared:
            with anyio.move_on_after(SWEEP_PATIENCE_S, shield=True) as grace:
                await _end_marked(mark)
            if grace.cancelled_caught:
                log.error("sandbox.sweep_timed_out", grace_s=SWEEP_PATIENCE_S)


def _has_bash(path: str) -> bool:
    """Looked for until it is found."""
    if path not in _with_bash and shutil.which("bash", path=path) is not None:
        _with_bash.add(path)
    return path in _with_bash


async def make_workdir(sandbox: SupervisedSandbox, surroundings: Surroundings) -> None:
    """Make a workdir that lies below the workspace, from inside, where links lead nowhere but inside."""
    request = ExecRequest(("mkdir", "-p", "--", surroundings.workdir), cwd=surroundings.workspace)
    async with sandbox.exec(request) as running:
        said = b"".join([chunk.data async for chunk in running])
        outcome = await running.wait()
    if outcome.exit_code != 0:
        msg = f"the workdir {surroundings.workdir} could not be made: {outcome.reason or said.decode(errors='replace')}"
        raise SandboxFailed(msg)


async def _end_marked(mark: str) -> None:
    """End every process that has the mark in its environment or its command line, until none is found."""
    while victims := _marked(mark):
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in victims:
                with suppress(OSError):
                    os.kill(pid, number)
        await anyio.sleep(0.01)


def _marked(mark: str) -> list[int]:
    needles = {"cmdline": mark.encode(), "environ": f"{MARK}={mark}".encode()}
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            for name, needle in needles.items():
                with suppress(OSError):  # gone, or another user's
                    if needle in (folder / name).read_bytes().split(b"\0"):
                        found.append(int(folder.name))
                        break
    return found


@asynccontextmanager
async def open_site(spec: SiteSpec) -> AsyncIterator[OpenSandbox]:
    """Nothing to make ready: each sandbox stands alone. Raises SandboxFailed for a task with services."""
    if spec.environment.services:
        msg = "the local sandbox has no services, and the task asks for them: use Compose"
        raise SandboxFailed(msg)
    yield open_sandbox
