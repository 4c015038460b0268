"""`runs/runs.sqlite`: every run as a row, so that questions about thousands of runs take milliseconds.

It is only an index. The run folders are the truth, `fbench index rebuild` makes the index again from them, and so a
locked, damaged or read-only index is a warning in the log: it never fails or loses a run. One task writes, fed by a
queue, and commits whatever waits in one transaction; each statement is an upsert, so that writing twice is harmless.
What nobody waits for is let gather first: hundreds of runs that begin together are a few transactions.
"""

import os
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from fbench.engine.errors import UsageError
from fbench.engine.logs import get_logger
from fbench.engine.owner import is_owner_alive, owner_identity
from fbench.engine.records.index_schema import CLOSE_GRACE_S, INDEX, TABLES, IndexedRun, IndexOutdated, connect, explain
from fbench.engine.records.querying import RunQuery, Sort
from fbench.engine.records.reading import SUITE_RUN_ID, StartedRun, SuiteRecord, run_folders, time_of_id
from fbench.engine.results import RunResult

if TYPE_CHECKING:
    import aiosqlite

log = get_logger(__name__)

BATCH = 200
"""Jobs of one transaction: 122,000 rows/s were measured with it, 4,942 one by one."""

GATHER_S = 0.1
"""How long rows that nobody waits for may gather: each transaction takes Python's lock from the loop several times."""
CROWD = 20
CROWD_GATHER_S = 0.02
"""With so many runs under way, how long a finished one may wait for others that finish."""

_INT64 = 2**63

Statement = tuple[str, Sequence[Any]]


@dataclass(slots=True)
class _Job:
    """Statements of one transaction. `problem` is set before `done` when they are not in the index."""

    run_id: str
    statements: Sequence[Statement]
    patience_s: float = 0.0
    done: anyio.Event = field(default_factory=anyio.Event)
    problem: str | None = None


class Index:
    """The open index of one runs folder. Made by `open_index`; safe to use from many tasks of one loop."""

    def __init__(self, runs_dir: Path, send: MemoryObjectSendStream[_Job]) -> None:
        self.runs_dir = runs_dir
        self.path = runs_dir / INDEX
        self._send = send
        self._stack: AsyncExitStack | None = None
        self._connection: aiosqlite.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._unfinished = 0

    async def run_started(self, started: StartedRun, folder: Path) -> None:
        """Note that a run has begun (status `running`). Returns at once; a finished run's row is left as it is."""
        self._unfinished += 1
        owned = replace(started, owner=started.owner or owner_identity())
        statements = started_statements(owned, "running", relative_folder(folder, self.runs_dir))
        self._put(_Job(started.run_id, statements, GATHER_S))

    async def run_finished(self, result: RunResult, folder: Path) -> None:
        """Write a run's result; returns once it is committed, or once it is clear (and logged) that it cannot be."""
        self._unfinished = max(0, self._unfinished - 1)
        patience_s = CROWD_GATHER_S if self._unfinished >= CROWD else 0.0
        job = _Job(result.run_id, finished_statements(result, relative_folder(folder, self.runs_dir)), patience_s)
        if self._put(job):
            await job.done.wait()

    async def flush(self) -> None:
        """Wait until everything said so far is committed, or could not be."""
        job = _Job("", ())
        if self._put(job):
            await job.done.wait()

    async def query_runs(
        self,
        task: str | None = None,
        model: str | None = None,
        suite: str | None = None,
        status: str | None = None,
        limit: int | None = None,
    ) -> tuple[IndexedRun, ...]:
        """As the module's `query_runs`, after what this object was told has been written."""
        await self.flush()
        return await query_runs(self.runs_dir, task=task, model=model, suite=suite, status=status, limit=limit)

    def _put(self, job: _Job) -> bool:
        try:
            self._send.send_nowait(job)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            _warn([job], "the index has been closed", self.path)
            return False
        return True

    async def write_until_closed(self, receive: MemoryObjectReceiveStream[_Job]) -> None:
        """The one writer: whatever waits is committed together."""
        try:
            async with receive:
                async for job in receive:
                    await self._write(await _gather(job, receive))
        finally:
            await self._disconnect()

    async def _write(self, batch: list[_Job]) -> None:
        try:
            if any(job.statements for job in batch):
                await self._commit(batch)
        except Exception as error:  # noqa: BLE001 - only an index: whatever is wrong with it must not fail a run
            problem = str(explain(error, self.path) if isinstance(error, sqlite3.Error) else error)
            for job in batch:
                job.problem = problem
            _warn(batch, problem, self.path)
            await self._disconnect()
        except BaseException:
            _warn(batch, "cut off before it was committed", self.path)
            raise
        finally:
            for job in batch:
                job.done.set()

    async def _commit(self, batch: list[_Job]) -> None:
        connection = await self._connected()
        await connection.execute("begin immediate")
        for sql, rows in _merged(batch):
            await connection.executemany(sql, rows)
        await connection.execute("commit")

    async def _connected(self) -> "aiosqlite.Connection":
        """The connection, opened again after a failure and when a rebuild has put another file in its place."""
        if self._connection is not None and self._inode != _inode(self.path):
            await self._disconnect()
        if self._connection is None:
            stack = AsyncExitStack()
            connection = await stack.enter_async_context(connect(self.path))
            self._stack, self._connection, self._inode = stack, connection, _inode(self.path)
        return self._connection

    async def _disconnect(self) -> None:
        stack, self._stack, self._connection = self._stack, None, None
        if stack is not None:
            try:
                await stack.aclose()  # rolls back what was not committed; bounded and shielded by `connect`
            except (sqlite3.Error, ValueError) as error:
                log.warning("index.close_failed", path=str(self.path), error=str(error))


