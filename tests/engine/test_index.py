"""The index: what is acknowledged is there, many processes may write, and a broken index never fails a run."""

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from fbench.engine.errors import UsageError
from fbench.engine.owner import owner_identity
from fbench.engine.records import index as index_module
from fbench.engine.records.index import open_index, query_runs
from fbench.engine.records.index_schema import INDEX, TABLES, IndexedRun, IndexUnusable
from fbench.engine.records.reading import StartedRun
from fbench.engine.results import CheckResult, ErrorInfo, RunResult, TokenCounts

WRITER = """
import sys
from pathlib import Path
import anyio
from fbench.engine.records.index import open_index
from fbench.engine.results import RunResult

async def main(runs_dir, name, count, batch):
    async def one(number):
        run_id = f"{name}-{number}"
        result = RunResult(run_id=run_id, task_id="t", model="m", status="completed", started_at="2026-01-01",
                           finished_at="2026-01-01", duration_s=1.0, fbench_version="0", task_hash="h")
        await index.run_finished(result, runs_dir / run_id)
        print(run_id, flush=True)
    async with open_index(runs_dir) as index:
        for first in range(0, count, batch):
            async with anyio.create_task_group() as group:
                for number in range(first, first + batch):
                    group.start_soon(one, number)

anyio.run(main, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
"""


def make_result(run_id: str = "run-1", **changes: object) -> RunResult:
    facts: dict[str, object] = {
        "run_id": run_id,
        "task_id": "hello",
        "model": "openai/gpt-4o",
        "status": "completed",
        "end_reason": "submitted",
        "passed": True,
        "score": 1.0,
        "started_at": "2026-05-13T20:40:21.000Z",
        "finished_at": "2026-05-13T20:41:21.000Z",
        "duration_s": 60.0,
        "fbench_version": "0.1.0",
        "task_hash": "abc",
    }
    return RunResult.model_validate(facts | changes)


def started(run_id: str = "run-1", **changes: object) -> StartedRun:
    facts: dict[str, object] = {"task_id": "hello", "model": "m", "started_at": "2026-05-13T20:40:21.000Z"}
    return StartedRun(run_id, **(facts | changes))  # type: ignore[arg-type]


