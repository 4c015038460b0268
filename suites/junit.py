"""A suite run as JUnit XML, which CI systems show as tests.

One `testsuite` a model, one `testcase` a planned run. A run that did not pass is a `failure`, an infrastructure error
an `error`, an owed run `skipped`. No standard says so, only what Ant began and the viewers of GitHub and GitLab read.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from fbench.engine.results import RunResult
from fbench.suites.outcomes import PlannedRun, SuiteOutcome
from fbench.suites.standing import Standing, group_by_cell, standing_of, usd_of
from fbench.suites.writing import write_file

# Everything XML 1.0 has no way to write, not even as a reference.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(outcome: SuiteOutcome, path: Path) -> None:
    """Write the file, whole or not at all; its folder is made. Raises Unwritten."""
    write_file(path, render_junit(outcome))


def render_junit(outcome: SuiteOutcome) -> str:
    """The document."""
    root = Element("testsuites", _attributes({"name": outcome.suite}))
    cells = group_by_cell(outcome)
    for model in outcome.models:
        suite = SubElement(root, "testsuite", _attributes({"name": f"{outcome.suite} {model}"}))
        if outcome.started_at:
            suite.set("timestamp", _writable(outcome.started_at.removesuffix("Z")))
        for task in outcome.tasks:
            for planned, result in cells[task.task_id, model].runs:
                suite.append(_case(outcome, planned, result))
        _total(suite)
    _total(root)
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def _case(outcome: SuiteOutcome, planned: PlannedRun, result: RunResult | None) -> Element:
    name = planned.task_id if outcome.attempts == 1 else f"{planned.task_id} [{planned.attempt}]"
    seconds = 0.0 if result is None else result.duration_s
    facts = {"classname": f"{outcome.suite}.{planned.model}", "name": name, "time": f"{seconds:.3f}"}
    case = Element("testcase", _attributes(facts))
    standing = standing_of(result)
    if standing is Standing.OWED or result is None:
        SubElement(case, "skipped", message="not run" if result is None else "cancelled")
    elif standing is Standing.ERROR:
        kind, said = (
            (result.error.kind, result.error.message) if result.error else ("no_verdict", "the run has no score")
        )
        SubElement(case, "error", _attributes({"type": kind, "message": said}))
    elif not result.passed:
        message = f"score {result.score:g}" + (f", {result.kill_reason}" if result.kill_reason else "")
        failure = SubElement(case, "failure", _attributes({"type": "failed", "message": message}))
        failure.text = _writable("\n".join(_failed_checks(result)))
    if result is not None:
        out = SubElement(case, "system-out")
        out.text = _writable("\n".join(_facts(outcome, result)))
    return case


def _failed_checks(result: RunResult) -> list[str]:
    return [
        f"{check.id}: {check.status}, score {check.score:g}" + (f": {check.detail}" if check.detail else "")
        for check in result.checks
        if check.status != "passed"
    ]


def _facts(outcome: SuiteOutcome, result: RunResult) -> list[str]:
    usd = usd_of(result)
    folder = outcome.folders.get(result.run_id)
    facts = [
        f"run {result.run_id}",
        f"score {'none' if result.score is None else f'{result.score:g}'}, {result.status}",
        f"{result.tokens.total} tokens, {'unknown dollars' if usd is None else f'${usd:.6f}'} ({result.cost_status})",
    ]
    return facts if folder is None else [*facts, f"folder {folder}"]


def _total(element: Element) -> None:
    """Counts of the cases below, as attributes."""
    cases = list(element.iter("testcase"))
    element.set("tests", str(len(cases)))
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(name, str(sum(case.find(tag) is not None for case in cases)))
    element.set("time", f"{sum(float(case.get('time', '0')) for case in cases):.3f}")


def _attributes(facts: Mapping[str, str]) -> dict[str, str]:
    return {name: _writable(value) for name, value in facts.items()}


def _writable(text: str) -> str:
    """`text` without what XML cannot hold: such characters become `\\xNN`."""
    return _NOT_XML.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
