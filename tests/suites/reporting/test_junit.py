"""JUnit XML: what CI systems read."""

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

from fbench.suites.junit import write_junit
from fbench.suites.outcomes import SuiteOutcome

OutcomeOf = Callable[..., SuiteOutcome]


def read(outcome: SuiteOutcome, folder: Path) -> ET.Element:
    path = folder / "made" / "junit.xml"
    write_junit(outcome, path)
    return ET.fromstring(path.read_bytes())


def counts(element: ET.Element) -> tuple[str | None, ...]:
    return tuple(element.get(name) for name in ("tests", "failures", "errors", "skipped", "time"))


def test_each_run_is_a_case_that_tells_how_it_ended(outcome_of: OutcomeOf, tmp_path: Path) -> None:
    outcome = outcome_of({"a/x": {"one": [1, 0.5], "two": ["error", "cancelled"]}, "b/y": {"one": [1, None]}})
    root = read(outcome, tmp_path)
    assert counts(root) == ("8", "1", "1", "4", "50.000")
    first, second = root.findall("testsuite")
    assert (first.get("name"), second.get("name")) == ("nightly a/x", "nightly b/y")
    assert counts(first) == ("4", "1", "1", "1", "40.000")
    ended = {case.get("name"): [child.tag for child in case if child.tag != "system-out"] for case in first}
    assert ended == {"one [1]": [], "one [2]": ["failure"], "two [1]": ["error"], "two [2]": ["skipped"]}
    error = first.find("testcase/error")
    assert error is not None
    assert (error.get("type"), error.get("message")) == ("model_unavailable", "no answer")
    assert [skipped.get("message") for skipped in second.iter("skipped")] == ["not run"] * 3


def test_one_attempt_needs_no_number(outcome_of: OutcomeOf, tmp_path: Path) -> None:
    case = read(outcome_of({"fake/oracle": {"one": [1]}}), tmp_path).find("testsuite/testcase")
    assert case is not None
    assert (case.get("classname"), case.get("name")) == ("nightly.fake/oracle", "one")


def test_a_failure_names_the_checks_that_did_not_pass(outcome_of: OutcomeOf, tmp_path: Path) -> None:
    facts = {"type": "t", "tier": "deterministic", "score": 0.5, "weight": 1, "gating": False, "detail": "d"}
    checks = [{"id": f"c{n}", "status": status, **facts} for n, status in enumerate(("passed", "failed", "error"))]
    killed = {
        "status": "killed",
        "kill_reason": "budget_exceeded:tokens",
        "passed": False,
        "score": 0.5,
        "checks": checks,
    }
    failure = read(outcome_of({"m/x": {"one": [killed]}}), tmp_path).find(".//failure")
    assert failure is not None
    assert failure.get("message") == "score 0.5, budget_exceeded:tokens"
    assert failure.text == "c1: failed, score 0.5: d\nc2: error, score 0.5: d"


def test_hostile_names_and_texts_stay_text(outcome_of: OutcomeOf, tmp_path: Path) -> None:
    message = "]]> <x a='1'/> & \x00\x1b[31m \ud800"
    error = {"status": "error", "passed": None, "score": None, "error": {"kind": "sandbox_lost", "message": message}}
    root = read(outcome_of({'m/"><script>': {"one": [error]}}, suite="a & <b>"), tmp_path)
    found = root.find(".//error")
    assert found is not None
    assert found.get("message") == "]]> <x a='1'/> & \\x00\\x1b[31m \\xd800"
    assert root.get("name") == "a & <b>"
    assert root.find(".//script") is None
