"""Opening SQLite files that many processes write to."""

import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    import aiosqlite

BUSY_S = 10.0
"""How long a write waits for other processes; 8 writers at once waited 62 ms at worst."""

_LOCK_RETRY_S = 0.05
_THREAD_POLL_S = 0.002


async def open_database(address: Path | str, *, is_uri: bool = False) -> "aiosqlite.Connection":
    """A connection in which each statement is its own transaction; the caller closes it. Raises sqlite3.Error."""
    import aiosqlite  # noqa: PLC0415 - heavy, and only for who opens one

    opening = aiosqlite.connect(address, uri=is_uri, isolation_level=None, timeout=BUSY_S)
    with anyio.CancelScope(shield=True):  # opening takes no lock; one cut off would leave a file handle behind
        try:
            return await opening
        except sqlite3.Error:
            # aiosqlite tells its thread to stop and does not wait for it; left alone, it may outlive the loop.
            while opening._thread.is_alive():  # noqa: ASYNC110, SLF001 - there is no other way to wait
                await anyio.sleep(_THREAD_POLL_S)
            raise
    raise AssertionError  # a shield by itself swallows nothing


async def use_wal(connection: "aiosqlite.Connection") -> None:
    """Write ahead, and sync at checkpoints only. Switching needs the file alone for a moment and does not wait for it
    by itself."""
    give_up_at = time.monotonic() + BUSY_S
    while True:
        try:
            await connection.execute_fetchall("pragma journal_mode = wal")
        except sqlite3.OperationalError as error:
            is_busy = (error.sqlite_errorcode & 0xFF) == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > give_up_at:
                raise
            await anyio.sleep(_LOCK_RETRY_S)
        else:
            break
    await connection.execute("pragma synchronous = normal")
