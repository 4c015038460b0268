"""What a run of a suite counts as, and the scores and passes that statistics are made of."""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Literal, NamedTuple

from fbench.engine.results import Record, RunResult
from fbench.suites.outcomes import PlannedRun, SuiteOutcome

Policy = Literal["errors_left_out", "errors_as_failures"]
POLICIES: tuple[Policy, ...] = ("errors_left_out", "errors_as_failures")


class Standing(StrEnum):
    """`owed`: it was cancelled or never ran, and says nothing of the model."""

    JUDGED = "judged"
    ERROR = "error"
    OWED = "owed"


class Sample(NamedTuple):
    """What one run says of its model."""

    score: float
    passed: bool


class CellRuns(NamedTuple):
    """One model at one task: each planned run with its result, and results that later tries replaced."""

    runs: tuple[tuple[PlannedRun, RunResult | None], ...]
    earlier: tuple[RunResult, ...]


class Spend(Record):
    """What runs took. Dollars are None as soon as one run's are unknown; `known_usd` is then the least they can be.

    Attributes:
        agent_usd: of the models at work; judges are apart.
        estimated_runs: runs whose dollars come from estimated tokens.
    """

    runs: int
    agent_usd: float | None
    judge_usd: float | None
    total_usd: float | None
    known_usd: float
    unknown_runs: int
    estimated_runs: int
    tokens: int
    duration_s: float


def standing_of(result: RunResult | None) -> Standing:
    """What the planned run with this result, or with none, counts as."""
    if result is None or result.status == "cancelled":
        return Standing.OWED
    if result.status == "error" or result.score is None or result.passed is None:
        return Standing.ERROR
    return Standing.JUDGED


def sample_of(result: RunResult | None, policy: Policy) -> Sample | None:
    """What the run says under `policy`; None where it says nothing."""
    match standing_of(result):
        case Standing.JUDGED:
            assert result is not None
            return Sample(result.score or 0.0, bool(result.passed))
        case Standing.ERROR if policy == "errors_as_failures":
            return Sample(0.0, passed=False)
        case _:
            return None


def group_by_cell(outcome: SuiteOutcome) -> dict[tuple[str, str], CellRuns]:
    """The runs of each task and model of the suite, also of those without any."""
    runs: dict[tuple[str, str], list[tuple[PlannedRun, RunResult | None]]] = {}
    earlier: dict[tuple[str, str], list[RunResult]] = {}
    for planned in outcome.planned:
        runs.setdefault((planned.task_id, planned.model), []).append((planned, outcome.results.get(planned)))
    for result in outcome.earlier:
        earlier.setdefault((result.task_id, result.model), []).append(result)
    cells = [(task.task_id, model) for task in outcome.tasks for model in outcome.models]
    return {cell: CellRuns(tuple(runs.get(cell, ())), tuple(earlier.get(cell, ()))) for cell in cells}


def samples_of(cell: CellRuns, policy: Policy) -> list[Sample]:
    """What the cell's runs say, attempts in order."""
    found = (sample_of(result, policy) for _, result in cell.runs)
    return [sample for sample in found if sample is not None]


def usd_of(result: RunResult) -> float | None:
    """The dollars of the run's agent; None where they are not known."""
    return None if result.cost_status == "unknown" else result.cost_usd


def spend_of(results: Sequence[RunResult]) -> Spend:
    """What the runs took together, whatever they count as."""
    agent = [usd_of(result) for result in results]
    judge = [result.judge_cost_usd for result in results]
    agent_usd, judge_usd = _sum_if_known(agent), _sum_if_known(judge)
    return Spend(
        runs=len(results),
        agent_usd=agent_usd,
        judge_usd=judge_usd,
        total_usd=None if agent_usd is None or judge_usd is None else agent_usd + judge_usd,
        known_usd=math.fsum(usd for usd in (*agent, *judge) if usd is not None),
        unknown_runs=sum(None in pair for pair in zip(agent, judge, strict=True)),
        estimated_runs=sum(result.cost_status == "estimated" for result in results),
        tokens=sum(result.tokens.total for result in results),
        duration_s=math.fsum(result.duration_s for result in results),
    )


def total_spend(outcome: SuiteOutcome) -> Spend:
    """What the suite run took: replaced runs, and the dollars of runs that ended without a result, too."""
    spend = spend_of([*outcome.results.values(), *outcome.earlier])
    lost = outcome.lost_cost_usd
    total = None if lost is None or spend.total_usd is None else spend.total_usd + lost
    return spend.model_copy(update={"total_usd": total, "known_usd": spend.known_usd + (lost or 0.0)})


def _sum_if_known(amounts: Sequence[float | None]) -> float | None:
    known = [usd for usd in amounts if usd is not None]
    return math.fsum(known) if len(known) == len(amounts) else None
