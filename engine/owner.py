"""Who owns what a run makes: `host:pid:start`, told apart from a later process that got the same pid."""

import os
import socket
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=4)
def _identity(pid: int) -> str:
    return f"{socket.gethostname()}:{pid}:{start_ticks(pid) or 0}"


def owner_identity() -> str:
    """This process as `host:pid:start`; `start` is its start time in clock ticks since boot (0 without /proc)."""
    return _identity(os.getpid())


def start_ticks(pid: int) -> int | None:
    """Field 22 of `/proc/<pid>/stat` (see proc(5)): when the process started; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[19])


def is_owner_alive(owner: str) -> bool:
    """Whether the process that `owner` names still runs. One of another host counts as alive: it cannot be asked."""
    try:
        host, pid, start = owner.rsplit(":", 2)
        named = int(pid), int(start)
    except ValueError:
        return True  # not of our making: leave it alone
    return host != socket.gethostname() or start_ticks(named[0]) == named[1]
