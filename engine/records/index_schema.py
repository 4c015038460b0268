"""The index's tables, how they grow, and how a connection to them is opened and closed.

The schema only ever gains tables and columns: an older fbench goes on writing rows of the columns it knows. A file of
a newer schema is refused by name all the same, since its rows may mean something else.
"""

import os
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import anyio

from fbench.engine.errors import UsageError
from fbench.engine.logs import get_logger
from fbench.engine.records.databases import BUSY_S, open_database, use_wal
from fbench.engine.results import Record

if TYPE_CHECKING:
    import aiosqlite

log = get_logger(__name__)

INDEX = "runs.sqlite"
INDEX_SCHEMA_VERSION = 2
"""2 has other indexes than 1, the same rows."""

CLOSE_GRACE_S = BUSY_S + 5.0
"""Closing waits for the statement under way, which may itself wait for the lock."""

_CORRUPT_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

TABLES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "runs": {
            "run_id": "text primary key not null",
            "task_id": "text",
            "model": "text",
            "attempt": "integer",
            "suite_run_id": "text",
            "status": "text",
            "end_reason": "text",
            "kill_reason": "text",
            "error_kind": "text",
            "error_message": "text",
            "passed": "integer",
            "score": "real",
            "tokens_input": "integer",
            "tokens_cached_input": "integer",
            "tokens_output": "integer",
            "tokens_reasoning": "integer",
            "tokens_total": "integer",
            "cost_usd": "real",
            "judge_cost_usd": "real",
            "cost_status": "text",
            "isolated": "integer",
            "turns": "integer",
            "tool_calls": "integer",
            "started_at": "text",
            "finished_at": "text",
            "duration_s": "real",
            "sandbox": "text",
            "seed": "integer",
            "fbench_version": "text",
            "task_hash": "text",
            "folder": "text",
            "owner": "text",
        },
        "suite_runs": {
            "suite_run_id": "text primary key not null",
            "suite": "text",
            "status": "text",
            "started_at": "text",
            "finished_at": "text",
            "folder": "text",
        },
        "check_results": {
            "run_id": "text not null",
            "position": "integer not null",
            "check_id": "text",
            "type": "text",
            "tier": "text",
            "status": "text",
            "score": "real",
            "weight": "real",
            "gating": "integer",
            "detail": "text",
        },
    }
)
_CONSTRAINTS = {"check_results": ", primary key (run_id, position)"}
_FILTERS = ("task_id", "model", "suite_run_id", "status", "passed")
_ORDERS = ("score", "cost_usd", "duration_s", "tokens_total")
_TIME = ("started_at", "run_id")
_INDEXES: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "runs_by_time": ("runs", _TIME),
        **{f"runs_of_{column}": ("runs", (column, *_TIME)) for column in _FILTERS},
        **{f"runs_by_{column}": ("runs", (column, *_TIME, *_FILTERS)) for column in _ORDERS},
        "check_results_check_id": ("check_results", ("check_id",)),
        "suite_runs_suite": ("suite_runs", ("suite",)),
    }
)
_DROPPED_INDEXES = ("runs_task_id", "runs_model", "runs_suite_run_id", "runs_status", "runs_started_at")
"""Those of schema 1: their columns begin indexes above."""


def wide_index(column: str) -> str:
    """The index that orders runs by this column, if it is one of those that can be asked for, and holds all filters."""
    assert column in _ORDERS
    return f"runs_by_{column}"


class IndexUnusable(UsageError):
    """The index cannot be read or written; `is_corrupt` when making it again is what helps."""

    def __init__(self, message: str, *, is_corrupt: bool = False) -> None:
        super().__init__(message)
        self.is_corrupt = is_corrupt


class IndexOutdated(IndexUnusable):
    """The index has an older schema, which a connection that may write brings up to date."""


class IndexedRun(Record):
    """One row of `runs`: a result's facts, flat. `status` may also be `running` or `unfinished`; `folder` is relative
    to the runs folder; `owner` is the process that runs it (`host:pid:start`)."""

    run_id: str
    task_id: str | None = None
    model: str | None = None
    attempt: int | None = None
    suite_run_id: str | None = None
    status: str | None = None
    end_reason: str | None = None
    kill_reason: str | None = None
    error_kind: str | None = None
    error_message: str | None = None
    passed: bool | None = None
    score: float | None = None
    tokens_input: int | None = None
    tokens_cached_input: int | None = None
    tokens_output: int | None = None
    tokens_reasoning: int | None = None
    tokens_total: int | None = None
    cost_usd: float | None = None
    judge_cost_usd: float | None = None
    cost_status: str | None = None
    isolated: bool | None = None
    turns: int | None = None
    tool_calls: int | None = None
    started_at: str | None = None
    finished_at: str | None = None
    duration_s: float | None = None
    sandbox: str | None = None
    seed: int | None = None
    fbench_version: str | None = None
    task_hash: str | None = None
    folder: str | None = None
    owner: str | None = None


