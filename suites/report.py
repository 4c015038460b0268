"""A suite run's report as files: report.md, report.html and report.json beside the runs."""

import json
from pathlib import Path

from fbench.engine.records.folder import write_atomically
from fbench.suites.figures import summarize
from fbench.suites.outcomes import SuiteOutcome
from fbench.suites.report_html import render_html
from fbench.suites.report_markdown import render_markdown


def write_reports(outcome: SuiteOutcome, folder: Path) -> list[Path]:
    """Write the three files into `folder`, each whole or not at all; the paths are returned, report.md first."""
    summary = summarize(outcome, folder)
    documents = {
        "report.md": render_markdown(summary),
        "report.html": render_html(summary),
        "report.json": json.dumps(summary.model_dump(mode="json"), indent=2) + "\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in documents.items():
        write_atomically(folder / name, text)
    return [folder / name for name in documents]
