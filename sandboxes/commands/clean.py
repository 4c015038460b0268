"""`fbench clean`: remove what dead runs left behind."""

import json
from typing import TYPE_CHECKING

import click

from fbench.engine.commands.options import json_option

if TYPE_CHECKING:
    from fbench.sandboxes.sweep import Cleaned


@click.command()
@json_option
@click.pass_context
def clean(ctx: click.Context, *, as_json: bool) -> None:
    """Remove what dead runs left: containers, networks and volumes of Docker, scratch folders, control groups.

    What belongs to a living run, and what fbench did not make, is never touched. Exit code 1 when something stayed.
    """
    import anyio  # noqa: PLC0415 - late, as all below: help stays cheap

    from fbench.sandboxes.sweep import sweep_all  # noqa: PLC0415

    cleaned: Cleaned = anyio.run(sweep_all)
    if as_json:
        click.echo(
            json.dumps({"removed": cleaned.removed, "not_removed": cleaned.stuck, "not_asked": cleaned.not_asked})
        )
    else:
        for what in cleaned.removed:
            click.echo(f"removed {what}")
        count = len(cleaned.removed)
        click.echo(f"{count} {'leftover' if count == 1 else 'leftovers'} removed" if count else "nothing to remove")
    for what, why in cleaned.stuck.items():
        click.echo(f"{what} could not be removed: {why}", err=True)
    if cleaned.not_asked:
        click.echo(f"the Docker engine was not asked: {cleaned.not_asked}", err=True)
    ctx.exit(1 if cleaned.stuck else 0)