@asynccontextmanager
async def connect(path: Path, *, read_only: bool = False) -> AsyncIterator["aiosqlite.Connection"]:
    """A connection to the index at `path`, its schema up to date; with `read_only` nothing is made or changed.

    Raises:
        IndexUnusable: it is missing or of an older schema (both read only), damaged, locked for too long, or of a
            newer schema.
    """
    with _told(path):
        if read_only:
            connection = await open_database(_read_only_uri(path), is_uri=True)
        else:
            connection = await open_database(path)
    try:
        with _told(path):
            connection.row_factory = sqlite3.Row
            if not read_only:
                await use_wal(connection)
            await _settle_schema(connection, path, read_only=read_only)
        yield connection
    finally:
        with anyio.move_on_after(CLOSE_GRACE_S, shield=True) as grace:
            await connection.close()
        if grace.cancelled_caught:
            log.error("index.close_timed_out", path=str(path), grace_s=CLOSE_GRACE_S)


def _read_only_uri(path: Path) -> str:
    """A WAL index in a folder that we may not write to opens only as one that nobody changes, as in an archive."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    is_at_rest = not os.path.lexists(f"{path}-wal") and not os.access(path.parent, os.W_OK)
    return f"{uri}&immutable=1" if is_at_rest else uri


class _told:  # noqa: N801 - reads as a word in `with`
    """Turns SQLite's errors into IndexUnusable with the file and what to do."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise explain(error, self._path) from error


def explain(error: sqlite3.Error, path: Path) -> IndexUnusable:
    """The error in words, with what to do."""
    rebuild = f"`fbench index rebuild --runs-dir {path.parent}` makes it again from the run folders"
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _CORRUPT_CODES:
        return IndexUnusable(f"the index {path} is damaged ({error}); {rebuild}", is_corrupt=True)
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return IndexUnusable(
            f"the index {path} was locked by another process for {BUSY_S:g} s; try again when that has ended"
        )
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}:
        return IndexUnusable(
            f"the index {path} cannot be opened ({error}); make it and its folder writable, or {rebuild}"
        )
    return IndexUnusable(f"the index {path} cannot be used ({error}); {rebuild}")


async def _settle_schema(connection: "aiosqlite.Connection", path: Path, *, read_only: bool) -> None:
    version = await _version(connection)
    if version > INDEX_SCHEMA_VERSION:
        msg = (
            f"the index {path} has schema version {version}, this fbench knows up to {INDEX_SCHEMA_VERSION}; upgrade "
            f"fbench (distribution factory-bench), or use another --runs-dir"
        )
        raise IndexUnusable(msg)
    if version == INDEX_SCHEMA_VERSION:
        return
    if read_only:
        msg = f"the index {path} is of an older fbench; `fbench index rebuild --runs-dir {path.parent}` renews it"
        raise IndexOutdated(msg)
    await connection.execute("begin immediate")
    if await _version(connection) < INDEX_SCHEMA_VERSION:
        for table, columns in TABLES.items():
            await _grow(connection, table, columns)
        for name in _DROPPED_INDEXES:
            await connection.execute(f"drop index if exists {name}")
        for name, (table, names) in _INDEXES.items():
            await connection.execute(f"create index if not exists {name} on {table} ({', '.join(names)})")
        await connection.execute(f"pragma user_version = {INDEX_SCHEMA_VERSION}")
    await connection.execute("commit")


async def _grow(connection: "aiosqlite.Connection", table: str, columns: Mapping[str, str]) -> None:
    body = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    await connection.execute(f"create table if not exists {table} ({body}{_CONSTRAINTS.get(table, '')})")
    there = await _columns(connection, table)
    for name, kind in columns.items():
        if name not in there:
            await connection.execute(f"alter table {table} add column {name} {kind.split()[0]}")


async def _version(connection: "aiosqlite.Connection") -> int:
    rows = list(await connection.execute_fetchall("pragma user_version"))
    return int(rows[0][0])


async def _columns(connection: "aiosqlite.Connection", table: str) -> set[str]:
    return {row["name"] for row in await connection.execute_fetchall(f"pragma table_info({table})")}
