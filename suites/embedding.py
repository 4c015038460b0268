"""A suite inside another async program: planned, run on the caller's loop, reported; what `Engine.run_suite` does."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from fbench.suites.attempts import assess
from fbench.suites.fan_out import FanOut
from fbench.suites.loading import outcome_of, record_outcome
from fbench.suites.lock import hold_suite_run
from fbench.suites.manifest import find_suite, load_suite
from fbench.suites.outcomes import SuiteOutcome
from fbench.suites.plan import Cell, write_plan
from fbench.suites.planning import SuiteRequest, prepare_suite
from fbench.suites.report import conclude

if TYPE_CHECKING:
    from fbench.engine.engine import Engine
    from fbench.engine.suite_options import SuiteOptions
    from fbench.suites.fan_out import SuiteEvent, SuiteWatcher


def ignore(_cell: Cell, _event: "SuiteEvent") -> None:
    """The watcher of a suite nobody watches."""


async def run_suite(
    engine: "Engine", options: "SuiteOptions", environ: Mapping[str, str], watch: "SuiteWatcher" = ignore
) -> SuiteOutcome:
    """Plan the suite, run all of it, write the reports. Cancelled, it leaves what `fbench suite resume` goes on with.

    Raises:
        UsageError: it cannot be run as asked; nothing was spent.
    """
    request = SuiteRequest(
        options={**options.run_options, "runs_dir": options.runs_dir},
        models=options.models,
        attempts=options.attempts,
        concurrency=options.concurrency,
        max_suite_cost=options.max_suite_cost,
    )
    suite = await anyio.to_thread.run_sync(lambda: load_suite(find_suite(str(options.suite))))
    prepared = await prepare_suite(suite, request, environ)
    plan, runs_dir = prepared.plan, Path(options.runs_dir)
    with hold_suite_run(runs_dir / plan.suite_run_id):
        await anyio.to_thread.run_sync(write_plan, runs_dir, plan)
        await record_outcome(runs_dir, outcome_of(plan, assess(plan, ())))
        fan_out = FanOut(engine, plan, runs_dir, plan.purse(), options.retry_errors, watch)
        await fan_out.run(plan.cells, options.concurrency or plan.concurrency)
        return (await conclude(runs_dir, plan.suite_run_id)).outcome
