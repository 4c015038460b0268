"""Control groups of one sandbox: memory, processes and CPU time of everything in it, version 1 or 2."""

import math
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import anyio

from fbench.engine.logs import get_logger
from fbench.engine.owner import Owner
from fbench.engine.seams import Limits

PREFIX = "fbench-"
REMOVE_PATIENCE_S = 3.0
"""How long the kernel may take to let go of a group whose last process has just ended."""
CPU_PERIOD_US = 100_000
OWN_PIDS = 8
"""Processes that are ours and no command's: the supervisor and the monitors of a few commands at once."""
CONTROLLERS = ("memory", "pids", "cpu")

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where groups for some controllers can be made: the folder of our own group, or of its parent."""

    version: int
    parent: Path
    controllers: frozenset[str]


@dataclass(frozen=True, slots=True)
class ControlGroups:
    """The groups of one sandbox, one folder a hierarchy.

    Attributes:
        folders: controller -> the group's folder.
        version: the version of each controller's hierarchy.
    """

    folders: Mapping[str, Path]
    version: Mapping[str, int]

    def add(self, pid: int) -> None:
        """Put a process, and all it starts from now on, into the groups."""
        for folder in set(self.folders.values()):
            (folder / "cgroup.procs").write_text(str(pid))

    def count_oom_kills(self) -> int:
        """How many processes of the sandbox the memory cap has ended so far."""
        if "memory" not in self.folders:
            return 0
        name = "memory.oom_control" if self.version["memory"] == 1 else "memory.events"
        with suppress(OSError, ValueError):
            for line in (self.folders["memory"] / name).read_text().splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
        return 0

    async def remove(self) -> None:
        """End what is left in the groups and remove their folders; bounded."""
        folders = set(self.folders.values())
        with anyio.move_on_after(REMOVE_PATIENCE_S):
            while folders:
                folders = {folder for folder in folders if not remove_group(folder)}
                if folders:
                    await anyio.sleep(0.01)
        if folders:
            log.error("cgroup.remove_timed_out", folders=[str(folder) for folder in folders])


def make_groups(limits: Limits, hierarchies: tuple[Hierarchy, ...] | None = None) -> ControlGroups | None:
    """Groups with `limits`, for every controller this process may use; None where it may use none that is needed."""
    wanted = _settings(limits)
    folders: dict[str, Path] = {}
    versions: dict[str, int] = {}
    name = f"{PREFIX}{Owner.this_process().as_file_name()}-{uuid4().hex[:8]}"
    for hierarchy in find_hierarchies() if hierarchies is None else hierarchies:
        controllers = [c for c in CONTROLLERS if c in hierarchy.controllers and c in wanted and c not in folders]
        if not controllers:
            continue
        folder = hierarchy.parent / name
        try:
            folder.mkdir()
            if not os.access(folder / "cgroup.procs", os.W_OK):
                raise PermissionError
            if hierarchy.version == 2:  # noqa: PLR2004 - a version
                _let_go_at_once(folder)
            for controller in controllers:
                for file, value in wanted[controller][hierarchy.version].items():
                    _write(folder / file, value)
        except OSError:
            with suppress(OSError):
                folder.rmdir()
            continue
        for controller in controllers:
            folders[controller] = folder
            versions[controller] = hierarchy.version
    return ControlGroups(folders, versions) if folders else None


def find_hierarchies(
    mounts: Path = Path("/proc/self/mountinfo"), own: Path = Path("/proc/self/cgroup")
) -> tuple[Hierarchy, ...]:
    """Where this process could make groups; whether it may, only trying tells."""
    try:
        mount_lines, own_lines = mounts.read_text().splitlines(), own.read_text().splitlines()
    except OSError:
        return ()
    paths: dict[str, str] = {}
    for line in own_lines:
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    found: list[Hierarchy] = []
    for line in mount_lines:
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        root, mountpoint = left.split(" ")[3:5]
        if kind == "cgroup":
            names = frozenset(options.split(",")) & set(CONTROLLERS)
            if names and (folder := _own_folder(mountpoint, root, paths.get(min(names), "/"))) is not None:
                found.append(Hierarchy(1, folder, names))
        elif kind == "cgroup2" and (folder := _own_folder(mountpoint, root, paths.get("", "/"))) is not None:
            # A group with processes in it cannot hand controllers to groups below it, so a sibling is tried too.
            parents = [folder] if folder == Path(mountpoint) else [folder, folder.parent]
            found += [Hierarchy(2, parent, names) for parent in parents if (names := _handed_down(parent))]
    return tuple(found)


def remove_group(folder: Path) -> bool:
    """End what is in one group and remove its folder; whether it is gone. Blocking, and short."""
    with suppress(OSError, ValueError):
        for pid in (folder / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def sweep_groups() -> list[Path]:
    """Remove the groups of owners that are dead; gives those removed."""
    removed = []
    for parent in {hierarchy.parent for hierarchy in find_hierarchies()}:
        for folder in parent.glob(f"{PREFIX}*"):
            owner = Owner.from_file_name(folder.name.removeprefix(PREFIX).rpartition("-")[0])
            if owner is not None and not owner.is_alive() and remove_group(folder):
                removed.append(folder)
    return removed


def _settings(limits: Limits) -> dict[str, dict[int, dict[str, str]]]:
    """controller -> version -> file -> value."""
    wanted: dict[str, dict[int, dict[str, str]]] = {}
    if limits.memory_bytes is not None:
        size = str(limits.memory_bytes)
        wanted["memory"] = {
            1: {"memory.limit_in_bytes": size, "memory.memsw.limit_in_bytes": size},
            2: {"memory.max": size, "memory.swap.max": "0"},
        }
    if limits.pids is not None:
        value = {"pids.max": str(limits.pids + OWN_PIDS)}
        wanted["pids"] = {1: value, 2: value}
    if limits.cpus is not None:
        quota = str(max(1000, math.ceil(limits.cpus * CPU_PERIOD_US)))
        wanted["cpu"] = {
            1: {"cpu.cfs_period_us": str(CPU_PERIOD_US), "cpu.cfs_quota_us": quota},
            2: {"cpu.max": f"{quota} {CPU_PERIOD_US}"},
        }
    return wanted


def _write(file: Path, value: str) -> None:
    """Set one value; swap accounting is not compiled in everywhere, and without swap there is nothing to cap."""
    try:
        file.write_text(value)
    except FileNotFoundError:
        if "swap" not in file.name and "memsw" not in file.name:
            raise


def _own_folder(mountpoint: str, root: str, path: str) -> Path | None:
    """Our own group's folder below a mount, which may show only the part of the hierarchy below `root`."""
    inside = os.path.relpath(path, root)
    folder = Path(mountpoint) if inside.startswith("..") else Path(mountpoint, inside)
    return folder if folder.is_dir() else None


def _handed_down(folder: Path) -> frozenset[str]:
    """Controllers that groups below a version 2 group have, or get when we ask."""
    control = folder / "cgroup.subtree_control"
    with suppress(OSError):
        present = set((folder / "cgroup.controllers").read_text().split()) & set(CONTROLLERS)
        missing = present - set(control.read_text().split())
        if missing:
            with suppress(OSError):
                control.write_text(" ".join(f"+{name}" for name in sorted(missing)))
        return frozenset(present & set(control.read_text().split()))
    return frozenset()


def _let_go_at_once(folder: Path) -> None:
    """A process that the memory cap ends takes no other of its group with it."""
    with suppress(OSError):
        (folder / "memory.oom.group").write_text("0")
