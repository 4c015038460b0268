"""A suite run as JUnit XML."""

from pathlib import Path
from xml.etree import ElementTree as ET

from fbench.suites.outcomes import SuiteOutcome


def write_junit(outcome: SuiteOutcome, path: Path) -> None:
    """Write one test case a planned run."""
    root = ET.Element("testsuite", name=outcome.suite, tests=str(len(outcome.planned)))
    for run in outcome.planned:
        case = ET.SubElement(root, "testcase", classname=run.model, name=f"{run.task_id}#{run.attempt}")
        result = outcome.results.get(run)
        if result is None or result.passed is not True:
            ET.SubElement(case, "failure", message="not passed")
    path.write_bytes(ET.tostring(root))
