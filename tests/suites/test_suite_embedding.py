"""A suite inside another async program."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from fbench.engine import Engine, RunFinished, SuiteOptions
from fbench.engine.errors import UsageError
from fbench.suites.loading import load_suite_outcome
from fbench.suites.plan import suite_runs_in

if TYPE_CHECKING:
    from tests.suites.conftest import Workshop


def options(workshop: "Workshop", **more: Any) -> SuiteOptions:
    for name in ("one", "two"):
        workshop.task(name)
    given = {"suite": workshop.suite(), "models": ("fake/oracle", "fake/nop"), "runs_dir": workshop.runs_dir}
    return SuiteOptions.model_validate({**given, "run_options": {"sandbox": "local"}, **more})


async def test_a_suite_runs_on_the_callers_loop_and_leaves_its_report(workshop: "Workshop") -> None:
    ended: list[Any] = []
    async with Engine(environ={}) as engine:
        outcome = await engine.run_suite(
            options(workshop, attempts=2, concurrency=3),
            lambda cell, event: ended.append(cell.run) if isinstance(event, RunFinished) else None,
        )
    assert [result.score for result in (outcome.results[run] for run in outcome.planned)] == [1, 1, 0, 0] * 2
    assert sorted(ended) == sorted(outcome.planned)
    folder = workshop.runs_dir / outcome.suite_run_id
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["suite_run_id"] == outcome.suite_run_id
    assert (folder / "report.html").is_file()


async def test_a_cancelled_suite_is_left_for_a_resume(workshop: "Workshop", tmp_path: Path) -> None:
    script = tmp_path / "slow.yaml"
    script.write_text("turns: [{tool_calls: [{name: bash, arguments: {command: sleep 600}}]}]")
    given = options(workshop, models=(f"fake/script:{script}",))
    async with Engine(environ={}) as engine:
        with anyio.CancelScope() as scope:
            await engine.run_suite(
                given, lambda _cell, event: scope.cancel() if "Tool" in type(event).__name__ else None
            )
        assert scope.cancelled_caught
    [suite_run_id] = suite_runs_in(workshop.runs_dir)
    outcome = await anyio.to_thread.run_sync(load_suite_outcome, workshop.runs_dir, suite_run_id)
    assert outcome.finished_at is None
    assert {result.status for result in outcome.results.values()} <= {"cancelled"}


async def test_what_cannot_run_is_raised_and_nothing_is_written(workshop: "Workshop") -> None:
    async with Engine(environ={}) as engine:
        with pytest.raises(UsageError, match="unknown provider"):
            await engine.run_suite(options(workshop, models=("nobody/x",)))
    assert suite_runs_in(workshop.runs_dir) == []
