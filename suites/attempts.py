"""What the run folders say of a suite run: which runs were made, what they ended with, what is still owed.

Nothing here looks at the index: folders are the truth.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from fbench.engine.logs import get_logger
from fbench.engine.records.ledger import LedgerTotals, LedgerUnreadable, read_ledger
from fbench.engine.records.reading import LEDGER, Unreadable, read_result, read_started, run_folders
from fbench.engine.results import RunResult
from fbench.suites.outcomes import PlannedRun
from fbench.suites.plan import Cell, SuitePlan

log = get_logger(__name__)

OUT_OF_DOLLARS = "budget_exceeded:suite_cost"


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run folder of the suite run. `result` is None where it ended without one; `spent_usd` is what its ledger
    holds, agent and judge, None where that cannot be known."""

    folder: Path
    run: PlannedRun
    suite_run_id: str
    result: RunResult | None
    spent_usd: Decimal | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a suite run has come.

    Attributes:
        results: the result each planned run has, a final one before any other, else the newest.
        final: the planned runs that are done.
        earlier: the other results.
        lost_usd: what runs without a result spent, None where that cannot be known.
        spent_usd: what all runs spent that is known; `is_spend_known` says whether that is all.
    """

    results: dict[PlannedRun, RunResult]
    final: frozenset[PlannedRun]
    earlier: tuple[RunResult, ...]
    folders: dict[str, Path]
    lost_usd: Decimal | None
    spent_usd: Decimal
    is_spend_known: bool

    def owed(self, plan: SuitePlan) -> tuple[Cell, ...]:
        """What is still to be run, in the plan's order."""
        return tuple(cell for cell in plan.cells if cell.run not in self.final)


def find_runs(runs_dir: Path, suite_run_ids: Collection[str]) -> list[FoundRun]:
    """Every run folder of these suite runs, oldest first. Blocking.

    Raises:
        Unreadable: the runs folder cannot be listed.
    """
    found = (_look_at(folder, suite_run_ids) for folder in run_folders(runs_dir))
    return [run for run in found if run is not None]


def assess(plan: SuitePlan, found: Iterable[FoundRun]) -> Standing:
    """Hold the plan against what was found."""
    cells = {cell.run for cell in plan.cells}
    hashes = {task.task_id: task.task_hash for task in plan.tasks}
    results: dict[PlannedRun, RunResult] = {}
    final: set[PlannedRun] = set()
    earlier: list[RunResult] = []
    folders: dict[str, Path] = {}
    lost_usd: Decimal | None = Decimal(0)
    spent_usd, is_known = Decimal(0), True
    for run in found:
        if run.run not in cells:
            continue
        spent_usd, is_known = spent_usd + (run.spent_usd or 0), is_known and run.spent_usd is not None
        if run.result is None:
            lost_usd = None if lost_usd is None or run.spent_usd is None else lost_usd + run.spent_usd
            continue
        folders[run.result.run_id] = run.folder
        if run.result.task_hash != hashes[run.run.task_id]:
            earlier.append(run.result)  # of the task as it was
            continue
        before = results.get(run.run)
        if run.run in final:
            earlier.append(run.result)
            continue
        if before is not None:
            earlier.append(before)
        results[run.run] = run.result
        if is_final(plan, run.result):
            final.add(run.run)
    return Standing(results, frozenset(final), tuple(earlier), folders, lost_usd, spent_usd, is_known)


def is_final(plan: SuitePlan, result: RunResult) -> bool:
    """Whether a result of the plan's task is a verdict that stands."""
    is_undone = (
        result.kill_reason == OUT_OF_DOLLARS
        and plan.cap_changed_at is not None
        and result.finished_at < plan.cap_changed_at
    )
    return result.status in {"completed", "killed"} and not is_undone


def _look_at(folder: Path, suite_run_ids: Collection[str]) -> FoundRun | None:
    started = read_started(folder)
    if started.owner is not None and started.suite_run_id not in suite_run_ids:
        return None
    try:
        result = read_result(folder)
    except Unreadable as error:
        if started.suite_run_id in suite_run_ids:
            log.warning("result.unreadable", folder=str(folder), why=str(error))
        result = None
    if result is not None:
        suite_run_id = result.suite_run_id
        run = PlannedRun(result.task_id, result.model, result.attempt)
    else:
        suite_run_id = started.suite_run_id
        run = PlannedRun(started.task_id or "", started.model or "", started.attempt or 1)
    if suite_run_id is None or suite_run_id not in suite_run_ids:
        return None
    return FoundRun(folder, run, suite_run_id, result, _spent_usd(folder))


def _spent_usd(folder: Path) -> Decimal | None:
    """The dollars in a run's ledger."""
    totals = LedgerTotals()
    try:
        for line in read_ledger(folder / LEDGER):
            totals = totals.plus(line)
    except FileNotFoundError:
        return Decimal(0)
    except (OSError, LedgerUnreadable) as error:
        log.warning("ledger.unreadable", folder=str(folder), why=str(error))
        return None
    if totals.cost_usd is None or totals.judge_cost_usd is None:
        return None
    return totals.cost_usd + totals.judge_cost_usd
