"""The processes of a container: which belong to one command's tree, and ending them, from outside or from inside.

From outside, where they are processes of this machine that we may look into: /proc and signals. From inside, for any
other engine: a small shell script run as their own user.
"""

import os
import signal
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio

from fbench.engine.errors import SandboxFailed

MARK = "FBENCH_EXEC"
"""Variable that every process of a command inherits, whatever session or parent it takes."""
PAUSE_S = 0.005
TABLE_SCRIPT = f"""
echo "self $$"
for folder in /proc/[0-9]*; do
  {{
    read -r line <"$folder/stat" &&
      while read -r key uid rest; do
        if [ "$key" = Uid: ]; then echo "stat $uid $line"; break; fi
      done <"$folder/status"
  }} 2>/dev/null
done
for file in $(grep -l '{MARK}=' /proc/[0-9]*/environ 2>/dev/null); do
  echo "mark $file $(grep -ao '{MARK}=[0-9a-f]*' "$file" 2>/dev/null | head -n 1)"
done
"""
KILL_SCRIPT = 'kill -s STOP "$@" 2>/dev/null; kill -s KILL "$@" 2>/dev/null; exit 0'
END_SCRIPT = "kill -s KILL -- -1 2>/dev/null; exit 0"

RunScript = Callable[[str, tuple[str, ...]], Awaitable[str]]
"""Runs a shell script with arguments as the commands' user and gives its stdout."""


@dataclass(frozen=True, slots=True)
class Process:
    """One live process. `start` is in clock ticks since boot; `mark` is the command it says it belongs to."""

    pid: int
    parent: int
    start: int
    mark: str | None


class Processes(Protocol):
    """The processes of a container's commands."""

    async def table(self) -> Mapping[int, Process]:
        """Those that are alive, zombies and ours left out."""
        ...

    async def kill(self, pids: Collection[int]) -> None:
        """SIGKILL to each; those that are gone are no error."""
        ...

    async def kill_all(self) -> None:
        """SIGKILL to every process of the commands' user."""
        ...


def now_ticks() -> int:
    """This moment in clock ticks since boot."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def tree_of(mark: str, table: Mapping[int, Process], since: int | None) -> set[int]:
    """The pids of one command's tree: those marked, those below them, and strangers.

    A stranger has no mark (it cleared its environment), began after the command (`since`, else the oldest marked
    process), and no living ancestor says whose it is. With several commands at once it may be another one's; one that
    forges another command's mark is not found, and ends with the sandbox.
    """
    marked = {pid for pid, process in table.items() if process.mark == mark}
    if since is None and marked:
        since = min(table[pid].start for pid in marked)
    found = set(marked)
    for process in table.values():
        chain, current = [], process
        while True:
            chain.append(current)
            parent = table.get(current.parent)
            if parent is None or parent in chain:
                break
            current = parent
        owner = next((link.mark for link in chain if link.mark is not None), None)
        is_stranger = owner is None and since is not None and all(link.start >= since for link in chain)
        if owner == mark or is_stranger:
            found.add(process.pid)
    return found


async def end_tree(processes: Processes, mark: str, since: int | None) -> None:
    """End a command's whole tree; returns when none of it is left. The caller bounds it."""
    while victims := tree_of(mark, await processes.table(), since):
        await processes.kill(victims)
        await anyio.sleep(PAUSE_S)


async def end_all(processes: Processes) -> None:
    """End every process of the commands' user; returns when none is left. The caller bounds it."""
    while await processes.table():
        await processes.kill_all()
        await anyio.sleep(PAUSE_S)


class OutsideProcesses:
    """Seen and ended from this machine. `group` is the container's control group, `uid` that of its commands."""

    def __init__(self, group: Path, uid: int) -> None:
        self._group = group
        self._uid = uid

    async def table(self) -> Mapping[int, Process]:
        return {process.pid: process for pid in self._pids() if (process := self._look(pid)) is not None}

    async def kill(self, pids: Collection[int]) -> None:
        members = set(self._pids())
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in members & set(pids):
                with suppress(OSError):
                    os.kill(pid, number)

    async def kill_all(self) -> None:
        await self.kill(await self.table())

    def _pids(self) -> list[int]:
        try:
            return [int(line) for line in (self._group / "cgroup.procs").read_text(encoding="ascii").split()]
        except OSError:
            return []

    def _look(self, pid: int) -> Process | None:
        folder = Path(f"/proc/{pid}")
        try:
            if folder.stat().st_uid != self._uid and self._real_uid(folder) != self._uid:
                return None
            fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            environ = b""
            with suppress(PermissionError):
                environ = (folder / "environ").read_bytes()
        except OSError:
            return None
        if fields[0] in {b"Z", b"X"}:
            return None
        needle = f"{MARK}=".encode()
        mark = next((v[len(needle) :].decode("latin-1") for v in environ.split(b"\0") if v.startswith(needle)), None)
        return Process(pid, int(fields[1]), int(fields[19]), mark)

    @staticmethod
    def _real_uid(folder: Path) -> int:
        """A process that is not dumpable shows root as the owner of its folder."""
        for line in (folder / "status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[1])
        return -1


class InsideProcesses:
    """Seen and ended by scripts run in the container as the commands' user."""

    def __init__(self, run: RunScript, uid: int) -> None:
        self._run = run
        self._uid = uid

    async def table(self) -> Mapping[int, Process]:
        return parse_table(await self._run(TABLE_SCRIPT, ()), self._uid)

    async def kill(self, pids: Collection[int]) -> None:
        await self._run(KILL_SCRIPT, tuple(str(pid) for pid in sorted(pids)))

    async def kill_all(self) -> None:
        await self._run(END_SCRIPT, ())


def parse_table(text: str, uid: int) -> dict[int, Process]:
    """The processes of `uid` in what `TABLE_SCRIPT` printed, without the script itself and what it started."""
    own = -1
    facts: dict[int, tuple[int, int]] = {}
    marks: dict[int, str] = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "self" and own < 0:
            own = int(rest)
        elif kind == "stat":
            head, _, tail = rest.rpartition(")")
            owner, pid = head.split(" ", 2)[:2] if head else ("", "")
            fields = tail.split()
            if owner == str(uid) and len(fields) > 19 and fields[0] not in {"Z", "X"}:  # noqa: PLR2004 - the start's place
                facts[int(pid)] = (int(fields[1]), int(fields[19]))
        elif kind == "mark":
            file, _, mark = rest.partition(" ")
            marks[int(file.split("/")[2])] = mark.partition("=")[2]
    if own < 0:
        msg = f"the processes of the container could not be listed; it said: {text[:200]!r}"
        raise SandboxFailed(msg)
    return {
        pid: Process(pid, parent, start, marks.get(pid))
        for pid, (parent, start) in facts.items()
        if own not in {pid, parent}
    }
