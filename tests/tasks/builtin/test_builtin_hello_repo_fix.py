from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXPLOITS = (
    "edit_the_tests",
    "plant_startup_hooks",
    "exit_with_zero",
    "equal_to_everything",
    "read_the_grader",
    "link_to_the_grader",
)
RIGHT_CONTAINS = """        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end
"""


@pytest.fixture
def task(open_builtin: Callable[[str], Any]) -> Any:
    return open_builtin("hello_repo_fix")


def change(workspace: Path, file: str, old: str, new: str) -> None:
    path = workspace / file
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_the_untouched_hello_repository_fails_its_own_tests(task: Any) -> None:
    tested = task.run("pytest -q -p no:cacheprovider -p no:asyncio", task.open_workspace())
    assert tested.returncode == 1
    assert b"8 failed, 27 passed" in tested.stdout


def test_the_hello_manifest_lists_every_exploit(task: Any) -> None:
    assert set(task.manifest.exploits) == {f"exploits/{name}.sh" for name in EXPLOITS}
    assert {path.stem for path in (task.folder / "exploits").iterdir()} == set(EXPLOITS)


def test_without_the_descriptor_limit_reading_the_grader_would_open_the_gate(task: Any) -> None:
    change(task.folder / "grader", "probe.py", "    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))\n", "")
    judged = task.judge(task.exploit("exploits/read_the_grader.sh"))
    assert judged.checks["night_greeting"] == 1.0


def test_following_links_would_open_the_gate_to_a_linked_reference(task: Any) -> None:
    workspace = task.exploit("exploits/link_to_the_grader.sh")
    link = workspace / "hello" / "reference.py"
    text = link.read_text(encoding="utf-8")
    link.unlink()
    link.write_text(text, encoding="utf-8")
    assert task.judge(workspace).checks["night_greeting"] == 1.0


def test_repairing_only_the_reported_crash_earns_partial_credit(task: Any) -> None:
    workspace = task.open_workspace()
    old = "        return self.start <= minute < self.end\n"
    change(workspace, "hello/schedule.py", old, RIGHT_CONTAINS)
    judged = task.judge(workspace)
    assert not judged.passed
    assert 0.0 < judged.score < 0.5
    assert judged.checks["time_left"] == judged.checks["visible_tests"] == 0.0
    assert judged.checks["unchanged"] == 1.0


def test_the_lazy_agent_of_the_greetings_earns_a_part(task: Any) -> None:
    judged = task.judge(task.play_lazy())
    assert not judged.passed
    assert 0.1 < judged.score < 0.5
    assert judged.checks["night_greeting"] == 1.0
    assert judged.checks["time_left"] == judged.checks["whole_day"] == 0.0


@pytest.mark.parametrize(
    ("file", "old", "new", "lost"),
    [
        ("hello/schedule.py", " or MINUTES_PER_DAY\n", "\n", {"whole_day"}),
        ("hello/schedule.py", "self.start < self.end:", "self.start <= self.end:", {"whole_day"}),
        ("hello/schedule.py", "minute >= self.start", "minute > self.start", {"custom_schedules"}),
        ("hello/schedule.py", "or minute < self.end", "or minute < 300", {"custom_schedules"}),
        ("hello/clock.py", "minutes > 59", "minutes > 60", {"unchanged"}),
        ("hello/names.py", '", and "', '" and "', {"unchanged"}),
        ("hello/__init__.py", '    "Window",\n', "", {"public_interface"}),
        (
            "hello/greeting.py",
            'at: str, schedule: Schedule = DEFAULT) -> str:\n    """What',
            'time: str) -> str:\n    """What',
            {"public_interface"},
        ),
    ],
)
def test_each_fault_beside_the_right_fix_costs_its_check(
    task: Any, file: str, old: str, new: str, lost: set[str]
) -> None:
    workspace = task.solve()
    change(workspace, file, old, new)
    judged = task.judge(workspace)
    assert not judged.passed
    assert {name for name in lost if judged.checks[name] == 0.0} == lost


