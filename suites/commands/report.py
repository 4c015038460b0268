"""`fbench suite report`: the report of a suite run again, from its folders."""

import json
from pathlib import Path

import click

from fbench.engine.commands.options import json_option, runs_dir_option


@click.command()
@click.argument("suite_run_id", metavar="ID")
@click.option(
    "--junit", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the runs as JUnit XML, too."
)
@runs_dir_option
@json_option
def report(suite_run_id: str, junit: Path | None, runs_dir: Path | None, *, as_json: bool) -> None:
    """Write the report of a suite run again: report.md, report.html and report.json in its folder.

    ID is a suite run's id, the beginning of just one id, or its folder. Finished or not: what is owed is said.
    """
    from fbench.engine.options import DEFAULT_RUNS_DIR  # noqa: PLC0415 - late, as all below: `--help` stays cheap
    from fbench.suites.figures import summarize  # noqa: PLC0415
    from fbench.suites.junit import write_junit  # noqa: PLC0415
    from fbench.suites.loading import load_suite_outcome  # noqa: PLC0415
    from fbench.suites.report import write_summary  # noqa: PLC0415
    from fbench.suites.report_text import report_text  # noqa: PLC0415
    from fbench.suites.systems import find_suite_folder  # noqa: PLC0415

    outcome = load_suite_outcome(runs_dir or DEFAULT_RUNS_DIR, suite_run_id)
    folder = find_suite_folder(runs_dir or DEFAULT_RUNS_DIR, suite_run_id, outcome)
    summary = summarize(outcome, folder)
    written = write_summary(summary, folder)
    if junit is not None:
        write_junit(outcome, junit)
        written = [*written, junit]
    if as_json:
        document = {**summary.model_dump(mode="json"), "written": [str(path) for path in written]}
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(report_text(summary))
        click.echo("\n".join(f"wrote    {path}" for path in written))
