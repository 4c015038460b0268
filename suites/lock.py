"""One process for each suite run: a lock on a file in its folder, which the system gives back when the process ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fbench.engine.errors import UsageError
from fbench.engine.owner import owner_identity

LOCK = "suite.lock"


class SuiteBusy(UsageError):
    """Another process runs the suite run."""


@contextmanager
def hold_suite_run(folder: Path) -> Iterator[None]:
    """Be the one process that runs this suite run, while the context lasts. The folder is made when it is missing.

    Raises:
        SuiteBusy: another process is, on this machine or on another one that shares the folder.
        UsageError: the folder cannot be written, or its file system has no locks.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        msg = f"the suite run's folder {folder} cannot be written: {error.strerror or error}; name another --runs-dir"
        raise UsageError(msg) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 1000, 0).decode(errors="replace").strip()
            who = f"the process {holder} (host:pid:start)" if holder else "another process"
            msg = f"the suite run {folder.name} is being run by {who}; wait for its end or stop it, then resume"
            raise SuiteBusy(msg) from None
        except OSError as error:
            msg = f"{path} cannot be locked: {error.strerror or error}; keep runs on a file system that has locks"
            raise UsageError(msg) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, owner_identity().encode(), 0)
        yield
    finally:
        os.close(fd)
