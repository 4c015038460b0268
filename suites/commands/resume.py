"""`fbench suite resume`: do what is owed, and nothing else."""

import os
from pathlib import Path
from typing import Any

import click

from fbench.engine.commands.options import Dollars, OrNone, option, runs_dir_option
from fbench.engine.commands.run_options import secret_variables
from fbench.suites.commands.execution import Execution, carry_out, execution_options


@click.command()
@click.argument("suite_run_id", metavar="ID")
@runs_dir_option
@option("--max-suite-cost", type=OrNone(Dollars()), help="Another cap; a higher one runs again what the old one ended.")
@option("--accept-changes", is_flag=True, help="Go on although tasks or settings have changed since the plan.")
@execution_options
def resume(
    *,
    suite_run_id: str,
    runs_dir: Path | None,
    max_suite_cost: Any,  # noqa: ANN401 - click's value
    accept_changes: bool,
    concurrency: int | None,
    retry_errors: int | None,
    fail_under: float | None,
    junit: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Go on with a suite run that was interrupted, in whatever way: every planned run without a verdict is run.

    ID is a suite run's id, or the beginning of just one. Runs that ended in error are tried again.
    """
    import anyio  # noqa: PLC0415 - late, as all below: help stays cheap

    from fbench.engine.commands.environment import blank_secrets_in_proc  # noqa: PLC0415
    from fbench.engine.commands.logging import log_to_stderr  # noqa: PLC0415
    from fbench.engine.options import DEFAULT_RUNS_DIR  # noqa: PLC0415
    from fbench.suites import resuming  # noqa: PLC0415
    from fbench.suites.attempts import assess, find_runs  # noqa: PLC0415
    from fbench.suites.lock import hold_suite_run  # noqa: PLC0415
    from fbench.suites.plan import find_suite_run, read_plan, write_plan  # noqa: PLC0415
    from fbench.suites.planning import check_runs  # noqa: PLC0415

    log_to_stderr(quiet=quiet)
    folder = find_suite_run(runs_dir or DEFAULT_RUNS_DIR, suite_run_id)
    with hold_suite_run(folder):
        plan = before = read_plan(folder)
        blank_secrets_in_proc(secret_variables(plan.config))
        changes = resuming.find_changes(plan)
        if not accept_changes:
            resuming.refuse_changes(plan, changes)
        elif changes:
            plan = resuming.accept_changes(plan)
        found = find_runs(folder.parent, plan.suite_run_ids)
        if max_suite_cost is not None:
            cap = None if max_suite_cost == "none" else max_suite_cost
            plan = resuming.with_cap(plan, cap, assess(plan, found).spent_usd)
        standing = assess(plan, found)
        anyio.run(check_runs, plan, standing.owed(plan), folder.parent, os.environ)
        if plan is not before:
            write_plan(folder.parent, plan)
        execution = Execution(concurrency, retry_errors, fail_under, junit, as_json, quiet)
        carry_out(plan, standing, folder.parent, execution)
