"""A suite run in figures: the one model that report.md, report.html and report.json are written from."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from fbench.engine.results import Record, RunResult
from fbench.suites.findings import notes_on
from fbench.suites.outcomes import PlannedRun, SuiteOutcome
from fbench.suites.rates import Rates, rates_of
from fbench.suites.standing import (
    CellRuns,
    Spend,
    Standing,
    group_by_cell,
    samples_of,
    spend_of,
    standing_of,
    total_spend,
)

SUMMARY_SCHEMA_VERSION = 1

DIFFICULTIES = ("easy", "medium", "hard")


class RunLine(Record):
    """One planned run. `folder` is relative to the report, None where it is not known; what never ran has no id."""

    attempt: int
    standing: Standing
    run_id: str | None = None
    folder: str | None = None
    status: str | None = None
    passed: bool | None = None
    score: float | None = None
    tokens: int | None = None
    cost_usd: float | None = None
    judge_cost_usd: float | None = None
    cost_status: str | None = None
    duration_s: float | None = None
    kill_reason: str | None = None
    error_kind: str | None = None


class Counts(Record):
    """Planned runs by what they count as: `planned` = `judged` + `errors` + `owed`."""

    planned: int
    judged: int
    passes: int
    errors: int
    owed: int


class Cell(Record):
    """One model at one task. Scores are means of its runs; `spend` has earlier tries in it."""

    task_id: str
    model: str
    counts: Counts
    score: float | None
    score_errors_as_failures: float | None
    spend: Spend
    kill_reasons: dict[str, int]
    error_kinds: dict[str, int]
    runs: tuple[RunLine, ...]


class ModelSummary(Record):
    """One model over all tasks, or over those of one kind.

    Attributes:
        solved_tasks: tasks with at least one pass.
        spend: of all its runs, failed and earlier ones too.
        earlier: the part of `spend` that later tries replaced.
        usd_per_pass: dollars, agent and judge, for each passed run; None when they are unknown or nothing passed.
        usd_per_solved_task: dollars for each solved task, likewise.
    """

    model: str
    tasks: int
    counts: Counts
    solved_tasks: int
    errors_left_out: Rates
    errors_as_failures: Rates
    spend: Spend
    earlier: Spend
    usd_per_pass: float | None
    usd_per_solved_task: float | None
    kill_reasons: dict[str, int]
    error_kinds: dict[str, int]


class Rollup(Record):
    """The models over the tasks that share a difficulty or a domain."""

    by: Literal["difficulty", "domain"]
    name: str
    task_ids: tuple[str, ...]
    models: tuple[ModelSummary, ...]


class TaskLine(Record):
    """What is said of a task."""

    task_id: str
    title: str
    difficulty: str
    domain: str
    tags: tuple[str, ...]


class SuiteSummary(Record):
    """A suite run in figures.

    Attributes:
        mean_score: over all tasks and models, errors left out; what `--fail-under` looks at.
        spend: of everything, replaced and lost runs too; no model is told `lost_usd`, the dollars of runs that ended
            without a result, as a killed process leaves them.
        notes: what a reader has to know before trusting any figure.
    """

    schema_version: int = SUMMARY_SCHEMA_VERSION
    suite_run_id: str
    suite: str
    started_at: str
    finished_at: str | None
    attempts: int
    max_cost_usd: float | None
    counts: Counts
    mean_score: float | None
    spend: Spend
    lost_usd: float | None
    earlier: Spend
    notes: tuple[str, ...]
    tasks: tuple[TaskLine, ...]
    models: tuple[ModelSummary, ...]
    rollups: tuple[Rollup, ...]
    cells: tuple[Cell, ...]


def summarize(outcome: SuiteOutcome, folder: Path | None = None) -> SuiteSummary:
    """The suite run in figures; links to run folders are relative to `folder`, the report's."""
    cells = group_by_cell(outcome)
    task_ids = [task.task_id for task in outcome.tasks]
    return SuiteSummary(
        suite_run_id=outcome.suite_run_id,
        suite=outcome.suite,
        started_at=outcome.started_at,
        finished_at=outcome.finished_at,
        attempts=outcome.attempts,
        max_cost_usd=outcome.max_cost_usd,
        counts=_counts(list(cells.values())),
        mean_score=mean_score(outcome),
        spend=total_spend(outcome),
        lost_usd=outcome.lost_cost_usd,
        earlier=spend_of(outcome.earlier),
        notes=notes_on(outcome),
        tasks=tuple(TaskLine.model_validate(task, from_attributes=True) for task in outcome.tasks),
        models=tuple(_model(model, [cells[task, model] for task in task_ids], outcome) for model in outcome.models),
        rollups=tuple(_rollups(outcome, cells)),
        cells=tuple(
            _cell(task, model, cells[task, model], outcome, folder) for task in task_ids for model in outcome.models
        ),
    )


