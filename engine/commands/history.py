"""`fbench runs` and `fbench show-run`: what was run, from the index and from the folders."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fbench.engine.commands.options import json_option, runs_dir_option

if TYPE_CHECKING:
    from fbench.engine.records.querying import Sort

DEFAULT_LIMIT = 50
"""Newest runs listed when `--limit` does not say otherwise: a screen or two."""

STATUSES = ("completed", "killed", "cancelled", "error", "running", "unfinished")


@click.command()
@click.option("--task", help="Only runs of this task id.")
@click.option("--model", help="Only runs of this model, like openai/gpt-4o.")
@click.option("--suite", help="Only runs of this suite run's id, or of suites of this name.")
@click.option("--status", type=click.Choice(STATUSES), help="Only runs that ended so.")
@click.option("--passed/--failed", "passed", default=None, help="Only judged runs with this verdict.")
@click.option(
    "--since", metavar="WHEN", help="Only runs started since a day, a time (UTC) or an age: 2026-05-13, 12h, 7d."
)
@click.option(
    "--sort",
    type=click.Choice(["started", "score", "cost", "duration", "tokens"]),
    help="Highest first; runs without the value come last [default: started].",
)
@click.option("--ascending", is_flag=True, help="Lowest or oldest first.")
@click.option("--limit", type=click.IntRange(min=1), help=f"At most so many [default: {DEFAULT_LIMIT}].")
@runs_dir_option
@json_option
def runs(  # noqa: PLR0917 - one parameter an option; click names them
    task: str | None,
    model: str | None,
    suite: str | None,
    status: str | None,
    passed: bool | None,
    since: str | None,
    sort: "Sort | None",
    limit: int | None,
    runs_dir: Path | None,
    *,
    ascending: bool,
    as_json: bool,
) -> None:
    """List runs from the index, newest first or by --sort."""
    import anyio  # noqa: PLC0415 - late, as all below: `fbench --help` stays cheap

    from fbench.engine.options import DEFAULT_RUNS_DIR  # noqa: PLC0415
    from fbench.engine.records.index import query_runs  # noqa: PLC0415
    from fbench.engine.records.index_schema import IndexedRun  # noqa: PLC0415
    from fbench.engine.records.querying import parse_since  # noqa: PLC0415
    from fbench.engine.records.showing import runs_table  # noqa: PLC0415

    folder = runs_dir or DEFAULT_RUNS_DIR
    wanted = limit or DEFAULT_LIMIT
    earliest = None if since is None else parse_since(since)

    async def query() -> tuple[IndexedRun, ...]:
        return await query_runs(
            folder,
            task=task,
            model=model,
            suite=suite,
            status=status,
            passed=passed,
            since=earliest,
            sort=sort or "started",
            ascending=ascending,
            limit=wanted + 1,
        )

    found = anyio.run(query)
    shown = found[:wanted]
    if as_json:
        document = {
            "schema_version": 1,
            "runs_dir": str(folder),
            "has_more": len(found) > wanted,
            "runs": [run.model_dump(mode="json") for run in shown],
        }
        click.echo(json.dumps(document, indent=2))
    elif shown:
        click.echo(runs_table(shown))
    else:
        click.echo(f"no such runs in {folder}", err=True)
    if len(found) > wanted:
        click.echo(f"the first {wanted} of more; `--limit N` shows others", err=True)


@click.command("show-run")
@click.argument("run_id", metavar="ID")
@click.option("--full", is_flag=True, help="Nothing shortened: all of each prompt, argument and output.")
@runs_dir_option
@json_option
def show_run(run_id: str, runs_dir: Path | None, *, full: bool, as_json: bool) -> None:
    """Show one run: the verdict, the checks, and the transcript turn by turn, as plain text for a pager.

    ID is a run's id, the beginning of just one id, or a run folder's path. What is long is shortened in its middle but
    for the model's own words; `--full` shows all, and `--json` has all anyway.
    """
    from fbench.engine.options import DEFAULT_RUNS_DIR  # noqa: PLC0415 - late: `fbench --help` stays cheap
    from fbench.engine.records.reading import (  # noqa: PLC0415
        TRANSCRIPT,
        Unreadable,
        find_run,
        read_result,
        read_started,
        read_transcript,
    )
    from fbench.engine.records.showing import run_text, unfinished_text  # noqa: PLC0415

    folder = find_run(runs_dir or DEFAULT_RUNS_DIR, run_id)
    result, problem = None, None
    try:
        result = read_result(folder)
    except Unreadable as error:
        problem = str(error)
    events: list[dict[str, Any]] = []
    try:
        events.extend(read_transcript(folder / TRANSCRIPT))
    except Unreadable as error:
        problem = problem or str(error)
    started = read_started(folder)
    state = _state(started.owner, is_finished=result is not None, is_damaged=result is None and problem is not None)
    if as_json:
        document = {
            "schema_version": 1,
            "run_id": result.run_id if result else started.run_id,
            "folder": str(folder),
            "state": state,
            "problem": problem,
            "result": json.loads(result.model_dump_json()) if result else None,
            "transcript": events,
        }
        click.echo(json.dumps(document, indent=2))
    elif result is not None:
        click.echo(run_text(str(folder), result, events, is_full=full))
    else:
        click.echo(unfinished_text(str(folder), started, state, problem, events, is_full=full))


def _state(owner: str | None, *, is_finished: bool, is_damaged: bool) -> str:
    from fbench.engine.records.rebuild import is_live_here  # noqa: PLC0415 - late: `fbench --help` stays cheap

    if is_finished:
        return "finished"
    if is_damaged:
        return "unreadable"
    return "running" if owner is not None and is_live_here(owner) else "unfinished"
