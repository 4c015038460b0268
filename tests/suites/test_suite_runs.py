"""Suites as they run: order, fairness, failures, dollars, what is printed."""

import json
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import yaml
from click.testing import CliRunner

from fbench.engine.commands.history import runs as runs_command
from fbench.engine.errors import UsageError
from fbench.engine.models.replay import load_recording
from fbench.engine.records.reading import run_folders
from fbench.engine.records.rebuild import rebuild_index
from fbench.suites import fan_out
from fbench.suites.commands.suite import suite as suite_command
from fbench.suites.fan_out import interleave
from fbench.suites.loading import load_suite_outcome
from fbench.suites.plan import Cell, read_plan
from fbench.suites.writing import Unwritten

if TYPE_CHECKING:
    from tests.loopback.server import LoopbackServer
    from tests.suites.conftest import Workshop

USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
CALL_USD = Decimal("0.025")
"""1,000 tokens at 10 and 500 at 30 dollars a million."""


@pytest.fixture
def served(loopback: "LoopbackServer", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments for a priced model that the loopback server plays."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-suite-0123456789")
    prices = tmp_path / "prices.yaml"
    prices.write_text(yaml.safe_dump({"models": {"openai/loopback-1": {"input": 10, "output": 30}}}))
    return ["--model", "openai/loopback-1", "--base-url", loopback.url, "--prices", str(prices)]


def test_a_suite_gives_one_document_in_the_plans_order(workshop: "Workshop") -> None:
    slow, quick = workshop.script("slow", latency_s=0.3), workshop.script("quick", command="true")
    for name in ("one", "two"):
        workshop.task(name)
    path = workshop.suite("./tasks/two", "./tasks/one", models=[slow, quick], attempts=2)
    found = workshop.fbench("run", path, "--concurrency", 8)
    assert [(run["task"], run["model"], run["attempt"]) for run in found["runs"]] == [
        (task, model, attempt) for task in ("two", "one") for model in (slow, quick) for attempt in (1, 2)
    ]
    assert found["totals"] == {
        "planned": 8, "completed": 8, "killed": 0, "error": 0, "cancelled": 0, "not_run": 0, "passed": 4,
    }  # fmt: skip
    assert (found["avg_score"], found["pass_rate"], found["cost_usd"], found["judge_cost_usd"]) == (0.5, 0.5, 0.0, 0.0)
    assert {run["passed"] for run in found["runs"] if run["model"] == slow} == {True}
    assert found["suite_run_id"].split("__")[1:3] == ["suite", "small"]
    assert all(Path(run["folder"], "result.json").is_file() for run in found["runs"])
    assert all(Path(path).is_file() for path in found["artifacts"].values())
    assert {result.suite_run_id for result in workshop.results()} == {found["suite_run_id"]}
    assert len({result.run_id for result in workshop.results()}) == 8


def test_the_readable_summary_names_every_run(workshop: "Workshop") -> None:
    workshop.task("one")
    done = workshop.invoke("run", workshop.suite(models=["fake/oracle", "fake/nop"]), "--fail-under", "0.6")
    assert done.exit_code == 1
    assert "one  fake/oracle  #1  passed 1  $0" in done.stdout
    assert "runs     2 planned: 2 completed; 1 passed" in done.stdout
    assert "[2/2]" in done.stderr
    quiet = workshop.invoke("run", workshop.suite(models=["fake/oracle"]), "--quiet", "--fail-under", "1")
    assert (quiet.exit_code, quiet.stderr) == (0, "")


def test_a_mean_score_that_is_the_bar_meets_it(workshop: "Workshop") -> None:
    checks = [
        {"id": "done", "type": "file_present", "path": "done.txt", "weight": 4},
        {"id": "more", "type": "file_present", "path": "more.txt"},
    ]
    workshop.task("one", grader={"checks": checks})
    path = workshop.suite(models=["fake/oracle"], attempts=6)
    workshop.fbench("run", path, "--fail-under", "0.8")  # added one by one they are 4.799999999999999
    workshop.fbench("run", path, "--fail-under", "0.81", expect=1)


def test_fail_under_looks_at_the_mean_score_of_the_report(workshop: "Workshop") -> None:
    workshop.task("good")
    workshop.task("poor", solution=None)
    overrides = {"good": {"attempts": 5}}
    path = workshop.suite(
        models=[workshop.script(command="[ -e is_poor ] || echo done > done.txt")], overrides=overrides
    )
    (workshop.root / "tasks/poor/workspace/is_poor").touch()
    found = workshop.fbench("run", path, "--fail-under", "0.6", expect=1)
    report = json.loads(Path(found["artifacts"]["report"]).read_text(encoding="utf-8"))
    assert (found["avg_score"], report["mean_score"]) == (0.5, 0.5)


