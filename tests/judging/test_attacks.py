"""Attacks on graders by agents that act through the tools, in real sandboxes: none gains a point (see attacks.yaml).

The task is to write `add` in solution.py and a program main.py that adds; the checks are such as authors write.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from fbench.engine import Engine, RunOptions, RunResult

ATTACKS: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("attacks.yaml").read_text(encoding="utf-8"))
IN_DOCKER = [attack for attack in ATTACKS if attack.get("docker")]

MAIN = "import sys\nfrom solution import add\nprint(add(int(sys.argv[1]), int(sys.argv[2])))\n"
WRONG = "def add(a, b):\n    return a - b\n"
RIGHT = "def add(a, b):\n    return a + b\n"
FILES = {
    "workspace/solution.py": WRONG,
    "workspace/main.py": MAIN,
    "workspace/fixed.txt": "as it was\n",
    "grader/expected.txt": "5\n",
    "grader/fixed.txt": "as it was\n",
    "grader/right.py": "import sys\nprint(int(sys.argv[1]) + int(sys.argv[2]))\n",
    "grader/tests/helpers.py": "def pairs():\n    return [(1, 1), (2, 3), (40, 2)]\n",
    "grader/tests/test_add.py": """\
import pytest
from helpers import pairs
from solution import add

@pytest.mark.parametrize("pair", pairs())
def test_adds(pair):
    assert type(add(*pair)) is int
    assert add(*pair) == sum(pair)

class TestAdd:
    def test_zero(self):
        got = add(0, 1), add(-1, 1)
        assert [type(value) for value in got] == [int, int]
        assert got == (1, 0)
""",
    "grader/outside/test_program.py": """\
import subprocess, sys

def test_program():
    done = subprocess.run([sys.executable, "main.py", "17", "4"], capture_output=True, timeout=20)
    assert (done.returncode, done.stdout) == (0, b"21\\n")
""",
    "grader/score.py": """\
import json, subprocess, sys

asked = [(1, 1), (17, 4)]
said = [subprocess.run([sys.executable, "main.py", *map(str, pair)], capture_output=True).stdout for pair in asked]
print(json.dumps({"accuracy": sum(got.strip() == b"%d" % sum(pair) for got, pair in zip(said, asked)) / len(asked)}))
""",
    # Two that authors should not write: the work's output goes where the number is read.
    "grader/loose_score.py": """\
import json, subprocess, sys

