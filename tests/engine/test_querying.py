"""Questions to the index: every order and filter gives what sorting and filtering by hand gives, and reads an index."""

import itertools
import random
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fbench.engine.records.index import finished_statements, open_index, query_runs
from fbench.engine.records.index_schema import INDEX, IndexedRun, connect
from fbench.engine.records.querying import SORTS, RunQuery, Sort, parse_since
from fbench.engine.results import ErrorInfo, RunResult, TokenCounts

if TYPE_CHECKING:
    from collections.abc import Callable

VALUES = {
    "started": "started_at",
    "score": "score",
    "cost": "cost_usd",
    "duration": "duration_s",
    "tokens": "tokens_total",
}
FILTERS: dict[str, Any] = {
    "task": "t1",
    "model": "m/1",
    "suite": "nightly",
    "status": "completed",
    "passed": False,
    "since": "2026-05-03T00:00:00",
}


def make_result(number: int, chance: random.Random) -> RunResult:
    is_error = chance.random() < 0.2
    score = None if is_error else chance.choice((0.0, 0.5, 1.0))
    suite = chance.choice((None, "nightly", "weekly"))
    started = datetime(2026, 5, 1, tzinfo=UTC) + timedelta(hours=chance.randrange(100))
    return RunResult(
        run_id=f"run-{number:03}",
        task_id=f"t{chance.randrange(3)}",
        model=f"m/{chance.randrange(3)}",
        suite_run_id=suite and f"2026-05-01T00-00-00Z__suite__{suite}__a3f0",
        status="error" if is_error else "completed",
        error=ErrorInfo(kind="sandbox_lost", message="gone") if is_error else None,
        score=score,
        passed=None if score is None else score == 1,
        cost_usd=chance.choice((None, 0.0, 0.5, 1.5)),
        tokens=TokenCounts(total=chance.randrange(5)),
        started_at=started.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        finished_at="",
        duration_s=float(chance.randrange(5)),
        fbench_version="0",
        task_hash="h",
    )


@pytest.fixture
async def runs_dir(tmp_path: Path) -> Path:
    """150 runs with many equal and missing values."""
    chance = random.Random(2)
    async with open_index(tmp_path) as index:
        for number in range(150):
            result = make_result(number, chance)
            await index.run_finished(result, tmp_path / result.run_id)
    return tmp_path


def by_hand(rows: tuple[IndexedRun, ...], sort: Sort, *, ascending: bool) -> list[str]:
    def key(row: IndexedRun) -> tuple[Any, str, str]:
        return getattr(row, VALUES[sort]), row.started_at or "", row.run_id

    known = [row for row in rows if getattr(row, VALUES[sort]) is not None]
    unknown = [row for row in rows if getattr(row, VALUES[sort]) is None]
    ordered = sorted(known, key=key, reverse=not ascending)
    ordered += sorted(unknown, key=lambda row: (row.started_at or "", row.run_id), reverse=not ascending)
    return [row.run_id for row in ordered]


async def test_every_order_is_that_of_sorting_by_hand(runs_dir: Path) -> None:
    rows = await query_runs(runs_dir)
    assert len(rows) == 150
    for sort, ascending, limit in itertools.product(SORTS, (False, True), (None, 7)):
        found = await query_runs(runs_dir, sort=sort, ascending=ascending, limit=limit)
        assert [row.run_id for row in found] == by_hand(rows, sort, ascending=ascending)[:limit], (sort, ascending)


async def test_every_filter_holds_in_every_order(runs_dir: Path) -> None:
    rows = await query_runs(runs_dir)
    holds: dict[str, Callable[[Any], bool]] = {
        "task": lambda row: row.task_id == "t1",
        "model": lambda row: row.model == "m/1",
        "suite": lambda row: "nightly" in (row.suite_run_id or ""),
        "status": lambda row: row.status == "completed",
        "passed": lambda row: row.passed is False,
        "since": lambda row: row.started_at >= "2026-05-03",
    }
    for names in itertools.chain(itertools.combinations(FILTERS, 1), itertools.combinations(FILTERS, 2)):
        matching = tuple(row for row in rows if all(holds[name](row) for name in names))
        assert 0 < len(matching) < 150
        for sort in SORTS:
            found = await query_runs(runs_dir, **{name: FILTERS[name] for name in names}, sort=sort)
            assert [row.run_id for row in found] == by_hand(matching, sort, ascending=False), (names, sort)


def plan_of(path: Path, query: RunQuery) -> str:
    connection = sqlite3.connect(path)
    try:
        sql, values = query.select()
        return "; ".join(row[3] for row in connection.execute(f"explain query plan {sql}", values))
    finally:
        connection.close()


async def test_no_question_reads_the_whole_table(runs_dir: Path) -> None:
    for sort, ascending in itertools.product(SORTS, (False, True)):
        for names in ((), *itertools.combinations(FILTERS, 1)):
            given = {name: FILTERS[name] for name in names}
            plan = plan_of(runs_dir / INDEX, RunQuery(sort=sort, ascending=ascending, limit=51, **given))
            assert "INDEX runs_" in plan, plan
            steps = [step for step in plan.split("; ") if step.startswith("SCAN runs")]
            assert all("INDEX" in step for step in steps), plan


async def test_an_index_of_schema_1_gets_the_new_indexes_and_keeps_its_rows(tmp_path: Path) -> None:
    async with connect(tmp_path / INDEX) as connection:
        for sql, values in finished_statements(make_result(1, random.Random(1)), "run-001"):
            await connection.execute(sql, values)
    before = index_names(tmp_path / INDEX)
    drops = "".join(f"drop index {name};" for name in before)
    change(tmp_path / INDEX, f"{drops} create index runs_task_id on runs (task_id); pragma user_version = 1;")
    assert [row.run_id for row in await query_runs(tmp_path, sort="cost", task="none")] == []
    assert [row.run_id for row in await query_runs(tmp_path, sort="cost")] == ["run-001"]
    assert index_names(tmp_path / INDEX) == before


def index_names(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    try:
        found = connection.execute("select name from sqlite_master where type = 'index' and sql is not null")
        return {name for (name,) in found}
    finally:
        connection.close()


def change(path: Path, script: str) -> None:
    connection = sqlite3.connect(path)
    try:
        connection.executescript(script)
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-05-13", "2026-05-13T00:00:00"),
        (" 2026-05-13T20:40 ", "2026-05-13T20:40:00"),
        ("2026-05-13T20:40:21Z", "2026-05-13T20:40:21"),
        ("2026-05-13T20:40:21+02:00", "2026-05-13T18:40:21"),
        ("90m", "2026-05-13T10:30:00"),
        ("12h", "2026-05-13T00:00:00"),
        ("2w", "2026-04-29T12:00:00"),
    ],
)
def test_a_day_a_time_and_an_age_are_understood(text: str, expected: str) -> None:
    assert parse_since(text, datetime(2026, 5, 13, 12, tzinfo=UTC)) == expected
