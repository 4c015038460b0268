"""`fbench suite merge`: join the parts of a suite."""

import json
from pathlib import Path

import click

from fbench.engine.commands.options import json_option, runs_dir_option


@click.command()
@click.argument("ids", metavar="ID ID...", nargs=-1, required=True)
@runs_dir_option
@json_option
def merge(ids: tuple[str, ...], runs_dir: Path | None, *, as_json: bool) -> None:
    """Join suite runs that are parts (--shard) of one suite into a new suite run.

    Their run folders lie in one runs folder, where those of other machines were copied to; nothing in them is changed.
    What the parts still owe, `fbench suite resume` of the new one does.
    """
    import anyio  # noqa: PLC0415 - late, as all below: help stays cheap

    from fbench.engine.options import DEFAULT_RUNS_DIR  # noqa: PLC0415
    from fbench.suites.merging import merge_suite_runs  # noqa: PLC0415
    from fbench.suites.report import conclude  # noqa: PLC0415
    from fbench.suites.summary import summarise, words_of  # noqa: PLC0415

    folder = runs_dir or DEFAULT_RUNS_DIR
    plan = merge_suite_runs(folder, ids)
    outcome, written = anyio.run(conclude, folder, plan.suite_run_id)
    summary = summarise(outcome, written)
    click.echo(json.dumps(summary, indent=2, ensure_ascii=True) if as_json else words_of(summary))
