"""`fbench index`: the index of a runs folder."""

from pathlib import Path

import click

from fbench.engine.commands.options import json_option, runs_dir_option


@click.group()
def index() -> None:
    """The index of the runs (runs.sqlite), which the run folders can make again."""


@index.command()
@runs_dir_option
@json_option
def rebuild(runs_dir: Path | None, *, as_json: bool) -> None:
    """Make the index again from the run folders. Nothing in the folders is changed."""
    import anyio  # noqa: PLC0415 - late, as all below: `fbench --help` stays cheap

    from fbench.engine.options import DEFAULT_RUNS_DIR  # noqa: PLC0415
    from fbench.engine.records.rebuild import rebuild_index  # noqa: PLC0415

    folder = runs_dir or DEFAULT_RUNS_DIR
    report = anyio.run(rebuild_index, folder)
    if as_json:
        click.echo(report.model_dump_json(indent=2))
        return
    if report.moved_aside is not None:
        click.echo(f"the old index was damaged; it is kept as {folder / report.moved_aside}", err=True)
    click.echo(f"{report.runs} finished, {report.unfinished} unfinished and {report.running} running runs in {folder}")
    for run in report.unreadable:
        click.echo(f"left out {run.folder}: {run.why}")
