"""What `suite run` and `suite resume` do alike: run what is owed, write the reports, say how it went."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click

from fbench.engine.commands.options import Number, json_option, option, quiet_option

if TYPE_CHECKING:
    from fbench.suites.attempts import Standing
    from fbench.suites.outcomes import SuiteOutcome
    from fbench.suites.plan import SuitePlan

_ROUNDING = 1e-9
"""A mean that is the bar but for rounding meets it."""

Decorated = TypeVar("Decorated", bound=Callable[..., object])

_OPTIONS = (
    option("--concurrency", type=click.IntRange(min=1), help="Runs at once [default: by the tasks' cores and memory]."),
    option("--retry-errors", type=click.IntRange(min=0), help="Try a run that ended in error again, N times."),
    option("--fail-under", type=Number(0, 1), help="Exit with 1 when the mean score is below."),
    option(
        "--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write the results as JUnit XML to a file."
    ),
    json_option,
    quiet_option,
)


def execution_options(command: Decorated) -> Decorated:
    """Give a command the options of `Execution`."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command


@dataclass(frozen=True, slots=True)
class Execution:
    """How a plan is carried out and told of."""

    concurrency: int | None
    retry_errors: int | None
    fail_under: float | None
    junit: Path | None
    as_json: bool
    quiet: bool


def carry_out(plan: "SuitePlan", standing: "Standing", runs_dir: Path, execution: Execution) -> NoReturn:
    """Run what the plan still owes by its `standing`, write the reports, print the summary, exit as the contract says.

    The caller holds the suite run's lock.
    """
    import anyio  # noqa: PLC0415 - late, as all below: help stays cheap

    from fbench.suites.junit import write_junit  # noqa: PLC0415
    from fbench.suites.loading import outcome_of, record_outcome  # noqa: PLC0415
    from fbench.suites.report import conclude  # noqa: PLC0415
    from fbench.suites.summary import summarise, words_of  # noqa: PLC0415
    from fbench.suites.writing import require_writable  # noqa: PLC0415

    if execution.junit is not None:
        require_writable(execution.junit, "--junit")
    anyio.run(record_outcome, runs_dir, outcome_of(plan, standing))
    code = _run_owed(plan, standing, runs_dir, execution)
    outcome, written = anyio.run(conclude, runs_dir, plan.suite_run_id)
    if execution.junit is not None:
        write_junit(outcome, execution.junit)
        written = [*written, execution.junit]
    summary = summarise(outcome, written)
    click.echo(json.dumps(summary, indent=2, ensure_ascii=True) if execution.as_json else words_of(summary))
    if outcome.finished_at is None and not execution.quiet:
        click.echo(f"runs are owed: fbench suite resume {plan.suite_run_id}{_where(runs_dir)}", err=True)
    sys.exit(code if code is not None else exit_code_of(outcome, execution.fail_under))


def exit_code_of(outcome: "SuiteOutcome", fail_under: float | None) -> int:
    """The contract's exit code of a suite run that was not interrupted."""
    from fbench.suites.figures import mean_score  # noqa: PLC0415 - late: help stays cheap

    results = outcome.results.values()
    if outcome.finished_at is None or any(result.status == "error" for result in results):
        return 3
    score = mean_score(outcome)
    return 1 if fail_under is not None and (score is None or score < fail_under - _ROUNDING) else 0


def _run_owed(plan: "SuitePlan", standing: "Standing", runs_dir: Path, execution: Execution) -> int | None:
    """Run what is owed; the exit code of a signal, None without one."""
    import anyio  # noqa: PLC0415 - late, as all below: help stays cheap
    import anyio.to_thread  # noqa: PLC0415

    from fbench.engine.commands.signals import run_interruptible  # noqa: PLC0415
    from fbench.engine.engine import Engine  # noqa: PLC0415
    from fbench.engine.registry import load_part  # noqa: PLC0415
    from fbench.suites.fan_out import FanOut  # noqa: PLC0415
    from fbench.suites.live import SuiteView  # noqa: PLC0415

    owed = standing.owed(plan)
    if not owed:
        return None
    view = SuiteView(
        len(plan.cells),
        done=len(standing.final),
        spent_usd=standing.spent_usd,
        cap_usd=plan.max_suite_cost,
        quiet=execution.quiet,
    )
    concurrency = execution.concurrency or plan.concurrency
    view.say(f"suite run {plan.suite_run_id}: {len(owed)} of {len(plan.cells)} runs to do, {concurrency} at once")
    if plan.max_suite_cost is not None and not standing.is_spend_known:
        view.say("warning: what some earlier runs spent is not known, so the cap on dollars holds for the rest only")

    async def work() -> None:
        await anyio.to_thread.run_sync(load_part("sweep_scratch"))  # what killed runs left; a look into one folder
        async with Engine(environ=os.environ) as engine:
            fan_out = FanOut(engine, plan, runs_dir, plan.purse(standing.spent_usd), execution.retry_errors or 0, view)
            await fan_out.run(owed, concurrency)

    try:
        finished = anyio.run(run_interruptible, work, view.tick)
    finally:
        view.close()
    return finished.exit_code


def _where(runs_dir: Path) -> str:
    from fbench.engine.options import DEFAULT_RUNS_DIR  # noqa: PLC0415 - late: help stays cheap

    return "" if runs_dir == DEFAULT_RUNS_DIR else f" --runs-dir {runs_dir}"
