"""The `bubblewrap` sandbox: one unprivileged namespace a sandbox, with the supervisor as its first process."""

import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path, PurePosixPath

import anyio

from fbench.engine.errors import SandboxFailed
from fbench.engine.seams import Capabilities, OpenSandbox, SandboxSpec, SiteSpec
from fbench.sandboxes.link import SUPERVISOR_FILE, supervisor_argv
from fbench.sandboxes.local import make_workdir
from fbench.sandboxes.supervised import (
    Begun,
    SupervisedSandbox,
    Surroundings,
    begin_supervised,
    open_supervised,
    require_linux,
)
from fbench.sandboxes.surroundings import (
    USER,
    absolute,
    base_environment,
    check_folders,
    make_scratch,
    split_workdir,
    write_shims,
)
from fbench.sandboxes.visible import SYSTEM_FOLDERS, SYSTEM_LINKS, covered, etc_entries, own_folders, python_folders
from fbench.sandboxes.watching import DiskWatch

PROBE_PATIENCE_S = 10.0
INSTALL_HINT = "install it with `apt-get install bubblewrap`"
HOME, TMP = "/home/agent", "/tmp"  # noqa: S108 - the sandbox's own, a folder of the run on the host
PROGRAMS = "/run/fbench"
"""Where the supervisor and the shims are inside."""
UID = "1000"
SHARED_MEMORY_BYTES = 256 * 1024**2
"""Size of /dev/shm where no memory limit is given; with one, it is at most half of that."""
TAKEN = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "proc", "dev", "sys", "run", "nix")
"""First parts of paths at which no workspace can appear."""
# Not --die-with-parent: a bwrap that dies between forking its child and waking it leaves that child waiting for ever.
# The supervisor ends, and the namespace with it, when fbench's end of its socket is closed.
ISOLATION = (
    "--unshare-all",
    "--new-session",
    "--unshare-user",
    "--uid",
    UID,
    "--gid",
    UID,
    "--disable-userns",
    "--cap-drop",
    "ALL",
    "--clearenv",
)
READ_ONLY_PROC = ("bus", "driver", "fs", "irq", "mtrr", "pressure", "sys", "sysrq-trigger")
"""To the kernel we are the user who runs fbench. For root that is enough to write most of these, capabilities or
not: a core_pattern written from inside would run a program outside."""
COVERED_PROC = ("acpi", "asound", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats")
ACCOUNTS = {
    "passwd": f"root:x:0:0:root:/root:/usr/sbin/nologin\n{USER}:x:{UID}:{UID}:{USER}:{HOME}:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": f"root:x:0:\n{USER}:x:{UID}:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost fbench\n::1 localhost\n",
}

_probed: dict[str, str | None] = {}


async def probe() -> str | None:
    """None when bubblewrap is usable on this machine, else why not and what to do. Looks once a process."""
    program = shutil.which("bwrap") or ""
    if program not in _probed:
        _probed[program] = await _try(program)
    return _probed[program]


async def _try(program: str) -> str | None:
    if not program:
        return f"bubblewrap (the program `bwrap`) is not in PATH: {INSTALL_HINT}"
    argv = [absolute(program), *ISOLATION, *_system_arguments(), "--proc", "/proc", "--dev", "/dev", "/bin/true"]
    try:
        exit_code, words = await _run_to_end(argv)
    except TimeoutError:
        return f"bubblewrap at {program} did not answer within {PROBE_PATIENCE_S:.0f} s"
    except OSError as error:
        return f"bubblewrap at {program} could not be started: {error}"
    if exit_code == 0:
        return None
    said = words.decode(errors="replace").strip() or f"exit code {exit_code}"
    return (
        f"bubblewrap at {program} cannot make a namespace: {said}. It needs version 0.8 or later and user namespaces "
        f"(sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)"
    )


async def _run_to_end(argv: Sequence[str]) -> tuple[int, bytes]:
    """The exit code of a program and what it said on stderr. Cut off, its whole process group is killed."""
    process = await anyio.open_process(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={}, cwd="/", start_new_session=True
    )
    try:
        with anyio.fail_after(PROBE_PATIENCE_S):
            said = b"".join([chunk async for chunk in process.stderr]) if process.stderr else b""
            return await process.wait(), said
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # by itself, bwrap would leave a child that waits for it
        with anyio.CancelScope(shield=True):
            await process.aclose()


@asynccontextmanager
async def open_sandbox(spec: SandboxSpec) -> AsyncIterator[SupervisedSandbox]:
    """A sandbox in namespaces of its own: no network, no host files but programs, the workspace read-write.

    On exit every process of it is dead. Raises SandboxFailed.
    """
    require_linux("bubblewrap")
    program = shutil.which("bwrap")
    if program is None:
        msg = f"bubblewrap (the program `bwrap`) is not in PATH: {INSTALL_HINT}"
        raise SandboxFailed(msg)
    workspace, below = split_workdir(spec.workdir)
    _check_place(workspace)
    check_folders(spec)
    make_scratch(spec.scratch)
    shims = spec.scratch / "state" / "bin"
    has_shims = write_shims(shims)
    mounts = {mount.name: f"/{mount.name}" for mount in spec.mounts}
    surroundings = Surroundings(
        kind="bubblewrap",
        workspace=workspace,
        workdir=f"{workspace}/{below}" if below else workspace,
        env=base_environment(
            spec, path=[f"{PROGRAMS}/bin"] if has_shims else [], home=HOME, tmp=TMP, workspace=workspace, mounts=mounts
        ),
        capabilities=Capabilities(isolated=True, limits={"network": "namespace"}),
    )
    argv = [
        absolute(program),
        *ISOLATION,
        "--as-pid-1",
        "--hostname",
        "fbench",
        *_folder_arguments(spec, workspace, shims if has_shims else None),
        "--",
        *supervisor_argv(f"{PROGRAMS}/supervisor.py"),
    ]

    async def begin() -> Begun:
        return await begin_supervised(argv, surroundings.kind, spec.limits, own_user_namespace=True)

    watch = DiskWatch((spec.workspace, spec.scratch), spec.limits.disk_bytes)
    async with open_supervised(surroundings, begin, watch) as sandbox:
        await sandbox.begin()  # whether the namespaces can be made is told before the first turn
        if below:
            await make_workdir(sandbox, surroundings)
        yield sandbox


def _check_place(workspace: str) -> None:
    parts = PurePosixPath(workspace).parts
    if len(parts) < 2 or parts[1] in TAKEN or workspace in {TMP, HOME, "/home"}:  # noqa: PLR2004 - the root and a name
        msg = (
            f"the workspace cannot appear at {workspace} in bubblewrap, where programs are: set "
            f"`environment.workdir` to /workspace"
        )
        raise SandboxFailed(msg)


def _system_arguments() -> list[str]:
    arguments: list[str] = []
    for folder in SYSTEM_FOLDERS:
        if Path(folder).is_dir():
            arguments += ["--ro-bind", folder, folder]
    for name in SYSTEM_LINKS:
        path = Path(name)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            arguments += ["--ro-bind", name, name]
    return arguments


def _folder_arguments(spec: SandboxSpec, workspace: str, shims: Path | None) -> list[str]:
    """Everything that is mounted, in order: what comes later lies on top."""
    state = spec.scratch / "state" / "etc"
    state.mkdir(parents=True, exist_ok=True)
    arguments = _system_arguments()
    for entry in etc_entries():
        arguments += ["--ro-bind", str(entry), str(entry)]
    for name, text in ACCOUNTS.items():
        (state / name).write_text(text)
        arguments += ["--ro-bind", str(state / name), f"/etc/{name}"]
    shared = min(SHARED_MEMORY_BYTES, (spec.limits.memory_bytes or 2 * SHARED_MEMORY_BYTES) // 2)
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    for path in (Path("/proc", name) for name in READ_ONLY_PROC):
        if path.exists():
            arguments += ["--ro-bind", str(path), str(path)]
    secrets = [path for path in (Path("/proc", name) for name in COVERED_PROC) if path.exists()]
    arguments += _cover_arguments([(str(path), path.is_dir()) for path in secrets])
    arguments += ["--perms", "1777", "--size", str(shared), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]  # noqa: S108 - its own
    arguments += ["--ro-bind", str(SUPERVISOR_FILE), f"{PROGRAMS}/supervisor.py"]
    if shims is not None:
        arguments += ["--ro-bind", str(shims), f"{PROGRAMS}/bin"]
    writable = [(spec.scratch / "home", HOME), (spec.scratch / "tmp", TMP), (spec.workspace, workspace)]
    for source, place in writable:
        arguments += ["--bind", str(source), place]
    for path in python_folders():
        arguments += ["--ro-bind", str(path), str(path)]
    readable = [(mount.source, f"/{mount.name}") for mount in spec.mounts]
    for source, place in readable:
        arguments += ["--ro-bind", str(source), place]
    programs = [(path, str(path)) for path in (*python_folders(), *map(Path, (*SYSTEM_FOLDERS, *SYSTEM_LINKS)))]
    arguments += _cover_arguments(covered([*own_folders(), *spec.hidden], [*programs, *writable, *readable]))
    return [*arguments, "--remount-ro", "/", "--chdir", "/"]


def _cover_arguments(places: Sequence[tuple[str, bool]]) -> list[str]:
    arguments: list[str] = []
    for place, is_folder in places:
        if is_folder:
            arguments += ["--perms", "0555", "--size", "4096", "--tmpfs", place, "--remount-ro", place]
        else:
            arguments += ["--ro-bind", os.devnull, place]
    return arguments


@asynccontextmanager
async def open_site(spec: SiteSpec) -> AsyncIterator[OpenSandbox]:
    """Nothing to make ready: each sandbox stands alone. Raises SandboxFailed for a task with services or a network."""
    if spec.environment.needs_compose:
        msg = "the bubblewrap sandbox has neither services nor a network, and the task asks for them: use Compose"
        raise SandboxFailed(msg)
    yield open_sandbox
