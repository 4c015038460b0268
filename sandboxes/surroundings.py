"""What both supervised sandboxes prepare alike: the scratch folder, the environment, the programs in PATH."""

import os
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path, PurePosixPath

from fbench.engine.errors import SandboxFailed
from fbench.engine.seams import SandboxSpec

DEFAULT_WORKDIR = "/workspace"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USER = "agent"
_SHIMS = {
    "python": '#!/bin/sh\nexec {python} "$@"\n',
    "python3": '#!/bin/sh\nexec {python} "$@"\n',
    "pytest": '#!/bin/sh\nexec {python} -m pytest "$@"\n',
}


def make_scratch(scratch: Path) -> None:
    """Make `home/`, `tmp/` and `state/` where missing. Raises SandboxFailed when that cannot be."""
    try:
        for name in ("home", "tmp", "state"):
            (scratch / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"the scratch folder {scratch} cannot be made ready: {error}; check TMPDIR and the disk"
        raise SandboxFailed(msg) from error


def check_folders(spec: SandboxSpec) -> None:
    """Raises SandboxFailed when the workspace or a mount is no folder."""
    for what, folder in [("workspace", spec.workspace), *((mount.name, mount.source) for mount in spec.mounts)]:
        if not folder.is_dir():
            msg = f"the {what} folder {folder} is missing or no folder: check the task"
            raise SandboxFailed(msg)


@cache
def scripts_folder() -> Path:
    """The folder with the programs of the environment fbench itself runs in."""
    beside = Path(sys.executable).parent
    named = Path(sysconfig.get_path("scripts"))
    return beside if os.access(beside / "python3", os.X_OK) and not os.access(named / "python3", os.X_OK) else named


def write_shims(folder: Path) -> bool:
    """Write programs for those of python, python3 and pytest that fbench's environment does not have; whether any."""
    missing = _missing_programs(scripts_folder())
    for name in missing:
        folder.mkdir(parents=True, exist_ok=True)
        shim = folder / name
        shim.unlink(missing_ok=True)
        shim.write_text(_SHIMS[name].format(python=_quoted(sys.executable)))
        shim.chmod(0o755)
    return bool(missing)


@cache
def _missing_programs(scripts: Path) -> list[str]:
    return [name for name in _SHIMS if not os.access(scripts / name, os.X_OK)]


def base_environment(
    spec: SandboxSpec, *, path: Iterable[str], home: str, tmp: str, workspace: str, mounts: Mapping[str, str]
) -> dict[str, str]:
    """Every variable a command sees, but for those of its own request."""
    return {
        "PATH": ":".join([*path, str(scripts_folder()), SYSTEM_PATH]),
        "HOME": home,
        "TMPDIR": tmp,
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "SHELL": "/bin/bash",
        "USER": USER,
        "LOGNAME": USER,
        "PYTHONDONTWRITEBYTECODE": "1",  # the workspace is the agent's work, not the interpreter's
        **spec.env,
        "FBENCH_WORKSPACE": workspace,
        **{f"FBENCH_{name.upper()}": where for name, where in mounts.items()},
    }


def split_workdir(workdir: str) -> tuple[str, str]:
    """Where the workspace is mounted for a workdir, and what the workdir is below that ("" for nothing)."""
    path, default = PurePosixPath(workdir), PurePosixPath(DEFAULT_WORKDIR)
    if path.is_relative_to(default):
        below = str(path.relative_to(default))
        return DEFAULT_WORKDIR, "" if below == "." else below
    return str(path), ""


def _quoted(text: str) -> str:
    import shlex  # noqa: PLC0415 - needed on few machines

    return shlex.quote(text)


def absolute(path: str | Path) -> str:
    """The path from the root, no link resolved."""
    return os.path.abspath(path)  # noqa: PTH100 - pathlib keeps `..`


def real(path: Path) -> str:
    """The path from the root, every link resolved."""
    return os.path.realpath(path)
