"""`fbench clean`: remove what dead runs left behind."""

import json

import click

from fbench.engine.commands.options import json_option


@click.command()
@json_option
def clean(*, as_json: bool) -> None:
    """Remove scratch folders and control groups whose owner is dead. A living run's are never touched."""
    from fbench.engine.registry import load_part  # noqa: PLC0415 - late: help stays cheap

    removed = [str(path) for path in load_part("sweep_scratch")()]
    if as_json:
        click.echo(json.dumps({"removed": removed}))
        return
    for path in removed:
        click.echo(f"removed {path}")
    click.echo(f"{len(removed)} leftovers removed" if removed else "nothing to remove")
