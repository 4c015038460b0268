"""Tasks that were read before and have not changed since: the runs of a suite, or of a service, read the same few.

A folder is taken for unchanged when every entry has the inode, size, mode and both times it had. That misses a change
made in the same tick of the file system's clock as the one before, so a folder that changed a moment ago is not kept.
"""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

MOST_KEPT = 64
TICK_S = 0.1
"""Longer than a tick of the clock that file systems with fractions of a second use (at most 10 ms)."""
COARSE_TICK_S = 2.5
"""The same of those without fractions; FAT counts by twos."""

Stamp = tuple[tuple[str | int, ...], ...]
T = TypeVar("T")


class Kept(Generic[T]):
    """What was made of folders, with the stamps they had."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[Stamp, T]] = {}
        self._keeping = threading.Lock()

    def look_up(self, folder: Path) -> tuple[Stamp | None, T | None]:
        """The folder's stamp now, and what was kept under this one. Take it before reading the folder."""
        stamp = _stamp(folder)
        kept = self._kept.get(folder)
        return stamp, kept[1] if kept is not None and stamp is not None and kept[0] == stamp else None

    def keep(self, folder: Path, stamp: Stamp | None, made: T) -> None:
        """Keep what was made since the stamp was taken; what was kept longest goes when there is too much."""
        with self._keeping:
            self._kept.pop(folder, None)
            if stamp is None:
                return
            while len(self._kept) >= MOST_KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[folder] = (stamp, made)


def _stamp(folder: Path) -> Stamp | None:
    """What tells whether anything in the folder changed; None where that cannot be told."""
    newest = 0
    entries = []
    try:
        for name, facts in _walk(os.fspath(folder)):
            newest = max(newest, facts.st_ctime_ns, facts.st_mtime_ns)
            entries.append(
                (name, facts.st_mode, facts.st_ino, facts.st_dev, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
            )
    except OSError:
        return None
    tick_s = TICK_S if newest % 1_000_000 else COARSE_TICK_S
    return tuple(entries) if newest < time.time_ns() - tick_s * 1e9 else None


def _walk(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Every entry below the folder and itself; of a link also what it leads to."""
    yield folder, os.lstat(folder)
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                yield entry.path, entry.stat(follow_symlinks=False)
                if entry.is_symlink():
                    yield entry.path, entry.stat()
                elif entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