def test_junit_goes_to_the_file_that_was_named(workshop: "Workshop") -> None:
    workshop.task("one")
    file = workshop.root / "results.xml"
    found = workshop.fbench("run", workshop.suite(models=["fake/oracle", "fake/nop"]), "--junit", file)
    assert str(file) in found["artifacts"].values()
    assert file.read_text(encoding="utf-8").count("<testcase ") == 2


def test_a_junit_file_that_cannot_be_written_is_refused_before_anything_runs(workshop: "Workshop") -> None:
    workshop.task("one")
    (workshop.root / "file").touch()
    done = workshop.invoke("run", workshop.suite(models=["fake/oracle"]), "--junit", workshop.root / "file/results.xml")
    assert isinstance(done.exception, UsageError)
    assert "results.xml: its folder cannot be written to: File exists; name another" in str(done.exception)
    assert workshop.results() == []


def test_a_report_that_cannot_be_written_is_told_in_a_line_and_no_run_is_lost(workshop: "Workshop") -> None:
    workshop.task("one")
    found = workshop.fbench("run", workshop.suite(models=["fake/oracle"]))
    report = Path(found["artifacts"]["report.md"])
    report.unlink()
    report.mkdir()
    (report / "in_the_way").touch()
    done = workshop.invoke("report", found["suite_run_id"])
    assert isinstance(done.exception, Unwritten)
    assert "report.md cannot be written: Is a directory; no run is lost" in str(done.exception)
    again = workshop.invoke("resume", found["suite_run_id"])
    assert isinstance(again.exception, Unwritten)
    assert len(workshop.results()) == 1


def test_the_shipped_suites_are_listed_with_their_tasks() -> None:
    done = CliRunner().invoke(suite_command, ["list", "--json"])
    assert {row["suite"] for row in json.loads(done.stdout)["suites"]} == {"m2_core", "mle_full", "smoke"}
    assert (
        "pandas_transform, sklearn_classifier, postgres_migration" in CliRunner().invoke(suite_command, ["list"]).stdout
    )


def test_a_recording_that_cannot_be_written_is_told_before_anything_runs(workshop: "Workshop") -> None:
    workshop.task("one")
    done = workshop.invoke("run", workshop.suite(models=["fake/nop"]), "--record", workshop.root / "no" / "file.jsonl")
    assert isinstance(done.exception, UsageError)
    assert not workshop.runs_dir.exists()


def test_a_dry_run_shows_the_plan_and_writes_nothing(workshop: "Workshop", served: list[str], loopback: Any) -> None:
    workshop.task("one", budget={"cost_usd": 0.5})
    workshop.task("two", budget={"tokens": 10_000})
    path = workshop.suite()
    found = workshop.fbench("run", path, "--dry-run", "--attempts", "2", *served)
    assert [run["worst_case_usd"] for run in found["runs"]] == [0.5, 0.5, 0.3, 0.3]
    assert (found["worst_case_usd"], found["expected_usd"]) == (1.6, None)
    assert workshop.fbench("run", path, "--dry-run", "--max-suite-cost", "0.7", *served)["worst_case_usd"] == 0.7
    assert not workshop.runs_dir.exists()
    assert loopback.requests == []
    loopback.always(loopback.submit(usage=USAGE))
    workshop.fbench("run", path, *served)
    assert workshop.fbench("run", path, "--dry-run", *served)["expected_usd"] == 0.05
    assert "worst case  $0.8" in workshop.invoke("run", path, "--dry-run", *served).stdout


def test_a_dry_run_names_the_images(workshop: "Workshop") -> None:
    services = {"db": {"image": "postgres:16-alpine"}}
    workshop.task("one", environment={"image": "fbench/base:1", "services": services})
    path = workshop.suite(sandbox="docker", models=["fake/nop"])
    found = workshop.fbench("run", path, "--dry-run", "--image-map", "postgres:16-alpine=fbench/postgres:1")
    assert found["images"] == ["fbench/base:1", "fbench/postgres:1"]
    assert found["runs"][0]["sandbox"] == "compose"


def test_models_and_tasks_take_turns_from_the_first_run_on() -> None:
    tasks, models = [f"t{n}" for n in range(6)], ["m0", "m1", "m2"]
    cells = [
        Cell(position=0, task_id=task, model=model, attempt=attempt)
        for task in tasks for model in models for attempt in (1, 2)
    ]  # fmt: skip
    order = interleave(cells)
    assert sorted(map(str, order)) == sorted(map(str, cells))
    assert [cell.attempt for cell in order] == [1] * 18 + [2] * 18
    for length in range(1, 18):
        begun = order[:length]
        for kinds, name in ((models, "model"), (tasks, "task_id")):
            counts = [sum(getattr(cell, name) == kind for cell in begun) for kind in kinds]
            assert max(counts) - min(counts) <= 1


