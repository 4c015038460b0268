"""A suite run's report as files: report.md, report.html and report.json beside the runs."""

import json
from pathlib import Path
from typing import NamedTuple

import anyio.to_thread

from fbench.suites.figures import SuiteSummary, summarize
from fbench.suites.loading import load_suite_outcome, record_outcome
from fbench.suites.outcomes import SuiteOutcome
from fbench.suites.report_html import render_html
from fbench.suites.report_markdown import render_markdown
from fbench.suites.writing import write_file


class Concluded(NamedTuple):
    """How a suite run came out, and the reports of it."""

    outcome: SuiteOutcome
    written: list[Path]


async def conclude(runs_dir: Path, suite_run_id: str) -> Concluded:
    """How far a suite run is, noted in its folder and in the index, and its reports written."""
    outcome = await anyio.to_thread.run_sync(load_suite_outcome, runs_dir, suite_run_id)
    await record_outcome(runs_dir, outcome)
    written = await anyio.to_thread.run_sync(write_reports, outcome, runs_dir / outcome.suite_run_id)
    return Concluded(outcome, written)


def write_reports(outcome: SuiteOutcome, folder: Path) -> list[Path]:
    """Write the three files into `folder`, each whole or not at all; the paths are returned, report.md first.

    Raises:
        Unwritten: one cannot be written.
    """
    return write_summary(summarize(outcome, folder), folder)


def write_summary(summary: SuiteSummary, folder: Path) -> list[Path]:
    """The same of figures that were made already."""
    documents = {
        "report.md": render_markdown(summary),
        "report.html": render_html(summary),
        "report.json": json.dumps(summary.model_dump(mode="json"), indent=2) + "\n",
    }
    for name, text in documents.items():
        write_file(folder / name, text)
    return [folder / name for name in documents]