async def _gather(first: _Job, receive: MemoryObjectReceiveStream[_Job]) -> list[_Job]:
    """The jobs of the next transaction: whatever waits, and what comes while all of them have patience."""
    batch = [first]
    until = anyio.current_time() + first.patience_s
    while len(batch) < BATCH:
        job: _Job | None = None
        try:
            job = receive.receive_nowait()
        except anyio.EndOfStream:
            break
        except anyio.WouldBlock:
            with anyio.CancelScope(deadline=until), suppress(anyio.EndOfStream):
                job = await receive.receive()
        if job is None:
            break
        batch.append(job)
        until = min(until, anyio.current_time() + job.patience_s)
    return batch


def _merged(batch: Sequence[_Job]) -> list[tuple[str, list[Sequence[Any]]]]:
    """The statements of all jobs, each with every row it is executed with; those of one run stay in their order."""
    merged: list[tuple[str, list[Sequence[Any]]]] = []
    rows_of: dict[str, list[Sequence[Any]]] = {}
    seen: set[str] = set()
    for job in batch:
        if job.run_id in seen:
            rows_of, seen = {}, set()
        seen.add(job.run_id)
        for sql, values in job.statements:
            if sql not in rows_of:
                rows_of[sql] = []
                merged.append((sql, rows_of[sql]))
            rows_of[sql].append(values)
    return merged


@asynccontextmanager
async def open_index(runs_dir: Path) -> AsyncIterator[Index]:
    """The index of `runs_dir`, made with its first row. On exit everything said is committed, within a bounded time."""
    send, receive = anyio.create_memory_object_stream[_Job](float("inf"))
    index = Index(runs_dir, send)
    writer = anyio.CancelScope(shield=True)  # a cancelled run's row is written too
    finished = anyio.Event()

    async def write() -> None:
        try:
            with writer:
                await index.write_until_closed(receive)
        finally:
            finished.set()

    failure: Exception | None = None
    async with anyio.create_task_group() as group:  # owns the writer, nothing else
        group.start_soon(write, name="index writer")
        try:
            yield index
        except Exception as error:  # noqa: BLE001 - raised again below, as itself and not in a group
            failure = error
        finally:
            send.close()
            with anyio.move_on_after(CLOSE_GRACE_S, shield=True) as grace:
                await finished.wait()
            if grace.cancelled_caught:
                log.error("index.close_timed_out", path=str(index.path), grace_s=CLOSE_GRACE_S)
                writer.cancel()
    if failure is not None:
        raise failure


async def query_runs(
    runs_dir: Path,
    *,
    task: str | None = None,
    model: str | None = None,
    suite: str | None = None,
    status: str | None = None,
    passed: bool | None = None,
    since: str | None = None,
    sort: Sort = "started",
    ascending: bool = False,
    limit: int | None = None,
) -> tuple[IndexedRun, ...]:
    """Rows of the index, by RunQuery: newest first, or by `sort`. A run whose process has died counts as `unfinished`.

    Raises:
        IndexUnusable: the index cannot be read.
        UsageError: there are runs but no index.
    """
    path = runs_dir / INDEX
    if not path.exists():
        if await anyio.to_thread.run_sync(run_folders, runs_dir):
            msg = f"{runs_dir} holds runs but no index; `fbench index rebuild --runs-dir {runs_dir}` makes it"
            raise UsageError(msg)
        return ()
    query = RunQuery(
        task=task,
        model=model,
        suite=suite,
        status=status,
        passed=passed,
        since=since,
        sort=sort,
        ascending=ascending,
        limit=limit,
    )
    sql, values = query.select()
    try:
        rows = await _select(path, sql, values)
    except IndexOutdated:
        async with connect(path):
            pass
        rows = await _select(path, sql, values)
    found = [_with_owner_asked(_indexed(row)) for row in rows]
    if query.is_told_by_owner:
        found = [run for run in found if run.status == status][:limit]
    return tuple(found)