def test_a_run_that_fails_touches_no_other(workshop: "Workshop") -> None:
    for name in ("one", "three"):
        workshop.task(name)
    workshop.task("two", environment={"setup": ["exit 7"]})
    found = workshop.fbench("run", workshop.suite(models=["fake/oracle"]), "--concurrency", 3, expect=3)
    assert [(run["task"], run["status"], run["passed"]) for run in found["runs"]] == [
        ("one", "completed", True), ("three", "completed", True), ("two", "error", None),
    ]  # fmt: skip
    assert found["avg_score"] == 1.0


def test_a_run_that_cannot_begin_stays_owed_and_touches_no_other(
    workshop: "Workshop", monkeypatch: pytest.MonkeyPatch
) -> None:
    from fbench.engine.engine import Engine

    for name in ("one", "two", "three"):
        workshop.task(name)
    run = Engine.run

    async def refuse(self: Any, options: Any, *arguments: Any, **more: Any) -> Any:
        if Path(options.task).name == "two":
            msg = "no room"
            raise UsageError(msg)
        if Path(options.task).name == "three":
            msg = "ours"
            raise KeyError(msg)
        return await run(self, options, *arguments, **more)

    monkeypatch.setattr(Engine, "run", refuse)
    done = workshop.invoke("run", workshop.suite(models=["fake/nop"]))
    assert done.exit_code == 3
    assert "two fake/nop #1: could not begin: no room" in done.stderr
    assert "three fake/nop #1: could not begin: KeyError" in done.stderr
    assert "runs are owed: fbench suite resume" in done.stderr
    assert [result.task_id for result in workshop.results()] == ["one"]
    monkeypatch.undo()
    (suite_run_id,) = {str(result.suite_run_id) for result in workshop.results()}
    assert workshop.fbench("resume", suite_run_id)["totals"]["completed"] == 3


def test_the_runs_of_a_suite_never_spend_more_than_its_cap(
    workshop: "Workshop", served: list[str], loopback: "LoopbackServer"
) -> None:
    for number in range(6):
        workshop.task(f"task_{number}", model={"max_output_tokens": 500}, budget={"wall_time_s": 60})
    call = loopback.call("bash", {"command": "echo done > done.txt"})
    loopback.always(loopback.say("", tool_calls=[call], usage=USAGE))
    cap = CALL_USD * 20
    path = workshop.suite(attempts=2, budget={"suite_cost_usd": float(cap)})
    found = workshop.fbench("run", path, "--concurrency", 12, *served)
    results = workshop.results()
    assert {(result.status, result.kill_reason) for result in results} == {("killed", "budget_exceeded:suite_cost")}
    spent = sum(Decimal(str(result.cost_usd)) for result in results)
    assert cap - Decimal("0.15") < spent <= cap
    assert spent == CALL_USD * len(loopback.requests)
    assert found["cost_usd"] == float(spent)
    assert found["max_suite_cost_usd"] == 0.5

    # A resume has nothing to do, until there are other dollars.
    asked = len(loopback.requests)
    assert workshop.fbench("resume", found["suite_run_id"])["cost_usd"] == float(spent)
    assert len(loopback.requests) == asked
    for no_more in (found["max_suite_cost_usd"], 0.1, 0.2):  # the last is more than the one before, and spent
        same = workshop.fbench("resume", found["suite_run_id"], "--max-suite-cost", no_more)
        assert same["runs"] == found["runs"]
    loopback.always(loopback.submit(usage=USAGE))
    more = workshop.fbench("resume", found["suite_run_id"], "--max-suite-cost", "2")
    assert more["totals"]["completed"] == 12
    assert more["cost_usd"] == pytest.approx(float(spent + 12 * CALL_USD))
    assert len(loopback.requests) == asked + 12


def test_a_cap_with_an_unpriced_model_is_refused(workshop: "Workshop", served: list[str]) -> None:
    workshop.task("one")
    arguments = [*served[2:], "--model", "openai/nobody-knows", "--max-suite-cost", "1"]
    done = workshop.invoke("run", workshop.suite(), *arguments)
    assert isinstance(done.exception, UsageError)
    assert "the suite's cap on dollars cannot be held: openai/nobody-knows has no price" in str(done.exception)


def test_a_run_in_error_is_tried_again_at_once_when_asked_and_its_spend_counts(
    workshop: "Workshop", served: list[str], loopback: "LoopbackServer", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "RETRY_BASE_S", 0.05)
    workshop.task("one")
    call = loopback.call("bash", {"command": "true"})
    loopback.plan(
        loopback.say("", tool_calls=[call], usage=USAGE),
        loopback.error(400, "bad"),
        loopback.submit(usage=USAGE),
    )
    done = workshop.invoke("run", workshop.suite(), "--retry-errors", "2", "--json", *served)
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["totals"]["completed"] == 1
    assert found["cost_usd"] == float(CALL_USD * 2)
    assert sorted(result.status for result in workshop.results()) == ["completed", "error"]
    assert "try 1 ended in error" in done.stderr


