"""`fbench index rebuild`: the index comes out of the folders, whatever state they and it are in."""

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner

from fbench.engine.commands.index import index as index_command
from fbench.engine.errors import UsageError
from fbench.engine.owner import owner_identity
from fbench.engine.records.index import open_index, query_runs
from fbench.engine.records.index_schema import INDEX, IndexUnusable
from fbench.engine.records.reading import StartedRun
from fbench.engine.records.rebuild import rebuild_index
from fbench.engine.results import RunResult

HERE = owner_identity().rsplit(":", 2)[0]
DEAD = f"{HERE}:{os.getpid()}:1"


def name_of(number: int, task: str = "hello") -> str:
    return f"2026-05-13T20-40-{number:02d}Z__{task}__fake_nop__a3f{number % 10}"


def make_result(run_id: str, **changes: object) -> RunResult:
    facts: dict[str, object] = {
        "run_id": run_id,
        "task_id": "hello",
        "model": "fake/nop",
        "status": "completed",
        "started_at": "2026-05-13T20:40:21.000Z",
        "finished_at": "2026-05-13T20:41:21.000Z",
        "duration_s": 60.0,
        "fbench_version": "0.1.0",
        "task_hash": "abc",
    }
    return RunResult.model_validate(facts | changes)


def finished_folder(runs_dir: Path, name: str, result: RunResult | None = None) -> Path:
    folder = runs_dir / name
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps((result or make_result(name)).to_json()))
    return folder


def started_folder(runs_dir: Path, name: str, owner: str | None, **facts: Any) -> Path:
    folder = runs_dir / name
    folder.mkdir()
    event = {"seq": 1, "time": "2026-05-13T20:40:21.000Z", "type": "run_started", "run_id": name, "owner": owner}
    event |= {"task_id": "hello", "model": "fake/nop", "sandbox": "local"} | facts
    (folder / "transcript.jsonl").write_text(json.dumps(event) + '\n{"seq": 2, "ty')
    return folder


async def statuses(runs_dir: Path) -> dict[str, str | None]:
    return {run.run_id: run.status for run in await query_runs(runs_dir)}


async def test_a_lost_index_comes_back_as_it_was(tmp_path: Path) -> None:
    async with open_index(tmp_path) as index:
        for number in range(20):
            result = make_result(name_of(number), score=number / 20)
            await index.run_finished(result, finished_folder(tmp_path, name_of(number), result))
    before = await query_runs(tmp_path)
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"{INDEX}{suffix}").unlink(missing_ok=True)
    report = await rebuild_index(tmp_path)
    assert (report.runs, report.unfinished, report.unreadable) == (20, 0, ())
    assert await query_runs(tmp_path) == before


async def test_rows_without_a_folder_go(tmp_path: Path) -> None:
    async with open_index(tmp_path) as index:
        await index.run_finished(make_result("gone"), tmp_path / "gone")
        await index.run_started(StartedRun("dead", "t", "m", "2026", owner=DEAD), tmp_path / "dead")
    finished_folder(tmp_path, name_of(1))
    await rebuild_index(tmp_path)
    assert await statuses(tmp_path) == {name_of(1): "completed"}


async def test_a_folder_without_a_result_is_unfinished_with_what_its_transcript_says(tmp_path: Path) -> None:
    started_folder(tmp_path, name_of(1), DEAD, attempt=3, suite_run_id="s", seed=5)
    report = await rebuild_index(tmp_path)
    (run,) = await query_runs(tmp_path)
    assert (report.unfinished, report.running) == (1, 0)
    assert (run.status, run.task_id, run.model, run.attempt, run.suite_run_id, run.seed) == (
        "unfinished",
        "hello",
        "fake/nop",
        3,
        "s",
        5,
    )


async def test_a_folder_killed_before_its_first_line_is_known_by_snapshot_or_name(tmp_path: Path) -> None:
    (tmp_path / name_of(1, "by_name")).mkdir()
    (tmp_path / "odd-name").mkdir()
    (tmp_path / "odd-name" / "manifest.snapshot.yaml").write_text("id: by_snapshot\ntitle: [torn")
    await rebuild_index(tmp_path)
    found = {run.run_id: (run.task_id, run.status) for run in await query_runs(tmp_path)}
    assert found == {name_of(1, "by_name"): ("by_name", "unfinished"), "odd-name": ("by_snapshot", "unfinished")}


async def test_a_live_run_stays_running_and_a_dead_or_foreign_one_does_not(tmp_path: Path) -> None:
    started_folder(tmp_path, name_of(1), owner_identity())
    started_folder(tmp_path, name_of(2), DEAD)
    started_folder(tmp_path, name_of(3), "elsewhere.example:1:1")
    started_folder(tmp_path, name_of(4), None)
    report = await rebuild_index(tmp_path)
    assert await statuses(tmp_path) == {
        name_of(1): "running",
        name_of(2): "unfinished",
        name_of(3): "unfinished",
        name_of(4): "unfinished",
    }
    assert (report.running, report.unfinished) == (1, 3)


async def test_a_live_run_s_row_survives_though_its_folder_says_nothing_yet(tmp_path: Path) -> None:
    (tmp_path / name_of(1)).mkdir()
    async with open_index(tmp_path) as index:
        started = StartedRun(name_of(1), "hello", "openai/real-name", "2026-05-13", seed=9)
        await index.run_started(started, tmp_path / name_of(1))
        await index.flush()
        report = await rebuild_index(tmp_path)
        (run,) = await index.query_runs()
    assert (run.status, run.model, run.seed) == ("running", "openai/real-name", 9)
    assert report.running == 1


