"""What is known of a suite run: what was planned, and the result each planned run ended with.

The one model between running a suite and reporting on it: `fbench.suites` reads it from the run folders, and report,
comparison and JUnit look at nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fbench.engine.results import RunResult


class PlannedRun(NamedTuple):
    """One cell of a suite: a repeat of one model at one task."""

    task_id: str
    model: str
    attempt: int


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What reports say of a task."""

    task_id: str
    title: str
    difficulty: str
    domain: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SuiteOutcome:
    """A suite run, finished or not.

    Attributes:
        tasks: in the suite's order.
        models: in the order asked for.
        attempts: repeats of each (task, model).
        planned: in the plan's order; results are shown in this order.
        results: the newest result of each planned run that has one, `error` and `cancelled` ones too.
        earlier: results that a later try replaced; what they spent counts.
        lost_cost_usd: what runs spent, agent and judge, that ended without a result, as a killed process leaves them;
            None where that cannot be known.
        folders: where each run lies, by run id.
        max_cost_usd: the cap on the whole suite run, None without one.
        finished_at: None while runs are owed.
    """

    suite_run_id: str
    suite: str
    tasks: tuple[TaskFacts, ...]
    models: tuple[str, ...]
    attempts: int
    planned: tuple[PlannedRun, ...]
    results: Mapping[PlannedRun, RunResult]
    earlier: tuple[RunResult, ...] = ()
    lost_cost_usd: float | None = 0.0
    folders: Mapping[str, Path] = field(default_factory=dict)
    max_cost_usd: float | None = None
    started_at: str = ""
    finished_at: str | None = None