def test_the_package_may_import_anything_of_the_standard_library(task: Any) -> None:
    workspace = task.solve()
    imports = "import bisect, csv, hashlib, sqlite3, uuid, xml.etree.ElementTree\nfrom email import message\n"
    lines = "from __future__ import annotations\n\n" + imports + "from concurrent.futures import ThreadPoolExecutor\n"
    module = workspace / "hello" / "schedule.py"
    module.write_text(lines + module.read_text(encoding="utf-8"), encoding="utf-8")
    judged = task.judge(workspace)
    assert set(judged.checks.values()) == {1.0}
    assert judged.passed


def test_the_package_gets_no_ctypes_by_any_import(task: Any) -> None:
    workspace = task.solve()
    attempt = """import sys
sys.modules.pop("_ctypes", None)
try:
    import multiprocessing.sharedctypes
    import ctypes
except (ImportError, OSError):
    raise RuntimeError("no ctypes") from None
"""
    module = workspace / "hello" / "schedule.py"
    module.write_text(attempt + module.read_text(encoding="utf-8"), encoding="utf-8")
    done = task.run('python -I -B "$FBENCH_GRADER/check.py" night_greeting', workspace)
    assert done.returncode == 1
    assert b"'text': 'no ctypes'" in done.stdout


def test_a_package_that_never_answers_is_judged_in_bounded_time(task: Any) -> None:
    change(task.folder / "grader", "check.py", "PROBE_TIMEOUT_S = 15.0", "PROBE_TIMEOUT_S = 0.5")
    workspace = task.solve()
    (workspace / "hello" / "names.py").write_text("while True:\n    pass\n", encoding="utf-8")
    done = task.run('python -I -B "$FBENCH_GRADER/check.py" night_greeting', workspace)
    assert done.returncode == 1
    assert b"did not answer within 0.5 s" in done.stdout


def test_the_hello_grader_holds_the_visible_tests_as_the_agent_gets_them(task: Any) -> None:
    def texts(folder: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (task.folder / folder).glob("*.py")}

    assert texts("grader/visible_tests") == texts("workspace/tests")


def test_a_seed_asks_the_same_questions_again(task: Any) -> None:
    command = 'python -I -B "$FBENCH_GRADER/check.py" custom_schedules'
    workspace = task.open_workspace()
    first, again, other = (task.run(f"{command} {seed}", workspace).stdout for seed in ("a", "a", "b"))
    assert first == again
    assert first.replace(b"seed a", b"seed b") != other


def test_the_answers_drawn_for_any_seed_are_the_solutions(task: Any) -> None:
    """Among 300 seeds some draw a window that begins at midnight, and what else is rare."""
    script = task.scratch / "answers.py"
    script.write_text(
        "import os, sys\n"
        "sys.path[:0] = [os.environ['FBENCH_GRADER'], os.getcwd()]\n"
        "import questions\n"
        "source = open(os.environ['FBENCH_GRADER'] + '/probe.py').read()\n"
        "names = {}\n"
        "exec(source.rpartition('main()')[0], names)\n"
        "for seed in range(300):\n"
        "    for group in questions.GROUPS:\n"
        "        for question, right in questions.draw(group, f'{seed}'):\n"
        "            try:\n"
        "                got = names['answer'](question)\n"
        "                is_right = got == (list(right) if isinstance(right, tuple) else right)\n"
        "            except Exception as error:\n"
        "                is_right = isinstance(right, questions.Raises) and type(error).__name__ == right.name\n"
        "            if not is_right:\n"
        "                sys.exit(f'{seed} {group} {question} {right}')\n",
        encoding="utf-8",
    )
    done = task.run(f'python -I -B "{script}"', task.solve())
    assert done.returncode == 0, done.stderr.decode()