def mean_score(outcome: SuiteOutcome) -> float | None:
    """The mean score of the judged runs, as `--fail-under` compares it: each task of each model counts the same."""
    scores = [samples_of(cell, "errors_left_out") for cell in group_by_cell(outcome).values()]
    means = [math.fsum(sample.score for sample in samples) / len(samples) for samples in scores if samples]
    return math.fsum(means) / len(means) if means else None


def _model(model: str, cells: Sequence[CellRuns], outcome: SuiteOutcome) -> ModelSummary:
    """The model over the tasks of `cells`."""
    counts = _counts(cells)
    earlier = [result for cell in cells for result in cell.earlier]
    results = [result for cell in cells for _, result in cell.runs if result is not None]
    spend = spend_of([*results, *earlier])
    solved = sum(any(sample.passed for sample in samples_of(cell, "errors_left_out")) for cell in cells)
    return ModelSummary(
        model=model,
        tasks=len(cells),
        counts=counts,
        solved_tasks=solved,
        errors_left_out=rates_of([samples_of(cell, "errors_left_out") for cell in cells], outcome.attempts),
        errors_as_failures=rates_of([samples_of(cell, "errors_as_failures") for cell in cells], outcome.attempts),
        spend=spend,
        earlier=spend_of(earlier),
        usd_per_pass=_share(spend.total_usd, counts.passes),
        usd_per_solved_task=_share(spend.total_usd, solved),
        kill_reasons=_tally(result.kill_reason for result in results),
        error_kinds=_tally(_error_kind(result) for result in results),
    )


def _rollups(outcome: SuiteOutcome, cells: dict[tuple[str, str], CellRuns]) -> Iterable[Rollup]:
    def rollup(by: Literal["difficulty", "domain"], name: str) -> Rollup:
        task_ids = tuple(task.task_id for task in outcome.tasks if getattr(task, by) == name)
        models = tuple(_model(model, [cells[task, model] for task in task_ids], outcome) for model in outcome.models)
        return Rollup(by=by, name=name, task_ids=task_ids, models=models)

    levels = {task.difficulty for task in outcome.tasks}
    for name in sorted(levels, key=lambda name: (DIFFICULTIES.index(name) if name in DIFFICULTIES else 9, name)):
        yield rollup("difficulty", name)
    for name in sorted({task.domain for task in outcome.tasks}):
        yield rollup("domain", name)


def _cell(task_id: str, model: str, runs: CellRuns, outcome: SuiteOutcome, folder: Path | None) -> Cell:
    summary = _model(model, [runs], outcome)
    return Cell(
        task_id=task_id,
        model=model,
        counts=summary.counts,
        score=summary.errors_left_out.score.value,
        score_errors_as_failures=summary.errors_as_failures.score.value,
        spend=summary.spend,
        kill_reasons=summary.kill_reasons,
        error_kinds=summary.error_kinds,
        runs=tuple(_line(planned, result, outcome, folder) for planned, result in runs.runs),
    )


def _line(planned: PlannedRun, result: RunResult | None, outcome: SuiteOutcome, folder: Path | None) -> RunLine:
    if result is None:
        return RunLine(attempt=planned.attempt, standing=standing_of(result))
    place = outcome.folders.get(result.run_id)
    return RunLine(
        attempt=planned.attempt,
        standing=standing_of(result),
        run_id=result.run_id,
        folder=None if place is None or folder is None else os.path.relpath(place, folder),
        status=result.status,
        passed=result.passed,
        score=result.score,
        tokens=result.tokens.total,
        cost_usd=result.cost_usd,
        judge_cost_usd=result.judge_cost_usd,
        cost_status=result.cost_status,
        duration_s=result.duration_s,
        kill_reason=result.kill_reason,
        error_kind=_error_kind(result),
    )


def _counts(cells: Sequence[CellRuns]) -> Counts:
    standings = Counter(standing_of(result) for cell in cells for _, result in cell.runs)
    return Counts(
        planned=sum(standings.values()),
        judged=standings[Standing.JUDGED],
        passes=sum(sample.passed for cell in cells for sample in samples_of(cell, "errors_left_out")),
        errors=standings[Standing.ERROR],
        owed=standings[Standing.OWED],
    )


def _error_kind(result: RunResult | None) -> str | None:
    """Why a run that counts as an error has no verdict."""
    if result is None or standing_of(result) is not Standing.ERROR:
        return None
    return result.error.kind if result.error is not None else "no_verdict"


def _tally(names: Iterable[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(name for name in names if name is not None).items()))


def _share(usd: float | None, count: int) -> float | None:
    return None if usd is None or count == 0 else usd / count