def test_a_recorded_suite_is_replayed_without_server_and_key(
    workshop: "Workshop", served: list[str], loopback: "LoopbackServer", monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CI would: what several tasks and attempts recorded at once into one file gives the same results again."""
    for name in ("one", "two", "three"):
        workshop.task(name)

    def answer(exchange: Any) -> Any:
        said = json.dumps(exchange.request.json["messages"])
        has_worked = '"role": "tool"' in said
        task = next(name for name in ("one", "two", "three") if f"for {name}." in said)
        command = "echo done > done.txt" if task != "two" else f"echo {task}"
        call = loopback.call("bash", {"command": command})
        usage = {**USAGE, "prompt_tokens": 100 * len(task)}
        return (loopback.submit(usage=usage) if has_worked else loopback.say("", tool_calls=[call], usage=usage))(
            exchange
        )

    loopback.always(answer)
    file = workshop.root / "traffic.jsonl"
    arguments = ["run", workshop.suite(attempts=3), "--concurrency", "9", "--seed", "1"]
    recorded = workshop.fbench(*arguments, *served, "--record", file)
    assert len(load_recording(file).runs) == 9
    asked = len(loopback.requests)
    monkeypatch.delenv("OPENAI_API_KEY")
    offline = ["--model", "openai/loopback-1", "--base-url", "http://127.0.0.1:1/v1", *served[4:]]
    replayed = workshop.fbench(*arguments, *offline, "--replay", file, "--fail-under", "0.6")
    assert len(loopback.requests) == asked == 18

    def facts(document: dict[str, Any]) -> list[tuple[Any, ...]]:
        names = ("task", "model", "attempt", "status", "passed", "score", "cost_usd")
        return [tuple(run[name] for name in names) for run in document["runs"]]

    assert facts(replayed) == facts(recorded)
    assert {run[4] for run in facts(replayed)} == {True, False}
    assert replayed["tokens"] == recorded["tokens"]
    assert replayed["cost_usd"] == recorded["cost_usd"]


def test_readers_of_a_runs_folder_take_a_suites_folder_for_what_it_is(workshop: "Workshop") -> None:
    workshop.task("one")
    found = workshop.fbench("run", workshop.suite(models=["fake/nop"]))
    suite_folder = workshop.runs_dir / found["suite_run_id"]
    assert read_plan(suite_folder).suite == "small"
    assert suite_folder not in run_folders(workshop.runs_dir)
    report = anyio.run(rebuild_index, workshop.runs_dir)
    assert (report.runs, report.unfinished, report.unreadable) == (1, 0, ())
    assert found["runs"][0]["run_id"] in CliRunner().invoke(runs_command, ["--runs-dir", str(workshop.runs_dir)]).stdout


def test_the_index_knows_how_far_a_suite_run_is_also_when_it_was_made_again(workshop: "Workshop") -> None:
    switch = workshop.root / "switch"
    workshop.task("one", environment={"setup": [f"test -e {switch}"]})

    def rows() -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(workshop.runs_dir / "runs.sqlite")) as connection:
            sql = "select suite_run_id, suite, status, started_at, finished_at, folder from suite_runs"
            return connection.execute(sql).fetchall()

    found = workshop.fbench("run", workshop.suite(models=["fake/oracle"]), expect=3)
    suite_run_id = found["suite_run_id"]
    assert rows() == [(suite_run_id, "small", "unfinished", found["started_at"], None, suite_run_id)]
    switch.touch()
    found = workshop.fbench("resume", suite_run_id)
    after = [(suite_run_id, "small", "finished", found["started_at"], found["finished_at"], suite_run_id)]
    assert found["finished_at"]
    assert rows() == after
    (workshop.runs_dir / "runs.sqlite").unlink()
    anyio.run(rebuild_index, workshop.runs_dir)
    assert rows() == after


def test_an_outcome_is_read_from_the_folders_alone(workshop: "Workshop") -> None:
    workshop.task("one", title="First", domain="sql", tags=["a"])
    found = workshop.fbench("run", workshop.suite(models=["fake/oracle"], attempts=2))
    (workshop.runs_dir / "runs.sqlite").unlink()
    outcome = load_suite_outcome(workshop.runs_dir, found["suite_run_id"])
    assert load_suite_outcome(workshop.runs_dir, found["suite_run_id"][:-2]) == outcome
    assert (outcome.tasks[0].title, outcome.tasks[0].domain, outcome.tasks[0].tags) == ("First", "sql", ("a",))
    assert [planned.attempt for planned in outcome.planned] == [1, 2]
    assert list(outcome.results) == list(outcome.planned)
    assert outcome.finished_at is not None
    assert outcome.lost_cost_usd == 0.0
