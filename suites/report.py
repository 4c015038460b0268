"""The report of a suite run."""

import json
from pathlib import Path

from fbench.engine.records.folder import write_atomically
from fbench.suites.outcomes import SuiteOutcome
from fbench.suites.summary import summarise


def write_reports(outcome: SuiteOutcome, folder: Path) -> list[Path]:
    """Write report.json into the suite run's folder."""
    path = folder / "report.json"
    write_atomically(path, json.dumps(summarise(outcome, ()), indent=2) + "\n")
    return [path]
