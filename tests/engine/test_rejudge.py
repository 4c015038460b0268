"""`fbench rejudge`: stored work judged again by the task as it is now."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from click.testing import CliRunner

from fbench.engine import Engine, RunOptions
from fbench.engine.commands.rejudge import rejudge as rejudge_command
from fbench.engine.errors import UsageError
from fbench.engine.records.ledger import read_ledger
from fbench.engine.records.reading import read_result
from fbench.engine.rejudge import RejudgeOptions
from fbench.tasks.errors import TaskError

if TYPE_CHECKING:
    from fbench.engine import RunResult
    from tests.engine.conftest import MakeScript, MakeTask, RunLocal
    from tests.loopback.server import LoopbackServer


def says(text: str) -> dict[str, Any]:
    command = f"grep -q {text} done.txt"
    return {"checks": [{"id": "says", "type": "command_exit_zero", "command": command}]}


@pytest.fixture
def regrade(make_task: "MakeTask") -> Callable[..., Path]:
    """Makes the task, or makes it again with another grader."""

    def make(text: str, **sections: Any) -> Path:
        return make_task(grader=says(text), **sections)

    return make


async def rejudged(run: Path, **options: Any) -> tuple["RunResult", Path]:
    async with Engine(environ={}) as engine:
        known = set((run / "rejudged").glob("*"))
        result = await engine.rejudge(RejudgeOptions(run=run, runs_dir=run.parent, **options))
    [folder] = set((run / "rejudged").glob("*")) - known
    return result, folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    own = (path for path in folder.rglob("*") if path.is_file() and "rejudged" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in own}


async def test_a_run_is_judged_by_the_grader_of_today_and_stays_as_it_was(
    regrade: Callable[..., Path], run_local: "RunLocal"
) -> None:
    old, folder = await run_local(regrade("other"), "fake/oracle")
    before = bytes_of(folder)
    regrade("done")
    new, beside = await rejudged(folder)
    assert (old.passed, new.passed, new.score) == (False, True, 1.0)
    assert bytes_of(folder) == before
    assert read_result(beside) == new
    assert new.task_hash != old.task_hash
    kept = ("run_id", "status", "end_reason", "tokens", "turns", "tool_calls", "started_at", "duration_s", "model")
    assert [getattr(new, name) for name in kept] == [getattr(old, name) for name in kept]
    assert json.loads((beside / "grader_outputs" / "says.json").read_text())["exit_code"] == 0


async def test_a_killed_run_is_judged_again_too(regrade: Callable[..., Path], run_local: "RunLocal") -> None:
    _, folder = await run_local(regrade("other"), "fake/oracle", max_turns=1)
    regrade("done")
    new, _ = await rejudged(folder)
    assert (new.status, new.kill_reason, new.passed) == ("killed", "budget_exceeded:turns", True)


async def test_a_run_whose_judge_had_failed_gets_its_verdict(
    make_task: "MakeTask", run_local: "RunLocal", loopback: "LoopbackServer", tmp_path: Path
) -> None:
    check = {"id": "quality", "type": "llm_rubric", "rubric": "grader/rubric.md"}
    task = make_task(files={"grader/rubric.md": "Is it good?"}, grader={"checks": [check]})
    loopback.always(loopback.error(503))
    judge = {"judge_model": "openai/gpt-4o-mini", "judge_base_url": loopback.url, "judge_api_key": "k"}
    old, folder = await run_local(task, "fake/oracle", max_model_wait=0, **judge)
    assert (old.status, old.score) == ("error", None)
    (tmp_path / "judge.yaml").write_text("verdicts: [{default: 1, usage: {input: 5, output: 2}}]")
    new, beside = await rejudged(folder, judge_model=f"fake/judge:{tmp_path / 'judge.yaml'}")
    assert (new.status, new.score, new.error) == ("completed", 1.0, None)
    assert [line.who for line in read_ledger(beside / "ledger.jsonl")] == ["judge"]
    again, _ = await rejudged(folder, max_model_wait=0, **judge)
    assert (again.status, again.score) == ("error", None)


async def test_many_judgings_of_one_run_at_once_do_not_meet(
    regrade: Callable[..., Path], run_local: "RunLocal"
) -> None:
    _, folder = await run_local(regrade("done"), "fake/oracle")
    results: list[RunResult] = []

    async with Engine(environ={}) as engine:

        async def one() -> None:
            results.append(await engine.rejudge(RejudgeOptions(run=folder, runs_dir=folder.parent)))

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(one)
    assert [result.score for result in results] == [1.0] * 8
    assert len(list((folder / "rejudged").iterdir())) == 8


async def test_the_task_is_found_where_the_run_found_it_or_where_one_says(
    regrade: Callable[..., Path], run_local: "RunLocal", tmp_path: Path
) -> None:
    task = regrade("done")
    _, folder = await run_local(task, "fake/oracle")
    moved = tmp_path / "elsewhere" / task.name
    shutil.move(task, moved)
    with pytest.raises(TaskError):
        await rejudged(folder)
    new, _ = await rejudged(folder, task=moved)
    assert new.passed is True


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "result.json").unlink(), "has no result"),
        (lambda folder: shutil.rmtree(folder / "workspace_final"), "no workspace_final any more"),
    ],
)
async def test_what_cannot_be_judged_again_is_refused_by_name(
    spoil: Callable[[Path], None], words: str, regrade: Callable[..., Path], run_local: "RunLocal"
) -> None:
    _, folder = await run_local(regrade("done"), "fake/oracle")
    spoil(folder)
    with pytest.raises(UsageError, match=words):
        await rejudged(folder)
    assert not (folder / "rejudged").exists()


async def test_unfinished_work_and_work_whose_services_are_gone_are_refused(
    make_task: "MakeTask", run_local: "RunLocal", regrade: Callable[..., Path], loopback: "LoopbackServer"
) -> None:
    loopback.always(loopback.error(400, "no"))
    _, failed = await run_local(regrade("done"), "openai/gpt-4o", base_url=loopback.url, api_key="k")
    with pytest.raises(UsageError, match="ended as error before its work was judged"):
        await rejudged(failed)
    _, folder = await run_local(regrade("done"), "fake/oracle")
    other = make_task("another")
    with pytest.raises(UsageError, match="not of 'another'"):
        await rejudged(folder, task=other)
    regrade("done", environment={"services": {"db": {"image": "fbench/postgres:1"}}, "container_only": True})
    with pytest.raises(UsageError, match="has services, whose state"):
        await rejudged(folder, sandbox="auto")


def test_the_command_judges_all_runs_of_a_suite_run_and_one_failure_stops_no_other(
    regrade: Callable[..., Path], make_script: "MakeScript", tmp_path: Path
) -> None:
    suite_run_id = "2026-01-01T00-00-00Z__suite__small__0a0a"
    runs_dir = tmp_path / "runs"
    idle = make_script([{"content": "no"}])
    ids = []

    async def run_three() -> None:
        async with Engine(environ={}) as engine:
            for attempt, model in enumerate(["fake/oracle", idle, "fake/oracle"], start=1):
                options = {"task": regrade("other"), "model": model, "sandbox": "local", "runs_dir": runs_dir}
                given = RunOptions.model_validate({**options, "attempt": attempt, "suite_run_id": suite_run_id})
                ids.append((await engine.run(given)).run_id)

    anyio.run(run_three)
    regrade("done")
    shutil.rmtree(runs_dir / ids[2] / "workspace_final")
    arguments = ["--suite", suite_run_id, "--runs-dir", str(runs_dir), "--json", "--concurrency", "2"]
    told = CliRunner().invoke(rejudge_command, arguments)
    assert told.exit_code == 3, told.output
    document = json.loads(told.stdout)
    by_id = {item["run_id"]: item for item in document["rejudged"]}
    assert list(by_id) == sorted(ids)
    assert by_id[ids[0]]["before"]["passed"] is False
    assert by_id[ids[0]]["after"]["passed"] is True
    assert by_id[ids[1]]["after"]["score"] == 0
    assert "workspace_final" in by_id[ids[2]]["problem"]
    arguments.remove("--json")
    assert (
        "2 of 3 runs judged again, 1 of them with another verdict"
        in CliRunner().invoke(rejudge_command, arguments).stdout
    )


def test_the_command_wants_a_run_or_a_suite_run(tmp_path: Path) -> None:
    for arguments in ([], ["x", "--suite", "y"]):
        told = CliRunner().invoke(rejudge_command, [*arguments, "--runs-dir", str(tmp_path)])
        assert isinstance(told.exception, UsageError)
        assert "say which run" in str(told.exception)
