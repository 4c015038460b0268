"""A suite run as reports see it, read from its plan and the run folders."""

from pathlib import Path

import anyio.to_thread

from fbench.engine.records.index import write_suite
from fbench.engine.records.reading import SUITE, SuiteRecord
from fbench.suites.attempts import Standing, assess, find_runs
from fbench.suites.outcomes import SuiteOutcome, TaskFacts
from fbench.suites.plan import SuitePlan, find_suite_run, read_plan
from fbench.suites.writing import write_file


def load_suite_outcome(runs_dir: Path, suite_run_id: str) -> SuiteOutcome:
    """What is known of a suite run, finished or not. `suite_run_id` may be the beginning of just one. Blocking.

    Raises:
        UnknownNameError: there is no such suite run.
        UsageError: its plan cannot be read.
    """
    folder = find_suite_run(runs_dir, suite_run_id)
    plan = read_plan(folder)
    return outcome_of(plan, assess(plan, find_runs(folder.parent, plan.suite_run_ids)))


def outcome_of(plan: SuitePlan, standing: Standing) -> SuiteOutcome:
    """The outcome of a plan that has come so far."""
    has_runs = {cell.task_id for cell in plan.cells}
    is_finished = len(standing.final) == len(plan.cells)
    return SuiteOutcome(
        suite_run_id=plan.suite_run_id,
        suite=plan.suite,
        tasks=tuple(
            TaskFacts(task.task_id, task.title, task.difficulty, task.domain, task.tags)
            for task in plan.tasks
            if task.task_id in has_runs
        ),
        models=plan.models,
        attempts=plan.attempts,
        planned=tuple(cell.run for cell in plan.cells),
        results={cell.run: standing.results[cell.run] for cell in plan.cells if cell.run in standing.results},
        earlier=standing.earlier,
        lost_cost_usd=None if standing.lost_usd is None else float(standing.lost_usd),
        folders=standing.folders,
        max_cost_usd=None if plan.max_suite_cost is None else float(plan.max_suite_cost),
        started_at=plan.created_at,
        finished_at=max(result.finished_at for result in standing.results.values()) if is_finished else None,
    )


async def record_outcome(runs_dir: Path, outcome: SuiteOutcome) -> None:
    """Write how far a suite run is into its folder and into the index."""
    suite = SuiteRecord(
        suite_run_id=outcome.suite_run_id,
        suite=outcome.suite,
        status="unfinished" if outcome.finished_at is None else "finished",
        started_at=outcome.started_at,
        finished_at=outcome.finished_at,
    )
    text = suite.model_dump_json(indent=2) + "\n"
    await anyio.to_thread.run_sync(write_file, runs_dir / outcome.suite_run_id / SUITE, text)
    await write_suite(runs_dir, suite)