async def _select(path: Path, sql: str, values: Sequence[Any]) -> list[sqlite3.Row]:
    async with connect(path, read_only=True) as connection:
        try:
            return list(await connection.execute_fetchall(sql, values))
        except sqlite3.Error as error:
            raise explain(error, path) from error


def started_statements(started: StartedRun, status: str, folder: str) -> list[Statement]:
    """Upserts of a run without a result (status `running` or `unfinished`); a finished row stays."""
    facts = {name: value for name, value in started.facts().items() if name in TABLES["runs"]}
    row = {**facts, "status": status, "folder": folder}
    guard = " where runs.status in ('running', 'unfinished')"
    return [_upsert("runs", "run_id", row, guard), *_suite_statements(started.suite_run_id)]


def finished_statements(result: RunResult, folder: str) -> list[Statement]:
    """Upserts of a result."""
    tokens = {f"tokens_{name}": count for name, count in result.tokens.model_dump().items()}
    facts = {name: value for name, value in result.to_json().items() if name in TABLES["runs"]}
    error = {
        "error_kind": result.error and result.error.kind,
        "error_message": result.error and result.error.message,
    }
    statements = [
        _upsert("runs", "run_id", {**facts, **tokens, **error, "folder": folder}),
        ("delete from check_results where run_id = ?", (_storable(result.run_id),)),
    ]
    for position, check in enumerate(result.checks):
        row = {"run_id": result.run_id, "position": position, "check_id": check.id, **check.model_dump(exclude={"id"})}
        statements.append(_upsert("check_results", "run_id, position", row))
    return statements + _suite_statements(result.suite_run_id)


def suite_statements(suite: SuiteRecord) -> list[Statement]:
    """The upsert of a suite run."""
    row = suite.model_dump(exclude={"schema_version"})
    return [_upsert("suite_runs", "suite_run_id", {**row, "folder": suite.suite_run_id})]


async def write_suite(runs_dir: Path, suite: SuiteRecord) -> None:
    """Note how far a suite run is, beside whoever else writes; what cannot be written is logged."""
    path = runs_dir / INDEX
    try:
        async with connect(path) as connection:
            for sql, values in suite_statements(suite):
                await connection.execute(sql, values)
    except (sqlite3.Error, UsageError) as error:
        problem = explain(error, path) if isinstance(error, sqlite3.Error) else error
        log.warning("index.write_failed", path=str(path), suite_run_id=suite.suite_run_id, problem=str(problem))


def relative_folder(folder: Path, runs_dir: Path) -> str:
    """`folder` as the index names it: relative to the runs folder where it lies in it."""
    try:
        return str(folder.absolute().relative_to(runs_dir.absolute()))
    except ValueError:
        return str(folder.absolute())


def _suite_statements(suite_run_id: str | None) -> list[Statement]:
    if suite_run_id is None:
        return []
    named = SUITE_RUN_ID.fullmatch(suite_run_id)
    row = {
        "suite_run_id": suite_run_id,
        "suite": named["suite"] if named else None,
        "started_at": time_of_id(named["time"]) if named else None,
    }
    sql = f"insert or ignore into suite_runs ({', '.join(row)}) values (?, ?, ?)"  # noqa: S608 - our own words only
    return [(sql, [_storable(value) for value in row.values()])]


def _upsert(table: str, key: str, row: Mapping[str, Any], guard: str = "") -> Statement:
    return _upsert_sql(table, key, tuple(row), guard), [_storable(value) for value in row.values()]


@cache
def _upsert_sql(table: str, key: str, columns: tuple[str, ...], guard: str) -> str:
    places = ", ".join("?" for _ in columns)
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key.split(", "))
    insert = f"insert into {table} ({', '.join(columns)}) values ({places})"  # noqa: S608 - our own words only
    return f"{insert} on conflict({key}) do update set {changes}{guard}"


def _storable(value: Any) -> Any:  # noqa: ANN401 - a JSON scalar
    """`value` as SQLite takes it: no lone surrogate in a text, no integer beyond 64 bits."""
    if isinstance(value, str):
        return value.encode("utf-8", errors="backslashreplace").decode()
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        return None
    return value


def _indexed(row: sqlite3.Row) -> IndexedRun:
    return IndexedRun.model_validate({name: row[name] for name in row.keys() if name in IndexedRun.model_fields})  # noqa: SIM118 - a Row iterates over values


def _with_owner_asked(run: IndexedRun) -> IndexedRun:
    if run.status == "running" and run.owner is not None and not is_owner_alive(run.owner):
        return run.model_copy(update={"status": "unfinished"})
    return run


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - one system call for each batch, on the loop
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _warn(jobs: Sequence[_Job], problem: str, path: Path) -> None:
    run_ids = [job.run_id for job in jobs if job.run_id]
    if run_ids:
        log.warning("index.write_failed", path=str(path), run_ids=run_ids, problem=problem)
