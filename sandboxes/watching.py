"""Watching what a sandbox writes: the disk limit, and the host's own free space."""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import anyio

from fbench.engine.errors import SandboxLost

INTERVAL_S = 1.0
IDLE_INTERVAL_S = 5.0
"""How often to look while no command runs: a background job may still write."""
COST_SHARE = 10
"""The next look waits this many times as long as the last one took, so that looking costs a tenth of a core at most."""
HOST_FREE_BYTES = 256 * 1024**2
"""Free space of the host's disk at which commands are ended, whatever their own limit."""
LEEWAY_BYTES = 64 * 1024**2
"""How much more than after the last breach makes the next one: commands that clean up must be able to run."""


class Stoppable(Protocol):
    """What the watch needs of a sandbox."""

    @property
    def is_busy(self) -> bool: ...
    async def stop_all(self, reason: str) -> None: ...


class DiskWatch:
    """Adds up the allocated bytes below `folders` while a sandbox lives, and ends its processes over the limit.

    Links are not followed and hard links count once. What an open but deleted file holds is not seen; it is bounded
    by RLIMIT_FSIZE a file and by the host's free space.
    """

    def __init__(self, folders: Iterable[Path], limit_bytes: int | None) -> None:
        self._folders = tuple(folders)
        self._limit = limit_bytes
        self._tolerated = limit_bytes or 0

    async def run(self, sandbox: Stoppable) -> None:
        """Watch until cancelled."""
        limiter = anyio.CapacityLimiter(1)
        waited_since = time.monotonic()
        pause = INTERVAL_S
        while True:
            await anyio.sleep(INTERVAL_S)
            if time.monotonic() - waited_since < (pause if sandbox.is_busy else max(pause, IDLE_INTERVAL_S)):
                continue
            began = time.monotonic()
            reason = await anyio.to_thread.run_sync(self.look, limiter=limiter, abandon_on_cancel=True)
            waited_since = time.monotonic()
            pause = max(INTERVAL_S, COST_SHARE * (waited_since - began))
            if reason is not None:
                try:
                    await sandbox.stop_all(reason)
                except SandboxLost:
                    return
                await anyio.to_thread.run_sync(self.tolerate, limiter=limiter, abandon_on_cancel=True)

    def look(self) -> str | None:
        """Why the sandbox has to be stopped now, or None. Blocking."""
        free = min(_free_bytes(folder) for folder in self._folders)
        if free < HOST_FREE_BYTES:
            return f"the host's disk is almost full ({free // 1024**2} MiB free): the command was ended to protect it"
        if self._limit is None:
            return None
        used = used_bytes(self._folders, stop_above=self._tolerated)
        if used <= self._tolerated:
            if used <= self._limit:
                self._tolerated = self._limit
            return None
        return (
            f"disk limit reached: the sandbox holds more than {self._limit} bytes in its workspace, home and "
            f"temporary files; delete some"
        )

    def tolerate(self) -> None:
        """Accept what is there after a breach, so that the next command can clean up. Blocking."""
        if self._limit is not None:
            self._tolerated = max(self._limit, used_bytes(self._folders) + LEEWAY_BYTES)


def used_bytes(folders: Iterable[Path], stop_above: int | None = None) -> int:
    """Allocated bytes of everything below `folders`; counting ends early once above `stop_above`."""
    total = 0
    seen: set[tuple[int, int]] = set()
    queue = [os.fspath(folder) for folder in folders]
    while queue and (stop_above is None or total <= stop_above):
        try:
            entries = os.scandir(queue.pop())
        except OSError:
            continue  # gone meanwhile, or closed to us: what cannot be seen cannot be counted
        with entries:
            for entry in entries:
                try:
                    facts = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if facts.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                    if (facts.st_dev, facts.st_ino) in seen:
                        continue
                    seen.add((facts.st_dev, facts.st_ino))
                total += facts.st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    queue.append(entry.path)
    return total


def _free_bytes(folder: Path) -> int:
    try:
        facts = os.statvfs(folder)
    except OSError:
        return HOST_FREE_BYTES
    return facts.f_bavail * facts.f_frsize
