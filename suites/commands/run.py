"""`fbench suite run`: plan a suite and run it."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fbench.engine.commands.options import Dollars, OrNone, option
from fbench.engine.commands.run_options import run_options, secret_variables, stated_options
from fbench.suites.commands.execution import Execution, carry_out, execution_options

if TYPE_CHECKING:
    from fbench.suites.planning import PreparedSuite


@click.command()
@click.argument("file", metavar="FILE")
@option(
    "--model",
    "models",
    multiple=True,
    help="As for `fbench run`; may be repeated, the variable takes several. Replaces the suite's.",
)
@option("--attempts", type=click.IntRange(min=1), help="Repeats of each task with each model.")
@option("--max-suite-cost", type=OrNone(Dollars()), help="Cap on the dollars of all runs together.")
@option("--shard", metavar="I/N", help="Run every N-th run only, from the I-th on; `suite merge` joins the parts.")
@option("--dry-run", is_flag=True, help="Show the plan, the images and the dollars, and run nothing.")
@execution_options
@run_options
def run(
    *,
    file: str,
    models: tuple[str, ...],
    attempts: int | None,
    max_suite_cost: Any,  # noqa: ANN401 - click's values, here and below
    shard: str | None,
    dry_run: bool,
    concurrency: int | None,
    retry_errors: int | None,
    fail_under: float | None,
    junit: Path | None,
    as_json: bool,
    quiet: bool,
    **given: Any,  # noqa: ANN401
) -> None:
    """Run a suite: FILE, or a built-in suite's name.

    A number given here replaces the suite's and the tasks'; `none` lifts it.
    """
    import anyio  # noqa: PLC0415 - late, as all below: help stays cheap

    from fbench.engine.commands.environment import blank_secrets_in_proc  # noqa: PLC0415
    from fbench.engine.commands.logging import log_to_stderr  # noqa: PLC0415
    from fbench.engine.models.recording import open_recorder  # noqa: PLC0415
    from fbench.engine.options import DEFAULT_RUNS_DIR  # noqa: PLC0415
    from fbench.suites.attempts import assess  # noqa: PLC0415
    from fbench.suites.lock import hold_suite_run  # noqa: PLC0415
    from fbench.suites.manifest import find_suite, load_suite  # noqa: PLC0415
    from fbench.suites.plan import write_plan  # noqa: PLC0415
    from fbench.suites.planning import SuiteRequest, prepare_suite  # noqa: PLC0415

    log_to_stderr(quiet=quiet)
    options = stated_options(given)
    blank_secrets_in_proc(secret_variables(options.get("config")))
    request = SuiteRequest(
        options=options,
        models=models,
        attempts=attempts,
        concurrency=concurrency,
        max_suite_cost=max_suite_cost,
        shard=shard,
    )
    suite = load_suite(find_suite(file))
    prepared = anyio.run(prepare_suite, suite, request, os.environ)
    runs_dir = options.get("runs_dir", DEFAULT_RUNS_DIR)
    if dry_run:
        _show(prepared, runs_dir, as_json=as_json)
        return
    if "record" in options:
        with open_recorder(options["record"]):  # one that cannot be written is told before anything is spent
            pass
    execution = Execution(concurrency, retry_errors, fail_under, junit, as_json, quiet)
    with hold_suite_run(runs_dir / prepared.plan.suite_run_id):
        write_plan(runs_dir, prepared.plan)
        carry_out(prepared.plan, assess(prepared.plan, ()), runs_dir, execution)


def _show(prepared: "PreparedSuite", runs_dir: Path, *, as_json: bool) -> None:
    import anyio  # noqa: PLC0415 - late: help stays cheap

    from fbench.suites.forecast import forecast, words_of  # noqa: PLC0415

    document = anyio.run(forecast, prepared, runs_dir)
    click.echo(json.dumps(document, indent=2, ensure_ascii=True) if as_json else words_of(document))