right = subprocess.run([sys.executable, "main.py", "1", "1"]).returncode == 0
done = subprocess.run([sys.executable, "main.py", "1", "1"], capture_output=True)
print(json.dumps({"accuracy": float(done.stdout == b"2\\n")}), flush=True)
import time; time.sleep(0.3)
""",
}
COMMANDS: dict[str, dict[str, Any]] = {
    "suite": {"type": "pytest", "tests": "grader/tests", "pythonpath": ["."]},
    "plain": {"type": "command_exit_zero", "command": 'python3 -m pytest -q "$FBENCH_GRADER/tests"'},
    "outside": {"type": "pytest", "tests": "grader/outside"},
    "metric": {"type": "metric_check", "command": 'python3 -I "$FBENCH_GRADER/score.py"'},
    "loose_metric": {"type": "metric_check", "command": 'python3 -I "$FBENCH_GRADER/loose_score.py"'},
    "told_metric": {"type": "metric_check", "command": "python3 main.py 0 1"},
    "reference": {"type": "reference_output", "command": "python3 main.py 2 3", "reference": "grader/expected.txt"},
    "reported": {"type": "reference_output", "path": "out/report.txt", "reference": "grader/expected.txt"},
    "file": {"type": "file_present", "path": "done.txt"},
    "shell": {
        "type": "command_exit_zero",
        "command": 'python3 main.py 4 5 > "$TMPDIR/said"; test "$(cat "$TMPDIR/said")" = 9',
    },
    "port": {"type": "command_exit_zero", "command": "(exec 3<>/dev/tcp/127.0.0.1/8765)"},
    "unchanged": {
        "type": "command_exit_zero",
        "command": 'cmp fixed.txt "$FBENCH_GRADER/fixed.txt" && test "$(python3 main.py 4 5)" = 9',
    },
}
METRIC = {"metric": "accuracy", "op": ">=", "threshold": 1.0, "baseline": 0.0}


def make_task(root: Path, names: Sequence[str]) -> Path:
    checks = [
        {"id": name, "timeout_s": 60.0, **COMMANDS[name], **(METRIC if name.endswith("metric") else {})}
        for name in names
    ]
    manifest = {
        "id": "attacked",
        "title": "Add",
        "difficulty": "easy",
        "domain": "testing",
        "agent": {"prompt_text": "Make it add."},
        # Faster: what else is installed beside pytest has nothing to do here.
        "environment": {"env": {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}},
        "grader": {"checks": checks},
    }
    folder = root / "attacked"
    for name, text in {"task.yaml": yaml.safe_dump(manifest), **FILES}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


async def play(root: Path, names: Sequence[str], script: str | None, sandbox: str) -> tuple[RunResult, Path]:
    """A run of an agent that runs the script and submits."""
    call = {"name": "bash", "arguments": {"command": script}}
    turns = [{"tool_calls": [call]}] if script is not None else []
    turns.append({"tool_calls": [{"name": "submit", "arguments": {}}]})
    task = make_task(root, names)
    played = root / "script.yaml"
    played.write_text(yaml.safe_dump({"turns": turns}), encoding="utf-8")
    options = RunOptions.model_validate(
        {"task": task, "model": f"fake/script:{played}", "sandbox": sandbox, "runs_dir": root / "runs"}
    )
    async with Engine(environ={}) as engine:
        result = await engine.run(options)
    return result, root / "runs" / result.run_id


def told(result: RunResult) -> str:
    return "\n".join(f"{check.id}: {check.status} {check.score}: {check.detail}" for check in result.checks)


def tool_exit_code(folder: Path) -> int | None:
    lines = [json.loads(line) for line in (folder / "transcript.jsonl").read_text(encoding="utf-8").splitlines()]
    code: int | None = next(line["exit_code"] for line in lines if line["type"] == "tool_finished")
    return code


async def attack_and_see(attack: dict[str, Any], root: Path, sandbox: str) -> None:
    result, folder = await play(root, attack["checks"], attack["script"], sandbox)
    assert result.status == "completed", result.error
    assert tool_exit_code(folder) == 0, "the attack was not carried out"
    assert (result.score, result.passed) == (0.0, False), told(result)
    assert all(check.status in {"failed", "error"} for check in result.checks), told(result)


@pytest.mark.parametrize("sandbox", ["bubblewrap", "docker"])
async def test_the_honest_work_passes_every_check_and_the_untouched_workspace_none(
    tmp_path: Path, sandbox: str
) -> None:
    """What the attacks below are after can be had, and is not there from the beginning."""
    attacks = ATTACKS if sandbox == "bubblewrap" else IN_DOCKER
    wanted = {check for attack in attacks for check in attack["checks"]}
    names = [name for name in sorted(wanted) if name not in {"port", "loose_metric", "told_metric"}]
    solve = f"printf '%s' '{RIGHT}' > solution.py; mkdir out; echo 5 > out/report.txt; touch done.txt"
    solved, _ = await play(tmp_path / "solved", names, solve, sandbox)
    assert (solved.score, solved.passed) == (1.0, True), told(solved)
    untouched, _ = await play(tmp_path / "untouched", sorted(wanted), None, sandbox)
    assert untouched.score == 0.0, told(untouched)


def test_the_ids_of_attacks_are_their_own() -> None:
    assert len({attack["id"] for attack in ATTACKS}) == len(ATTACKS) >= 40


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack["id"])
async def test_an_attack_gains_nothing(tmp_path: Path, attack: dict[str, Any]) -> None:
    await attack_and_see(attack, tmp_path, "bubblewrap")


@pytest.mark.parametrize("attack", IN_DOCKER, ids=lambda attack: attack["id"])
async def test_an_attack_gains_nothing_in_a_container(tmp_path: Path, attack: dict[str, Any]) -> None:
    await attack_and_see(attack, tmp_path, "docker")


@pytest.mark.parametrize("name", ["os_exit_when_imported", "modules_named_like_pytest"])
async def test_a_call_of_pytest_within_other_shell_runs_as_written_and_can_be_cheated(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attacks are live; docs/judging.md says which commands are run apart from the work."""
    monkeypatch.setitem(
        COMMANDS,
        "plain",
        {"type": "command_exit_zero", "command": 'cd . && python3 -m pytest -q "$FBENCH_GRADER/tests"'},
    )
    attack = next(attack for attack in ATTACKS if attack["id"] == name)
    result, _ = await play(tmp_path, ["plain"], attack["script"], "bubblewrap")
    assert result.score == 1.0, told(result)
