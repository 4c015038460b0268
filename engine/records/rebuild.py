"""Make the index again from the run folders.

Folders are read first, outside any transaction, for there may be thousands. Then, with the write lock held, those that
changed in between are read again, and all rows are replaced in one transaction: a reader sees the old index or the new
one, a run that finishes meanwhile writes its row after it.
"""

import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname

import anyio

from fbench.engine.errors import UsageError
from fbench.engine.owner import is_owner_alive
from fbench.engine.records.index import (
    Statement,
    finished_statements,
    relative_folder,
    started_statements,
    suite_statements,
)
from fbench.engine.records.index_schema import INDEX, TABLES, IndexUnusable, connect, explain
from fbench.engine.records.reading import RESULT, Unreadable, read_result, read_started, read_suites, run_folders
from fbench.engine.results import Record, RunResult


class UnreadableRun(Record):
    """A folder that is not in the index, and why."""

    folder: str
    why: str


class RebuildReport(Record):
    """What a rebuild found: counts of rows, and what it could not read. `running` runs belong to a live process."""

    runs: int
    unfinished: int
    running: int
    unreadable: tuple[UnreadableRun, ...]
    moved_aside: str | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """One folder as read: `stamp` changes when its result does."""

    folder: Path
    stamp: tuple[int, int, int] | None
    run_id: str
    status: str = ""
    statements: tuple[Statement, ...] = ()
    why: str | None = None


async def rebuild_index(runs_dir: Path) -> RebuildReport:
    """Write the index of `runs_dir` anew. A damaged index file is moved aside first, never deleted.

    Raises:
        UsageError: there is no such folder, or the index cannot be written.
    """
    if not await anyio.Path(runs_dir).is_dir():
        msg = f"there is no folder {runs_dir}; name the folder of your runs with --runs-dir"
        raise UsageError(msg)
    found = await anyio.to_thread.run_sync(_read_all, runs_dir, {})
    moved = await _set_aside_if_broken(runs_dir)
    path = runs_dir / INDEX
    async with connect(path) as connection:
        try:
            await connection.execute("begin immediate")
            found = await anyio.to_thread.run_sync(_read_all, runs_dir, found)
            rows = await connection.execute_fetchall("select run_id, owner from runs where status = 'running'")
            running = {row["run_id"]: row["owner"] for row in rows}
            kept = _still_running(running, found)
            keep = ", ".join("?" for _ in kept)
            await connection.execute(f"delete from runs where run_id not in ({keep})", sorted(kept))  # noqa: S608 - marks
            for table in TABLES.keys() - {"runs"}:
                await connection.execute(f"delete from {table}")  # noqa: S608 - our own table names
            for item in found.values():
                for sql, values in item.statements if item.run_id not in kept else ():
                    await connection.execute(sql, values)
            for suite in await anyio.to_thread.run_sync(read_suites, runs_dir):
                for sql, values in suite_statements(suite):
                    await connection.execute(sql, values)
            await connection.execute("commit")
        except sqlite3.Error as error:
            raise explain(error, path) from error
    states = [item.status for item in found.values() if item.why is None and item.run_id not in kept]
    return RebuildReport(
        runs=states.count("finished"),
        unfinished=states.count("unfinished"),
        running=states.count("running") + len(kept),
        unreadable=tuple(
            UnreadableRun(folder=relative_folder(item.folder, runs_dir), why=item.why)
            for item in found.values()
            if item.why is not None
        ),
        moved_aside=moved,
    )


def is_live_here(owner: str) -> bool:
    """Whether the owner is a live process of this machine: of another machine nothing is known."""
    return owner.rsplit(":", 2)[0] == gethostname() and is_owner_alive(owner)


def _still_running(running: Mapping[str, str | None], found: Mapping[Path, _Found]) -> set[str]:
    """Rows of runs that live: their process may have told the index more than its folder holds yet."""
    ended = {item.run_id for item in found.values() if item.status == "finished" or item.why is not None}
    return {
        run_id
        for run_id, owner in running.items()
        if run_id not in ended and owner is not None and is_owner_alive(owner)
    }


def _read_all(runs_dir: Path, before: Mapping[Path, _Found]) -> dict[Path, _Found]:
    """All folders; those of `before` whose result has not changed are not read again."""
    found: dict[Path, _Found] = {}
    by_id: dict[str, _Found] = {}
    for folder in run_folders(runs_dir):
        known = before.get(folder)
        stamp = _stamp(folder)
        item = known if known is not None and stamp is not None and known.stamp == stamp else _read(folder, runs_dir)
        twin = by_id.setdefault(item.run_id, item)
        if twin is not item and item.why is None:
            # A copied folder holds its original's run_id: the one that is named for it is the original.
            is_named = item.folder.name == item.run_id
            copy, original = (twin, item) if is_named else (item, twin)
            why = f"holds the run {item.run_id} of {original.folder.name} once more; rename or remove the copy"
            found[copy.folder] = _Found(copy.folder, copy.stamp, copy.run_id, why=why)
            if is_named:
                by_id[item.run_id] = found[folder] = item
            continue
        found[folder] = item
    return found


def _read(folder: Path, runs_dir: Path) -> _Found:
    stamp, place = _stamp(folder), relative_folder(folder, runs_dir)
    try:
        result: RunResult | None = read_result(folder)
    except Unreadable as error:
        return _Found(folder, stamp, folder.name, why=str(error))
    if result is not None:
        return _Found(folder, stamp, result.run_id, "finished", tuple(finished_statements(result, place)))
    started = read_started(folder)
    is_live = started.owner is not None and is_live_here(started.owner)
    status = "running" if is_live else "unfinished"
    return _Found(folder, None, folder.name, status, tuple(started_statements(started, status, place)))


def _stamp(folder: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(folder / RESULT)  # noqa: PTH116 - thousands of them under a lock
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


async def _set_aside_if_broken(runs_dir: Path) -> str | None:
    """Move a damaged index out of the way, with its -wal and -shm; the new name, or None."""
    path = runs_dir / INDEX
    if not await anyio.Path(path).exists():
        return None
    try:
        async with connect(path) as connection:
            rows = list(await connection.execute_fetchall("pragma quick_check(1)"))
            if rows and rows[0][0] == "ok":
                return None
    except IndexUnusable as error:
        if not error.is_corrupt:
            raise
    except sqlite3.Error as error:
        if not explain(error, path).is_corrupt:
            raise explain(error, path) from error
    aside = f"{INDEX}.broken-{datetime.now(UTC).strftime('%Y-%m-%dT%H-%M-%S.%fZ')}"
    for suffix in ("", "-wal", "-shm"):
        part = anyio.Path(runs_dir / f"{INDEX}{suffix}")
        if await part.exists():
            await part.rename(runs_dir / f"{aside}{suffix}")
    return aside