def rows(runs_dir: Path, sql: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(runs_dir / INDEX)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


async def test_a_result_is_there_with_all_its_facts_once_acknowledged(tmp_path: Path) -> None:
    check = CheckResult(
        id="a",
        type="file_present",
        tier="deterministic",
        status="failed",
        score=0.25,
        weight=2,
        gating=True,
        detail="d",
    )
    result = make_result(
        status="error",
        error=ErrorInfo(kind="model_unavailable", message="no answer"),
        passed=None,
        score=None,
        checks=(check, check.model_copy(update={"id": "b"})),
        tokens=TokenCounts(input=5, cached_input=2, output=3, reasoning=1, total=8),
        cost_usd=0.125,
        suite_run_id="2026-05-13T20-40-21Z__suite__nightly__a3f0",
        seed=7,
    )
    async with open_index(tmp_path) as index:
        await index.run_finished(result, tmp_path / "run-1")
        (found,) = await query_runs(tmp_path)
    assert found.status == "error"
    assert (found.error_kind, found.error_message) == ("model_unavailable", "no answer")
    assert (found.passed, found.score, found.cost_usd, found.seed) == (None, None, 0.125, 7)
    assert (found.tokens_input, found.tokens_cached_input, found.tokens_output, found.tokens_total) == (5, 2, 3, 8)
    assert found.folder == "run-1"
    checks = rows(tmp_path, "select position, check_id, status, score, gating from check_results order by position")
    assert checks == [(0, "a", "failed", 0.25, 1), (1, "b", "failed", 0.25, 1)]
    suites = rows(tmp_path, "select suite_run_id, suite, started_at from suite_runs")
    assert suites == [("2026-05-13T20-40-21Z__suite__nightly__a3f0", "nightly", "2026-05-13T20:40:21Z")]


def test_the_row_model_and_the_table_name_the_same_columns() -> None:
    assert list(IndexedRun.model_fields) == list(TABLES["runs"])


async def test_writing_a_result_twice_leaves_one_row_and_its_last_checks(tmp_path: Path) -> None:
    check = CheckResult(id="a", type="t", tier="rubric", status="passed", score=1, weight=1, gating=False)
    async with open_index(tmp_path) as index:
        await index.run_finished(make_result(checks=(check, check.model_copy(update={"id": "b"}))), tmp_path / "run-1")
        await index.run_finished(make_result(checks=(check,), score=0.5), tmp_path / "run-1")
    assert rows(tmp_path, "select score from runs") == [(0.5,)]
    assert rows(tmp_path, "select check_id from check_results") == [("a",)]


async def test_a_started_run_is_running_until_it_finishes_and_never_goes_back(tmp_path: Path) -> None:
    async with open_index(tmp_path) as index:
        await index.run_started(started(), tmp_path / "run-1")
        (found,) = await index.query_runs()
        assert (found.status, found.owner) == ("running", owner_identity())
        await index.run_finished(make_result(), tmp_path / "run-1")
        await index.run_started(started(), tmp_path / "run-1")
        (found,) = await index.query_runs()
    assert found.status == "completed"


async def test_a_running_row_whose_process_is_dead_counts_as_unfinished(tmp_path: Path) -> None:
    host = owner_identity().rsplit(":", 2)[0]
    async with open_index(tmp_path) as index:
        await index.run_started(started("dead", owner=f"{host}:{os.getpid()}:1"), tmp_path / "dead")
        await index.run_started(started("live"), tmp_path / "live")
        await index.run_started(started("far", owner="elsewhere.example:1:1"), tmp_path / "far")
        assert {run.run_id for run in await index.query_runs(status="unfinished")} == {"dead"}
        assert {run.run_id for run in await index.query_runs(status="running")} == {"live", "far"}
        assert {run.run_id: run.status for run in await index.query_runs()}["dead"] == "unfinished"


async def test_queries_filter_and_come_newest_first(tmp_path: Path) -> None:
    suite = "2026-05-13T20-40-21Z__suite__nightly__a3f0"
    async with open_index(tmp_path) as index:
        for number in range(5):
            changes = {"started_at": f"2026-05-1{number}", "task_id": "odd" if number % 2 else "even"}
            if number == 4:
                changes |= {"model": "fake/nop", "status": "killed", "suite_run_id": suite}
            await index.run_finished(make_result(f"run-{number}", **changes), tmp_path / f"run-{number}")

        async def ids(**filters: object) -> list[str]:
            return [run.run_id for run in await index.query_runs(**filters)]  # type: ignore[arg-type]

        assert await ids() == ["run-4", "run-3", "run-2", "run-1", "run-0"]
        assert await ids(limit=2) == ["run-4", "run-3"]
        assert await ids(limit=0) == []
        assert await ids(task="odd") == ["run-3", "run-1"]
        assert await ids(model="fake/nop") == ["run-4"]
        assert await ids(suite="nightly") == await ids(suite=suite) == ["run-4"]
        assert await ids(status="killed", task="even") == ["run-4"]
        assert await ids(task="none") == []


async def test_filters_use_the_indexes(tmp_path: Path) -> None:
    async with open_index(tmp_path) as index:
        await index.run_finished(make_result(), tmp_path / "run-1")
    for column in ("task_id", "model", "suite_run_id", "status"):
        plan = rows(tmp_path, f"explain query plan select * from runs where {column} = 'x'")
        assert f"USING INDEX runs_of_{column}" in str(plan)
    assert "runs_by_time" in str(rows(tmp_path, "explain query plan select * from runs order by started_at desc"))


async def test_the_index_uses_wal(tmp_path: Path) -> None:
    async with open_index(tmp_path) as index:
        await index.run_finished(make_result(), tmp_path / "run-1")
    assert rows(tmp_path, "pragma journal_mode") == [("wal",)]


def test_eight_processes_may_write_at_once(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, f"p{number}", "50", "1"], stdout=subprocess.DEVNULL)
        for number in range(8)
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0] * 8
    assert rows(tmp_path, "select count(*) from runs") == [(400,)]
    assert rows(tmp_path, "pragma integrity_check") == [("ok",)]


@pytest.mark.parametrize("after_s", [0.05, 0.25])
def test_sigkill_loses_no_acknowledged_row(tmp_path: Path, after_s: float) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path, "p", "1000000", "20"], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    with writer.stdout as output:
        acknowledged = [output.readline().strip()]
        time.sleep(after_s)
        writer.send_signal(signal.SIGKILL)
        writer.wait(timeout=30)
        lines = output.read().splitlines(keepends=True)
    acknowledged += [line.strip() for line in lines if line.endswith("\n")]
    assert rows(tmp_path, "pragma integrity_check") == [("ok",)]
    there = {run_id for (run_id,) in rows(tmp_path, "select run_id from runs")}
    assert set(acknowledged) <= there
    assert len(acknowledged) > 1


async def test_a_cancelled_run_is_still_written(tmp_path: Path) -> None:
    with anyio.CancelScope() as scope:
        async with open_index(tmp_path) as index:
            try:
                scope.cancel()
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await index.run_finished(make_result(status="cancelled"), tmp_path / "run-1")
    assert scope.cancelled_caught
    assert rows(tmp_path, "select status from runs") == [("cancelled",)]