async def test_damaged_and_newer_results_are_listed_by_name(tmp_path: Path) -> None:
    contents = {
        1: "{torn",
        2: json.dumps({**make_result(name_of(2)).to_json(), "schema_version": 9}),
        3: json.dumps({**make_result(name_of(3)).to_json(), "status": "strange"}),
        4: "[" * 100_000,
        5: "",
    }
    for number, text in contents.items():
        (tmp_path / name_of(number)).mkdir()
        (tmp_path / name_of(number) / "result.json").write_text(text)
    (tmp_path / name_of(6)).mkdir()
    os.mkfifo(tmp_path / name_of(6) / "result.json")
    finished_folder(tmp_path, name_of(7))
    with anyio.fail_after(20):
        report = await rebuild_index(tmp_path)
    told = {item.folder: item.why for item in report.unreadable}
    assert set(told) == {name_of(number) for number in range(1, 7)}
    assert "schema_version 9" in told[name_of(2)]
    assert "upgrade" in told[name_of(2)]
    assert "status" in told[name_of(3)]
    assert await statuses(tmp_path) == {name_of(7): "completed"}


async def test_other_folders_and_links_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "2026-05-13T20-40-21Z__suite__nightly__a3f0").mkdir()
    (tmp_path / "file").write_text("x")
    real = finished_folder(tmp_path, name_of(1))
    (tmp_path / name_of(2)).symlink_to(real)
    report = await rebuild_index(tmp_path)
    assert (report.runs, report.unfinished, report.unreadable) == (1, 0, ())


async def test_a_copied_folder_is_listed_and_does_not_replace_its_original(tmp_path: Path) -> None:
    for copy in ("0000-copy", "zzzz-copy"):
        finished_folder(tmp_path, copy, make_result(name_of(1), score=0.0))
    finished_folder(tmp_path, name_of(1), make_result(name_of(1), score=1.0))
    report = await rebuild_index(tmp_path)
    (run,) = await query_runs(tmp_path)
    assert (run.folder, run.score, report.runs) == (name_of(1), 1.0, 1)
    assert {item.folder for item in report.unreadable} == {"0000-copy", "zzzz-copy"}


async def test_a_renamed_folder_is_found_where_it_lies(tmp_path: Path) -> None:
    finished_folder(tmp_path, "renamed", make_result(name_of(1)))
    await rebuild_index(tmp_path)
    (run,) = await query_runs(tmp_path)
    assert (run.run_id, run.folder) == (name_of(1), "renamed")


@pytest.mark.parametrize("damage", ["no database", "torn pages"])
async def test_a_damaged_index_is_kept_aside_and_made_again(tmp_path: Path, damage: str) -> None:
    finished_folder(tmp_path, name_of(1))
    path = tmp_path / INDEX
    if damage == "no database":
        path.write_bytes(b"garbage " * 4096)
    else:
        connection = sqlite3.connect(path)
        connection.execute("create table t (x)")
        connection.executemany("insert into t values (?)", [("x" * 500,)] * 500)
        connection.commit()
        connection.close()
        data = bytearray(path.read_bytes())
        data[4096 : 4096 * 8] = b"\xff" * (4096 * 7)
        path.write_bytes(data)
    kept = path.read_bytes()
    report = await rebuild_index(tmp_path)
    assert report.moved_aside is not None
    assert report.moved_aside.startswith("runs.sqlite.broken-")
    assert (tmp_path / report.moved_aside).read_bytes()[4096 : 4096 * 8] == kept[4096 : 4096 * 8]
    assert await statuses(tmp_path) == {name_of(1): "completed"}


async def test_a_newer_index_is_refused_and_stays(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / INDEX)
    connection.execute("pragma user_version = 99")
    connection.close()
    with pytest.raises(IndexUnusable, match="schema version 99"):
        await rebuild_index(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [INDEX]  # noqa: ASYNC240 - a test


async def test_runs_that_finish_while_the_index_is_rebuilt_are_in_it(tmp_path: Path) -> None:
    for number in range(40):
        finished_folder(tmp_path, name_of(number, "old"))

    async def work(index: Any) -> None:
        for number in range(40):
            name = name_of(number, "new")
            await index.run_finished(make_result(name), finished_folder(tmp_path, name))

    async with open_index(tmp_path) as index, anyio.create_task_group() as group:
        group.start_soon(work, index)
        for _ in range(8):
            await rebuild_index(tmp_path)
    assert len(await statuses(tmp_path)) == 80


async def test_a_reader_never_sees_a_half_rebuilt_index(tmp_path: Path) -> None:
    for number in range(50):
        finished_folder(tmp_path, name_of(number))
    await rebuild_index(tmp_path)
    seen: set[int] = set()
    async with anyio.create_task_group() as group:

        async def read() -> None:
            while True:
                seen.add(len(await query_runs(tmp_path)))

        group.start_soon(read)
        for _ in range(10):
            await rebuild_index(tmp_path)
        group.cancel_scope.cancel()
    assert seen == {50}


async def test_a_missing_runs_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--runs-dir"):
        await rebuild_index(tmp_path / "none")


def test_the_command_says_what_it_found(tmp_path: Path) -> None:
    finished_folder(tmp_path, name_of(1))
    (tmp_path / name_of(2)).mkdir()
    (tmp_path / name_of(2) / "result.json").write_text("{")
    command = ["rebuild", "--runs-dir", str(tmp_path)]
    done = CliRunner().invoke(index_command, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert "1 finished, 0 unfinished and 0 running" in done.stdout
    assert f"left out {name_of(2)}" in done.stdout
    document = json.loads(CliRunner().invoke(index_command, [*command, "--json"]).stdout)
    assert document["runs"] == 1
    assert document["unreadable"][0]["folder"] == name_of(2)
