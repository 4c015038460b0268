"""`fbench suite list`: the suites that come with fbench."""

import json
from typing import Any

import click

from fbench.engine.commands.options import json_option


@click.command("list")
@json_option
def list_suites(*, as_json: bool) -> None:
    """List the built-in suites and their tasks."""
    from fbench.suites.manifest import builtin_suites, load_suite  # noqa: PLC0415 - late: help stays cheap
    from fbench.suites.selecting import select_tasks  # noqa: PLC0415

    rows: list[dict[str, Any]] = []
    for path in builtin_suites():
        suite = load_suite(path)
        manifest = suite.manifest
        rows.append(
            {
                "suite": manifest.id,
                "title": manifest.title,
                "description": manifest.description,
                "tasks": [task.manifest.id for task in select_tasks(suite)],
                "models": list(manifest.models),
                "file": str(path),
            }
        )
    if as_json:
        click.echo(json.dumps({"suites": rows}, indent=2, ensure_ascii=True))
        return
    width = max(len(row["suite"]) for row in rows)
    for row in rows:
        click.echo(f"{row['suite']:<{width}}  {row['title']}: {', '.join(row['tasks'])}")
