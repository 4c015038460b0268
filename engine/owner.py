"""Who owns a thing that outlives its process: the mark `host:pid:start`, and whether that process still lives."""

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told apart from a later one with the same pid by its start time (clock ticks since boot)."""

    host: str
    pid: int
    start: int

    @classmethod
    def this_process(cls) -> Self:
        return cls(platform.node() or "localhost", pid := os.getpid(), _own_start(pid))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The owner of a mark, None when the text is none."""
        host, _, rest = text.strip().rpartition(":")[0].rpartition(":")
        start = text.strip().rpartition(":")[2]
        return cls(host, int(rest), int(start)) if host and rest.isdecimal() and start.isdecimal() else None

    @classmethod
    def from_file_name(cls, name: str) -> Self | None:
        """The owner written by `as_file_name`; names are made and read on one host only."""
        pid, _, start = name.partition("-")
        if not (pid.isdecimal() and start.isdecimal()):
            return None
        return cls(platform.node() or "localhost", int(pid), int(start))

    def as_file_name(self) -> str:
        return f"{self.pid}-{self.start}"

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.start}"

    def is_alive(self) -> bool:
        """Whether it lives, as far as can be told: a process of another host is taken for alive."""
        if self.host != (platform.node() or "localhost"):
            return True
        start = _start_of(self.pid)
        return start is not None and start == self.start


def owner_identity() -> str:
    """The mark of this process."""
    return str(Owner.this_process())


def is_owner_alive(mark: str) -> bool:
    """Whether the process that `mark` names still lives. A text that is no mark is not of our making: left alone."""
    owner = Owner.parse(mark)
    return owner is None or owner.is_alive()


@cache
def _own_start(pid: int) -> int:
    """Of this process, or of the one it was forked from: neither changes."""
    return _start_of(pid) or 0


def _start_of(pid: int) -> int | None:
    """Field 22 of /proc/<pid>/stat; None for a process that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])
