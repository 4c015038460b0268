"""Disk space held while runs last: a disk that fills up meanwhile still takes their last lines and results."""

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import IO

RESERVED_BYTES = 256 * 1024
"""For each run."""

_lock = Lock()
_reserves: dict[Path, "_Reserve"] = {}


class _Reserve:
    """One nameless file for all runs of this process whose folders lie in the same one: making a file takes longer
    than all else that is done for a run's space."""

    def __init__(self, runs_dir: Path) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile(dir=runs_dir, buffering=0)  # noqa: SIM115 - held until the last run's end
        self.holders = 0

    def resize(self, holders: int) -> None:
        """Take, or give back, the space of so many runs."""
        held, wanted = (count * RESERVED_BYTES for count in (self.holders, holders))
        if wanted < held:
            with suppress(OSError):  # copying on write, even that may need room, and no result must be lost for it
                self.file.truncate(wanted)
        else:
            try:
                _allocate(self.file.fileno(), held, wanted - held)
            except OSError:
                self.file.truncate(held)  # it may have got a part
                raise
        self.holders = holders


class HeldSpace:
    """The space of one run whose folder lies in `runs_dir`. Raises OSError where there is none. Blocking."""

    def __init__(self, runs_dir: Path) -> None:
        self._runs_dir = runs_dir
        self._is_held = True
        with _lock:
            reserve = _reserves.get(runs_dir) or _Reserve(runs_dir)
            try:
                reserve.resize(reserve.holders + 1)
            except BaseException:
                if not reserve.holders:
                    reserve.file.close()
                raise
            _reserves[runs_dir] = reserve

    def release(self) -> None:
        """Give it back; twice is fine."""
        with _lock:
            if not self._is_held:
                return
            self._is_held = False
            reserve = _reserves[self._runs_dir]
            if reserve.holders > 1:
                reserve.resize(reserve.holders - 1)
            else:
                del _reserves[self._runs_dir]
                reserve.file.close()


def _allocate(fd: int, start: int, size: int) -> None:
    """Let the file take so many more bytes of the disk. Raises OSError where there are none."""
    try:
        os.posix_fallocate(fd, start, size)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:
            raise
        os.pwrite(fd, bytes(size), start)
