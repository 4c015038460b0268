"""What judges said, kept in SQLite for all runs and processes that share a runs folder.

Only an economy: a cache that cannot be opened, read or written is a warning in the log, and the judge is asked.
"""

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from fbench.engine.logs import get_logger
from fbench.engine.records.databases import open_database, use_wal
from fbench.engine.records.transcript import utc_now

if TYPE_CHECKING:
    import aiosqlite

CLOSE_GRACE_S = 10.0
_SCHEMA = """
create table if not exists verdicts (
    key text primary key, verdict text not null, judge_model text not null, made_at text not null
) without rowid
"""

log = get_logger(__name__)


class VerdictCache:
    """An open cache; without a connection it holds nothing and takes nothing."""

    def __init__(self, connection: "aiosqlite.Connection | None", path: Path | None) -> None:
        self._connection = connection
        self._path = path

    async def get(self, key: str) -> dict[str, Any] | None:
        """The verdict that was kept under `key`."""
        if self._connection is None:
            return None
        try:
            async with self._connection.execute("select verdict from verdicts where key = ?", (key,)) as rows:
                row = await rows.fetchone()
            found = None if row is None else json.loads(row[0])
        except (sqlite3.Error, ValueError) as error:
            log.warning("verdict_cache.not_read", path=str(self._path), error=str(error))
            return None
        return found if isinstance(found, dict) else None

    async def put(self, key: str, verdict: dict[str, Any], judge_model: str) -> None:
        """Keep a verdict; it is there for others when this returns."""
        if self._connection is None:
            return
        statement = "insert or replace into verdicts (key, verdict, judge_model, made_at) values (?, ?, ?, ?)"
        row = (key, json.dumps(verdict, ensure_ascii=True), judge_model, utc_now())
        try:
            with anyio.CancelScope(shield=True):  # one short statement, paid for already
                await self._connection.execute(statement, row)
        except sqlite3.Error as error:
            log.warning("verdict_cache.not_written", path=str(self._path), error=str(error))


@asynccontextmanager
async def open_verdict_cache(path: Path | None) -> AsyncIterator[VerdictCache]:
    """The cache in `path`, made when it is not there; None gives one that keeps nothing."""
    connection = None if path is None else await _connect(path)
    try:
        yield VerdictCache(connection, path)
    finally:
        if connection is not None:
            with anyio.move_on_after(CLOSE_GRACE_S, shield=True):
                await connection.close()


async def _connect(path: Path) -> "aiosqlite.Connection | None":
    try:
        connection = await open_database(path)
        try:
            await use_wal(connection)
            await connection.execute(_SCHEMA)
        except BaseException:
            await connection.close()
            raise
    except sqlite3.Error as error:
        log.warning("verdict_cache.not_opened", path=str(path), error=str(error))
        return None
    return connection
