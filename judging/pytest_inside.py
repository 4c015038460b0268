"""Runs tests of the grader with pytest; the text of this file is given to `python3 -I -B -c` in the sandbox.

Pytest's arguments are the program's. Standard input holds one JSON object, the job: `token`, and `pythonpath`, folders
of the workspace that go to the end of `sys.path`, where they shadow nothing; pytest is imported before that.

What happened is written to the standard output the program was started with, one line a fact, led by the token; what
the tests print goes to standard error. No other process can write there, or look into this one. Code under test that a
test imports can: it runs in here. So tests of our own that must fail, traps, are put among the grader's; when one does
not fail, pytest was tampered with.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PR_SET_DUMPABLE = 4
MAX_WHY_CHARS = 300


class Reporter:
    """The plugin that tells what happened.

    Facts: `ready` (pytest's version); `collected` ([[node id, name]], the name being FILE::CLASS::FUNCTION without
    parameters, FILE as seen from the grader's folder) and `traps` (how many were set); `broken` (what could not be
    collected) with `why`; `test` (a node id) with `why` (empty: it passed), after its teardown; `sprung` (whether a
    trap failed); `ended` (pytest's exit code).
    """

    def __init__(self, output: int, token: str, grader: str) -> None:
        self._output = output
        self._token = token
        self._grader = grader
        self._traps: dict[str, bool] = {}
        self._troubles: dict[str, str] = {}

    def tell(self, **fact: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
        data = f"{self._token} {json.dumps(fact)}\n".encode()
        while data:
            data = data[os.write(self._output, data) :]

    def pytest_collectreport(self, report: Any) -> None:  # noqa: ANN401 - pytest's, as below
        if not report.passed:
            self.tell(broken=report.nodeid, why=shorten(report.longrepr))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.tell(collected=[[item.nodeid, self._name(item)] for item in items])
        modules = [item.getparent(pytest.Module) for item in items if isinstance(item, pytest.Function)]
        for parent in {module: None for module in modules if module is not None}:
            trap = pytest.Function.from_parent(parent, name=f"test_{secrets.token_hex(4)}", callobj=spring)
            trap.fixturenames = []  # what the grader sets up by itself is for its own tests
            self._traps[trap.nodeid] = False
            places = [at for at, item in enumerate(items) if item.getparent(pytest.Module) is parent]
            items.insert(random.choice([*places, places[-1] + 1]), trap)  # noqa: S311 - any place will do
        self.tell(traps=len(self._traps))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_logreport(self, report: Any) -> Iterator[None]:  # noqa: ANN401
        """Before all plain hooks: those that count failures, and those that the code under test may have added."""
        self._take(report)
        yield

    def _take(self, report: Any) -> None:  # noqa: ANN401
        if report.nodeid in self._traps:
            if report.when == "call":
                self._traps[report.nodeid] = report.outcome == "failed"
                report.outcome, report.longrepr = "passed", None  # for those who count
            elif report.when == "teardown":
                self.tell(sprung=self._traps[report.nodeid])
            return
        is_expected = hasattr(report, "wasxfail")
        if report.outcome != "passed" or is_expected:
            what = "expected to fail" if is_expected else report.outcome
            self._troubles.setdefault(report.nodeid, f"{what} in {report.when}: {shorten(report.longrepr)}")
        if report.when == "teardown":
            self.tell(test=report.nodeid, why=self._troubles.pop(report.nodeid, ""))

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:  # noqa: ANN401
        return ("", "", "") if report.nodeid in self._traps else None

    def _name(self, item: pytest.Item) -> str:
        path = os.path.realpath(getattr(item, "path", None) or item.fspath)
        classes = [node.name for node in item.listchain() if isinstance(node, pytest.Class)]
        return "::".join(
            [os.path.relpath(path, self._grader), *classes, getattr(item, "originalname", None) or item.name]
        )


def spring() -> NoReturn:
    """What a trap does."""
    msg = "a test of fbench's own, which has to fail"
    raise AssertionError(msg)


def shorten(text: object) -> str:
    """The end of what pytest says of a failure, where the reason stands."""
    return str(text)[-MAX_WHY_CHARS:]


def main() -> NoReturn:
    job = json.load(sys.stdin)
    output = os.dup(1)
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    with contextlib.suppress(AttributeError, OSError):
        # Programs that the tests start run as the same user; none may open this one's memory or descriptors.
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)
    sys.path += [str(Path(os.environ["FBENCH_WORKSPACE"], folder)) for folder in job["pythonpath"]]
    reporter = Reporter(output, job["token"], os.path.realpath(os.environ["FBENCH_GRADER"]))
    reporter.tell(ready=pytest.__version__)
    reporter.tell(ended=int(pytest.main(sys.argv[1:], plugins=[reporter])))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a thread that the code under test left behind waits for nothing


if __name__ == "__main__":
    main()
