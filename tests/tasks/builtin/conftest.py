"""Grader commands of shipped tasks, run for real: `bash -c` in a copy of the workspace, as in a `local` sandbox."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from fbench.engine.models.script import load_script
from fbench.judging.compare_csv import compare_csv
from fbench.tasks.manifest import Check, CommandExitZero, FilePresent, ReferenceOutput, TaskManifest
from fbench.tasks.metric_checks import MetricCheck

TASKS = Path(__file__).resolve().parents[3] / "tasks"


@dataclass(frozen=True, slots=True)
class Judged:
    """Scores of all checks, by id, and what comes of them."""

    score: float
    passed: bool
    checks: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class BuiltinTask:
    """A shipped task with copies of its own in a temporary folder, so that a test may change even the grader."""

    folder: Path
    scratch: Path
    manifest: TaskManifest

    def open_workspace(self, name: str = "workspace") -> Path:
        """A new copy of the workspace as the agent gets it."""
        return Path(shutil.copytree(self.folder / "workspace", self.scratch / name))

    def run(self, command: str, workspace: Path) -> "subprocess.CompletedProcess[bytes]":
        """The command under bash in the workspace, with the variables and nothing else of this environment."""
        return subprocess.run(
            ["bash", "-c", command],
            cwd=workspace,
            env={
                "PATH": f"{Path(sys.executable).parent}:{os.defpath}:/usr/bin:/bin",
                "HOME": str(self.scratch),
                "LANG": "C.UTF-8",
                "FBENCH_WORKSPACE": str(workspace),
                "FBENCH_GRADER": str(self.folder / "grader"),
                "FBENCH_SOLUTION": str(self.folder / "solution"),
                "FBENCH_EXPLOITS": str(self.folder / "exploits"),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=180,
            check=False,
        )

    def measure(self, command: str, workspace: Path) -> dict[str, Any]:
        """The JSON object that a grader's command prints."""
        done = self.run(command, workspace)
        assert done.returncode == 0, done.stderr.decode()
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def solve(self, name: str = "solved") -> Path:
        """A workspace after the reference solution."""
        workspace = self.open_workspace(name)
        assert self.manifest.solution is not None
        script = Path(self.manifest.solution).name
        done = self.run(f'bash "$FBENCH_SOLUTION/{script}"', workspace)
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        return workspace

    def exploit(self, exploit: str) -> Path:
        """A workspace after one of the task's exploits."""
        workspace = self.open_workspace(Path(exploit).stem)
        done = self.run(f'bash "$FBENCH_EXPLOITS/{Path(exploit).name}"', workspace)
        assert done.returncode == 0, done.stderr.decode()
        return workspace

    def play_lazy(self, name: str = "lazy") -> Path:
        """A workspace after the commands of the task's `lazy.yaml`, a fake model that does the obvious, wrong thing."""
        workspace = self.open_workspace(name)
        script = load_script(self.folder / "lazy.yaml")
        for call in (call for turn in script.turns for call in turn.tool_calls if call.name != "submit"):
            assert call.name == "bash"
            assert isinstance(call.arguments, dict)
            done = self.run(call.arguments["command"], workspace)
            assert done.returncode == 0, done.stderr.decode()
        return workspace

    def judge(self, workspace: Path) -> Judged:
        """Every check of the manifest on pristine copies of the workspace, weighed as the contract says."""
        scores = {check.id: self.judge_one(check, workspace) for check in self.manifest.grader.checks}
        checks = self.manifest.grader.checks
        weighed = sum(check.weight * scores[check.id] for check in checks) / sum(check.weight for check in checks)
        gate_held = all(scores[check.id] >= 1.0 for check in checks if check.gating)
        score = weighed if gate_held else 0.0
        return Judged(score, gate_held and score >= self.manifest.grader.pass_threshold, scores)

    def judge_one(self, check: Check, workspace: Path) -> float:
        """The score of one check."""
        copy = self.scratch / f"judged_{workspace.name}_{check.id}"
        shutil.copytree(workspace, copy, symlinks=True)
        match check:
            case FilePresent():
                found = copy / check.path
                return float(found.is_file() and found.resolve().is_relative_to(copy.resolve()))
            case CommandExitZero():
                return float(self.run(check.command, copy).returncode == 0)
            case MetricCheck():
                assert check.command is not None
                assert isinstance(check.threshold, float)
                metric = json.loads(self.run(check.command, copy).stdout)[check.metric]
                assert type(metric) is float
                assert check.op in {">=", "<="}
                if metric == check.threshold or (metric > check.threshold) == (check.op == ">="):
                    return 1.0
                if check.baseline is None:
                    return 0.0
                return max(0.0, (metric - check.baseline) / (check.threshold - check.baseline))
            case ReferenceOutput():
                if check.path is None:
                    assert check.command is not None
                    got = self.run(check.command, copy).stdout
                else:
                    found = copy / check.path
                    got = b"" if found.is_symlink() or not found.is_file() else found.read_bytes()
                expected = (self.folder / check.reference).read_bytes()
                return float(compare_csv(expected, got, check.tolerance).is_equal)
            case _:
                pytest.fail(f"{check.type} is no check of a shipped task so far; judge it here")


@pytest.fixture
def open_builtin(tmp_path: Path) -> Callable[[str], BuiltinTask]:
    """Opens a copy of a shipped task by its id."""

    def open_task(task_id: str) -> BuiltinTask:
        folder = tmp_path / task_id
        shutil.copytree(TASKS / task_id, folder, ignore=shutil.ignore_patterns("__pycache__"))
        manifest = TaskManifest.model_validate(yaml.safe_load((folder / "task.yaml").read_text(encoding="utf-8")))
        scratch = tmp_path / f"{task_id}_work"
        scratch.mkdir()
        return BuiltinTask(folder, scratch, manifest)

    return open_task
