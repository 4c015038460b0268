"""How many runs this machine carries at once, going by what the tasks declare."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fbench.tasks.manifest import TaskManifest

MEMORY_SHARE = 0.8
"""Of the machine's memory; the rest is for the engine, the containers' daemon and the file cache."""


def default_concurrency(manifests: "Iterable[TaskManifest]") -> int:
    """Runs that fit at once when all are as large as the largest; at least 1. A task that declares no limit counts as
    one core and no memory. The wait for a model's server takes neither, but nothing tells when it ends."""
    cpus, memory_bytes = 0.0, 0
    for manifest in manifests:
        environment = manifest.environment
        parts = [environment.resources, *(service.resources for service in environment.services.values())]
        cpus = max(cpus, sum(part.cpus or 0.0 for part in parts) or 1.0)
        memory_bytes = max(memory_bytes, sum(part.memory or 0 for part in parts))
    by_cpus = _cores() / (cpus or 1.0)
    by_memory = MEMORY_SHARE * _memory_bytes() / memory_bytes if memory_bytes else by_cpus
    return max(1, int(min(by_cpus, by_memory)))


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
