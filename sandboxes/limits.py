"""How the limits of a sandbox are enforced on this machine: control groups where they may be used, else rlimits."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fbench.engine.seams import Limits
from fbench.sandboxes.cgroups import ControlGroups, make_groups, remove_group

NAMESPACED_NPROC_SINCE = (5, 14)
"""From this kernel on RLIMIT_NPROC counts the processes of a user namespace, before those of the host's user."""
ALL_LIMITS = Limits(cpus=1.0, memory_bytes=1 << 30, pids=64, disk_bytes=1 << 30)
"""One of each kind, to find out how they are held."""


@dataclass(frozen=True, slots=True)
class Enforcement:
    """What was found for one sandbox.

    Attributes:
        groups: its control groups, None when there are none.
        rlimits: names of the `resource` module and values, for each command.
        cpus: processors to pin the sandbox to, empty for no pinning.
        how: `cpus`, `memory`, `pids`, `disk` -> how it is enforced, "" where it is not or nothing was asked.
    """

    groups: ControlGroups | None
    rlimits: Mapping[str, int]
    cpus: frozenset[int]
    how: Mapping[str, str]


def enforce(limits: Limits, *, own_user_namespace: bool) -> Enforcement:
    """Make ready what enforces `limits`; the caller removes the groups."""
    groups = make_groups(limits)
    how = _ways(limits, frozenset(groups.folders) if groups else frozenset())
    rlimits: dict[str, int] = {"RLIMIT_CORE": 0}
    cpus: frozenset[int] = frozenset()
    if limits.memory_bytes is not None and how["memory"] == "rlimit":
        rlimits["RLIMIT_DATA"] = limits.memory_bytes
    if limits.pids is not None and how["pids"] == "rlimit":
        counts_ours_only = own_user_namespace and _kernel() >= NAMESPACED_NPROC_SINCE
        rlimits["RLIMIT_NPROC"] = limits.pids + (0 if counts_ours_only else _threads_of(os.getuid()))
    if limits.cpus is not None and how["cpus"] == "affinity":
        available = sorted(os.sched_getaffinity(0))
        offset = os.getpid() % len(available)  # spreads the sandboxes of several fbench processes
        cpus = frozenset((available[offset:] + available[:offset])[: math.ceil(limits.cpus)])
    if limits.disk_bytes is not None:
        rlimits["RLIMIT_FSIZE"] = limits.disk_bytes
    return Enforcement(groups, rlimits, cpus, how)


def foresee(limits: Limits) -> Mapping[str, str]:
    """How `enforce` would hold `limits`, as its `how` says it. Nothing is made, but by the first call of a process."""
    return _ways(limits, _usable_controllers())


async def describe_enforcement(*, own_user_namespace: bool) -> Mapping[str, str]:
    """How each kind of limit would be enforced here, found by trying; "" where it would not."""
    found = enforce(ALL_LIMITS, own_user_namespace=own_user_namespace)
    if found.groups is not None:
        await found.groups.remove()
    return {**found.how, "network": "namespace" if own_user_namespace else ""}


def _ways(limits: Limits, grouped: frozenset[str]) -> dict[str, str]:
    """How each limit is held where these controllers have groups, "" where it is not or nothing was asked."""
    how: dict[str, str] = dict.fromkeys(("cpus", "memory", "pids", "disk"), "")
    if limits.memory_bytes is not None:
        how["memory"] = "cgroup" if "memory" in grouped else "rlimit"
    if limits.pids is not None and ("pids" in grouped or os.getuid() != 0):  # root's processes are never counted
        how["pids"] = "cgroup" if "pids" in grouped else "rlimit"
    if limits.cpus is not None:
        is_less = math.ceil(limits.cpus) < len(os.sched_getaffinity(0))
        how["cpus"] = "cgroup" if "cpu" in grouped else "affinity" if is_less else ""
    if limits.disk_bytes is not None:
        how["disk"] = "watched"
    return how


@cache
def _usable_controllers() -> frozenset[str]:
    """Those for which this process may make groups, which only trying tells."""
    groups = make_groups(ALL_LIMITS)
    if groups is None:
        return frozenset()
    for folder in set(groups.folders.values()):
        remove_group(folder)
    return frozenset(groups.folders)


def _kernel() -> tuple[int, int]:
    major, _, rest = os.uname().release.partition(".")
    minor = "".join(c for c in rest.partition(".")[0] if c.isdecimal())
    return (int(major), int(minor or 0)) if major.isdecimal() else (0, 0)


def _threads_of(uid: int) -> int:
    """Threads the user runs now: what RLIMIT_NPROC counts."""
    total = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                if folder.stat().st_uid == uid:
                    total += sum(1 for _ in (folder / "task").iterdir())
            except OSError:
                continue  # it ended meanwhile
    return total
