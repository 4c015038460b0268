"""`fbench diff`: the first difference between two runs."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from fbench.engine.commands.options import json_option, runs_dir_option


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@runs_dir_option
@json_option
def diff(first: str, second: str, runs_dir: Path | None, *, as_json: bool) -> None:
    """Show the first difference between two runs; exit with 1 when there is one.

    A and B are a run's id, the beginning of just one id, or a run folder's path. Transcript and result are compared,
    but for ids, times and durations.
    """
    from fbench.engine.options import DEFAULT_RUNS_DIR  # noqa: PLC0415 - late: `fbench --help` stays cheap
    from fbench.engine.records.comparing import IGNORED, first_difference  # noqa: PLC0415
    from fbench.engine.records.reading import find_run  # noqa: PLC0415
    from fbench.engine.records.showing import clean  # noqa: PLC0415

    folders = [find_run(runs_dir or DEFAULT_RUNS_DIR, name) for name in (first, second)]
    found = first_difference(*folders)
    if as_json:
        document = {
            "schema_version": 1,
            "first": str(folders[0]),
            "second": str(folders[1]),
            "equal": found is None,
            "ignored": sorted(IGNORED),
            "difference": None if found is None else asdict(found),
        }
        click.echo(json.dumps(document, indent=2))
    elif found is None:
        click.echo("equal, but for ids, times and durations")
    else:
        place = f"{found.file} line {found.line}" if found.line is not None else found.file
        click.echo(f"{place}: {found.field or 'an event'} differs")
        click.echo(f"  A  {clean(found.first)}")
        click.echo(f"  B  {clean(found.second)}")
    sys.exit(0 if found is None else 1)
