"""The check `pytest`: what it runs, what it counts, and which commands are taken for a call of pytest."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fbench.judging.gather import CannotEvaluate
from fbench.judging.pytest_check import find_tests, read_call, read_report

if TYPE_CHECKING:
    from tests.judging.conftest import Bench
else:
    Bench = Any

SUITE = {"type": "pytest", "timeout_s": 100.0}
PLAIN = {"type": "command_exit_zero", "command": 'python -m pytest -q "$FBENCH_GRADER/tests"', "timeout_s": 100.0}


@pytest.mark.parametrize(
    ("command", "tests", "pythonpath"),
    [
        ("python -m pytest -q /grader/tests", ("grader/tests",), (".",)),
        ("pytest /grader/tests/test_a.py::test_b /grader/more", ("grader/tests/test_a.py::test_b", "grader/more"), ()),
        ('  python3 -I -B -m pytest -q -p no:cacheprovider "${FBENCH_GRADER}/tests"', ("grader/tests",), ()),
        ("python -B -m pytest --tb=short $FBENCH_GRADER/tests -rA", ("grader/tests",), (".",)),
    ],
)
def test_a_call_of_pytest_on_the_graders_tests_is_seen(
    command: str, tests: tuple[str, ...], pythonpath: tuple[str, ...]
) -> None:
    call = read_call(command)
    assert call is not None
    assert (call.tests, call.pythonpath) == (tests, pythonpath)


@pytest.mark.parametrize(
    "command",
    [
        "python -m pytest -q",
        "python -m pytest -q tests /grader/tests",
        "python -m pytest -q /grader/tests -k adds",
        "python -m pytest -q /grader/tests || true",
        "python -m pytest -q /grader/tests; python -m pytest /grader/more",
        "python -m pytest -q /grader/$(ls)",
        "python -m pytest /grader/../workspace",
        "python -m pytest '/grader/tests",
        "python -m pytest /graders/tests",
        "timeout 5 python -m pytest /grader/tests",
        "python -m pytest_cov /grader/tests",
        "python /grader/check.py",
    ],
)
def test_any_other_command_is_left_as_it_is_written(command: str) -> None:
    assert read_call(command) is None


def test_the_tests_that_must_run_are_read_from_the_sources(tmp_path: Path) -> None:
    folder = tmp_path / "grader" / "tests" / "deep"
    folder.mkdir(parents=True)
    (folder / "test_a.py").write_text(
        "import pytest\ndef test_one(): ...\nasync def test_two(): ...\ndef helper(): ...\n"
        "@pytest.fixture\ndef test_data(): ...\n"
        "class TestX:\n    def test_three(self): ...\n    class TestY:\n        def test_four(self): ...\n"
        "class TestMade:\n    def __init__(self, a): ...\n    def test_never(self): ...\n"
    )
    (folder / "helpers.py").write_text("def test_not_here(): ...\n")
    every = {f"tests/deep/test_a.py::{name}" for name in ("test_one", "test_two", "TestX::test_three")}
    every |= {"tests/deep/test_a.py::TestX::TestY::test_four"}
    assert find_tests(tmp_path, ["grader/tests"]) == every
    assert find_tests(tmp_path, ["grader/tests/deep/test_a.py::test_one[3]"]) == {"tests/deep/test_a.py::test_one"}
    (folder / "test_b.py").write_text("def broken(:\n")
    with pytest.raises(CannotEvaluate, match=r"'tests/deep/test_b.py' cannot be read"):
        find_tests(tmp_path, ["grader"])


def test_only_lines_with_the_token_are_facts_and_odd_ones_are_nobodys() -> None:
    lines = ['key {"ready": "9"}', '{"ended": 0}', 'kez {"ended": 0}', "key {", 'key {"collected": [1]}', "key []"]
    report = read_report("\n".join(lines).encode() + b"\nkey \xff", "key")
    assert (report.is_ready, report.ended, report.names) == (True, None, {})


async def test_each_test_counts_and_none_that_was_not_run(walled: Bench) -> None:
    walled.write(walled.final, {"src/work.py": "VALUE = 1\n"})
    walled.write(
        walled.task,
        {
            "grader/conftest.py": "import pytest\n@pytest.fixture(autouse=True)\ndef one(): yield 1\n",
            "grader/tests/test_a.py": "import pytest, work\n"
            "def test_passes(one): assert work.VALUE == one\n"
            "@pytest.mark.parametrize('n', [1, 2])\ndef test_each(n): assert work.VALUE == n\n"
            "@pytest.mark.skip\ndef test_skipped(): ...\n"
            "@pytest.mark.xfail\ndef test_xfailed(): assert 0\n",
            "grader/tests/test_b.py": "import missing\ndef test_b(): ...\n",
        },
    )
    result = await walled.check(**SUITE, pythonpath=["src"])
    assert (result.status, result.tier) == ("failed", "deterministic")
    assert result.score == pytest.approx(2 / 6)
    seen = json.loads((walled.outputs / "check1.json").read_text())
    assert (seen["passed"], seen["tests"], seen["never_ran"]) == (2, 6, ["tests/test_b.py::test_b"])
    assert "test_b.py" in next(iter(seen["broken"]))


async def test_a_plain_call_passes_with_all_tests_and_gives_no_part_of_the_score(walled: Bench) -> None:
    walled.write(walled.final, {"work.py": "VALUE = 1\n"})
    test = "import work\ndef test_a(): assert work.VALUE == 1\ndef test_b(): assert work.VALUE == {}\n"
    walled.write(walled.task, {"grader/tests/test_a.py": test.format(1)})
    assert (await walled.check(**PLAIN)).status == "passed"
    walled.write(walled.task, {"grader/tests/test_a.py": test.format(2)})
    result = await walled.check(**PLAIN)
    assert (result.status, result.score) == ("failed", 0.0)
    assert result.detail.startswith("1 of 2 tests passed; test_a.py::test_b")


async def test_a_grader_without_tests_is_an_error(walled: Bench) -> None:
    walled.write(walled.task, {"grader/tests/readme.txt": "later"})
    result = await walled.check(**SUITE)
    assert (result.status, result.detail) == ("error", "the task has no tests in grader/tests")
