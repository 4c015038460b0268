"""Many runs on one loop: so many at once, started fairly over models and tasks, none touched by another's failure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from fbench.engine.errors import FbenchError, words_of_unforeseen
from fbench.engine.events import Event
from fbench.engine.logs import get_logger
from fbench.pricing.errors import PricingError
from fbench.suites.plan import Cell, SuitePlan
from fbench.tasks.errors import TaskError

if TYPE_CHECKING:
    from fbench.engine.engine import Engine
    from fbench.engine.purse import Purse

RETRY_BASE_S = 5.0
"""The wait before a run that ended in `error` is tried again; it doubles each time."""
RETRY_CAP_S = 300.0

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunRefused:
    """A run could not begin; it has no folder and stays owed."""

    why: str


@dataclass(frozen=True, slots=True)
class RunRetried:
    """A run ended in `error` and is tried again in `wait_s` seconds."""

    try_: int
    wait_s: float


SuiteEvent = Event | RunRefused | RunRetried
SuiteWatcher = Callable[[Cell, SuiteEvent], None]


@dataclass(frozen=True, slots=True)
class FanOut:
    """What the runs of a suite run have in common.

    Attributes:
        retry_errors: how often a run that ended in `error` is tried again at once.
        watch: told of every event of every run; must not block.
    """

    engine: "Engine"
    plan: SuitePlan
    runs_dir: Path
    purse: "Purse | None"
    retry_errors: int
    watch: SuiteWatcher

    async def run(self, owed: Sequence[Cell], concurrency: int) -> None:
        """Run what is owed. What happened is in the run folders."""
        slots = anyio.Semaphore(concurrency)
        async with anyio.create_task_group() as group:  # owns one task a run that has begun
            for cell in interleave(owed):
                await slots.acquire()
                group.start_soon(self._run_cell, cell, slots, name=str(cell.run))

    async def _run_cell(self, cell: Cell, slots: anyio.Semaphore) -> None:
        """One planned run, tried again where that was asked for. Comes with a slot, and gives it back."""
        for try_ in range(1, self.retry_errors + 2):
            try:
                is_error = await self._run_once(cell)
            finally:
                slots.release()
            if not is_error or try_ > self.retry_errors:
                return
            wait_s = min(RETRY_BASE_S * 2 ** (try_ - 1), RETRY_CAP_S)
            self.watch(cell, RunRetried(try_, wait_s))
            await anyio.sleep(wait_s)
            await slots.acquire()

    async def _run_once(self, cell: Cell) -> bool:
        """Whether the run ended in `error`. One that could not begin is told of and no error of the others."""
        try:
            result = await self.engine.run(
                self.plan.options(cell, self.runs_dir), lambda event: self.watch(cell, event), purse=self.purse
            )
        except (FbenchError, TaskError, PricingError, OSError) as error:
            self.watch(cell, RunRefused(str(error)))
            return False
        except Exception as error:
            log.exception("run.crashed", task=cell.task_id, model=cell.model, attempt=cell.attempt, exc_info=error)
            self.watch(cell, RunRefused(words_of_unforeseen(error)))
            return False
        return result.status == "error"


def interleave(cells: Iterable[Cell]) -> list[Cell]:
    """The order in which runs start: of every stretch of it, each model and each task has its share.

    First attempts go before second ones; within an attempt the table of tasks and models is walked diagonally.
    """
    listed = list(cells)
    tasks = {task: number for number, task in enumerate(dict.fromkeys(cell.task_id for cell in listed))}
    models = {model: number for number, model in enumerate(dict.fromkeys(cell.model for cell in listed))}

    def place(cell: Cell) -> tuple[int, int, int]:
        task, model = tasks[cell.task_id], models[cell.model]
        return cell.attempt, (model - task) % len(models), task

    return sorted(listed, key=place)