async def test_what_was_said_before_a_cancellation_is_written_at_close(tmp_path: Path) -> None:
    with anyio.CancelScope() as scope:
        async with open_index(tmp_path) as index:
            await index.run_started(started(), tmp_path / "run-1")
            scope.cancel()
            await anyio.sleep_forever()
    assert rows(tmp_path, "select status from runs") == [("running",)]


async def test_an_error_of_the_body_comes_out_as_itself(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=tmp_path.name):
        async with open_index(tmp_path):
            raise KeyError(tmp_path.name)


def test_a_program_that_dies_with_the_index_open_exits(tmp_path: Path) -> None:
    code = f"""
import anyio
from pathlib import Path
from fbench.engine.records.index import open_index
from fbench.engine.records.reading import StartedRun
async def main():
    async with open_index(Path({str(tmp_path)!r})) as index:
        await index.run_started(StartedRun("r", "t", "m", "2026"), Path({str(tmp_path)!r}) / "r")
        await anyio.sleep(0.05)
        raise RuntimeError("boom")
anyio.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "RuntimeError: boom" in done.stderr
    assert "ExceptionGroup" not in done.stderr


async def test_a_damaged_index_is_a_warning_and_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / INDEX).write_bytes(b"this is no database, " * 1000)
    with caplog.at_level(logging.WARNING, logger="fbench"):
        async with open_index(tmp_path) as index:
            await index.run_finished(make_result(), tmp_path / "run-1")
    assert "index.write_failed" in caplog.text
    assert "run-1" in caplog.text
    assert "fbench index rebuild" in caplog.text
    with pytest.raises(IndexUnusable, match="damaged") as caught:
        await query_runs(tmp_path)
    assert caught.value.is_corrupt
    assert caught.value.exit_code == 2


async def test_a_folder_in_the_index_s_place_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / INDEX).mkdir()
    async with open_index(tmp_path) as index:
        await index.run_finished(make_result(), tmp_path / "run-1")
    assert "index.write_failed" in caplog.text


async def test_a_newer_index_is_refused_by_its_version_and_not_touched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    connection = sqlite3.connect(tmp_path / INDEX)
    connection.execute("create table other (x)")
    connection.execute("pragma user_version = 99")
    connection.close()
    async with open_index(tmp_path) as index:
        await index.run_finished(make_result(), tmp_path / "run-1")
    assert "schema version 99" in caplog.text
    assert rows(tmp_path, "select name from sqlite_master") == [("other",)]
    with pytest.raises(IndexUnusable, match=r"schema version 99.*upgrade"):
        await query_runs(tmp_path)


async def test_an_older_index_gains_the_missing_columns_and_keeps_its_rows(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / INDEX)
    connection.execute("create table runs (run_id text primary key not null, task_id text, strange text)")
    connection.execute("insert into runs values ('old', 'hello', 'kept')")
    connection.commit()
    connection.close()
    assert [run.run_id for run in await query_runs(tmp_path)] == ["old"]
    async with open_index(tmp_path) as index:
        await index.run_finished(make_result(), tmp_path / "run-1")
        assert {run.run_id for run in await index.query_runs(task="hello")} == {"old", "run-1"}
    assert rows(tmp_path, "select strange from runs where run_id = 'old'") == [("kept",)]


async def test_a_lock_held_for_a_while_is_waited_for(tmp_path: Path) -> None:
    async with open_index(tmp_path) as index:
        await index.run_finished(make_result("before"), tmp_path / "before")
        holder = sqlite3.connect(tmp_path / INDEX, isolation_level=None, check_same_thread=False)
        holder.execute("begin immediate")
        timer = threading.Timer(0.5, lambda: holder.execute("rollback"))
        timer.start()
        try:
            await index.run_finished(make_result("after"), tmp_path / "after")
        finally:
            timer.join()
            holder.close()
    assert rows(tmp_path, "select count(*) from runs") == [(2,)]


async def test_a_lock_that_stays_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fbench.engine.records.index_schema.BUSY_S", 0.2)
    async with open_index(tmp_path) as index:
        await index.run_finished(make_result("before"), tmp_path / "before")
        holder = sqlite3.connect(tmp_path / INDEX, isolation_level=None)
        holder.execute("begin immediate")
        try:
            await index.run_finished(make_result("after"), tmp_path / "after")
        finally:
            holder.close()
        assert "locked" in caplog.text
        await index.run_finished(make_result("later"), tmp_path / "later")
    assert rows(tmp_path, "select run_id from runs order by run_id") == [("before",), ("later",)]


async def test_an_index_put_in_place_of_the_open_one_is_written_to(tmp_path: Path) -> None:
    async with open_index(tmp_path) as index:
        await index.run_finished(make_result("before"), tmp_path / "before")
        for suffix in ("", "-wal", "-shm"):
            (tmp_path / f"{INDEX}{suffix}").rename(tmp_path / f"aside{suffix}")
        await index.run_finished(make_result("after"), tmp_path / "after")
    assert rows(tmp_path, "select run_id from runs") == [("after",)]


async def test_values_sqlite_cannot_hold_do_not_lose_the_row(tmp_path: Path) -> None:
    result = make_result(
        task_id="lone \ud800 surrogate", tokens=TokenCounts(input=10**30, total=10**30), score=float("nan")
    )
    async with open_index(tmp_path) as index:
        await index.run_finished(result, tmp_path / "run-1")
        (found,) = await index.query_runs()
    assert (found.task_id, found.tokens_input, found.score) == ("lone \\ud800 surrogate", None, None)


async def test_no_index_is_no_run_but_runs_without_an_index_are_told(tmp_path: Path) -> None:
    assert await query_runs(tmp_path / "none") == ()
    assert await query_runs(tmp_path) == ()
    folder = tmp_path / "2026-05-13T20-40-21Z__hello__fake_nop__a3f0"
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(make_result().to_json()))
    with pytest.raises(UsageError, match="fbench index rebuild"):
        await query_runs(tmp_path)


async def test_an_archived_index_in_a_folder_nobody_may_write_to_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_index(tmp_path) as index:
        await index.run_finished(make_result(), tmp_path / "run-1")
    tmp_path.chmod(0o555)  # noqa: ASYNC240 - a test
    monkeypatch.setattr(os, "access", lambda *_arguments, **_keywords: False)  # for root every folder is writable
    before = sorted(path.name for path in tmp_path.iterdir())  # noqa: ASYNC240 - a test
    assert [run.run_id for run in await query_runs(tmp_path)] == ["run-1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == before == [INDEX]  # noqa: ASYNC240 - a test
    tmp_path.chmod(0o755)  # noqa: ASYNC240 - a test


async def test_words_in_a_filter_are_values_and_no_sql(tmp_path: Path) -> None:
    async with open_index(tmp_path) as index:
        await index.run_finished(make_result(), tmp_path / "run-1")
        assert await index.query_runs(task="' or 1=1 --", status="x'; drop table runs; --") == ()
        assert len(await index.query_runs()) == 1


async def test_many_results_at_once_are_committed_together(tmp_path: Path) -> None:
    async with open_index(tmp_path) as index, anyio.create_task_group() as group:
        for number in range(300):
            group.start_soon(index.run_finished, make_result(f"run-{number}"), tmp_path / f"run-{number}")
    assert rows(tmp_path, "select count(*) from runs") == [(300,)]


async def test_started_runs_gather_and_whoever_waits_ends_the_gathering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "GATHER_S", 60.0)
    sizes: list[int] = []
    commit = index_module.Index._commit

    async def count(index: index_module.Index, batch: list[Any]) -> None:
        sizes.append(len(batch))
        await commit(index, batch)

    monkeypatch.setattr(index_module.Index, "_commit", count)
    async with open_index(tmp_path) as index:
        for number in range(50):
            await index.run_started(started(f"run-{number}"), tmp_path / f"run-{number}")
            await anyio.lowlevel.checkpoint()
        assert sizes == []
        with anyio.fail_after(30):
            await index.run_finished(make_result("run-7"), tmp_path / "run-7")
        assert sizes == [51]
        await index.run_started(started("last"), tmp_path / "last")
    assert sizes == [51, 1], "what was said is written at the close, and at once"
    assert rows(tmp_path, "select status, count(*) from runs group by status order by status") == [
        ("completed", 1),
        ("running", 50),
    ]


async def test_what_is_said_twice_of_a_run_in_one_transaction_keeps_its_order(tmp_path: Path) -> None:
    check = CheckResult(
        id="a", type="file_present", tier="deterministic", status="passed", score=1.0, weight=1.0, gating=False
    )
    first = make_result(checks=[check, check.model_copy(update={"id": "b"})])
    async with open_index(tmp_path) as index, anyio.create_task_group() as group:
        group.start_soon(index.run_started, started(), tmp_path / "run-1")
        group.start_soon(index.run_finished, first, tmp_path / "run-1")
        group.start_soon(index.run_finished, make_result(checks=[check], score=0.5), tmp_path / "run-1")
    assert rows(tmp_path, "select status, score from runs") == [("completed", 0.5)]
    assert rows(tmp_path, "select check_id from check_results") == [("a",)]


async def test_writing_after_the_close_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_index(tmp_path) as index:
        pass
    await index.run_finished(make_result(), tmp_path / "run-1")
    assert "has been closed" in caplog.text
    assert not (tmp_path / INDEX).exists()
