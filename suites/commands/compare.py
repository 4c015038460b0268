"""`fbench compare`: systems on the tasks they have in common."""

import json
from pathlib import Path

import click

from fbench.engine.commands.options import json_option, runs_dir_option


@click.command()
@click.argument("systems", metavar="A B [C...]", nargs=-1, required=True)
@runs_dir_option
@json_option
def compare(systems: tuple[str, ...], runs_dir: Path | None, *, as_json: bool) -> None:
    """Compare suite runs, or models of one, on the tasks they have in common. Each is compared with A.

    A system is a suite run (its id, the beginning of just one id, or its folder) or one model of it, ID:MODEL. One
    suite run alone stands for all its models.
    """
    from fbench.engine.options import DEFAULT_RUNS_DIR  # noqa: PLC0415 - late, as all below: `--help` stays cheap
    from fbench.suites.compare import compare as compare_systems  # noqa: PLC0415
    from fbench.suites.compare_text import comparison_text  # noqa: PLC0415
    from fbench.suites.systems import find_systems  # noqa: PLC0415

    comparison = compare_systems(find_systems(runs_dir or DEFAULT_RUNS_DIR, systems))
    if as_json:
        click.echo(json.dumps(comparison.model_dump(mode="json"), indent=2))
    else:
        click.echo(comparison_text(comparison))
