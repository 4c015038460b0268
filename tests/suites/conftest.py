"""Fixtures for suites: small tasks, scripts of fake models, suite files, the command line in this process."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from fbench.engine.results import RunResult
from fbench.suites.commands.suite import suite as suite_command


@dataclass(frozen=True, slots=True)
class Workshop:
    """Makes what a suite needs below one folder, and runs `fbench suite` there in the local sandbox."""

    root: Path
    runs_dir: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "runs_dir", self.root / "runs")

    def task(self, task_id: str, **sections: Any) -> Path:
        """A task folder whose one check wants `done.txt`; keywords are sections of its manifest."""
        folder = self.root / "tasks" / task_id
        manifest = {
            "id": task_id,
            "title": f"The task {task_id}",
            "difficulty": "easy",
            "domain": "testing",
            "agent": {"prompt_text": f"Make done.txt for {task_id}."},
            "grader": {"checks": [{"id": "done", "type": "file_present", "path": "done.txt"}]},
            "solution": "solution/solve.sh",
            **sections,
        }
        for name, text in {
            "task.yaml": yaml.safe_dump(manifest, sort_keys=False),
            "workspace/readme.txt": "start\n",
            "solution/solve.sh": "echo done > done.txt\n",
        }.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return folder

    def script(self, name: str = "script", *, command: str = "echo done > done.txt", latency_s: float = 0.0) -> str:
        """A model that runs one command, then submits; gives its name."""
        call = {"name": "bash", "arguments": {"command": command}}
        submit = {"name": "submit", "arguments": {}}
        turns = [{"tool_calls": [each], "latency_s": latency_s} for each in (call, submit)]
        path = self.root / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"turns": turns}), encoding="utf-8")
        return f"fake/script:{path}"

    def suite(self, *tasks: str, **sections: Any) -> Path:
        """A suite file beside the tasks' folder; without tasks it takes them all."""
        path = self.root / "suite.yaml"
        manifest = {"id": "small", "tasks": list(tasks) or ["./tasks/*"], "sandbox": "local", **sections}
        path.write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
        return path

    def invoke(self, *arguments: object) -> Result:
        """`fbench suite ARGUMENTS --runs-dir ...`; what it raised is in the result."""
        given = [str(argument) for argument in arguments]
        return CliRunner().invoke(suite_command, [*given, "--runs-dir", str(self.runs_dir)])

    def fbench(self, *arguments: object, expect: int = 0) -> dict[str, Any]:
        """The same with --json: its document."""
        done = self.invoke(*arguments, "--json")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert done.exit_code == expect, done.output
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def results(self) -> list[RunResult]:
        """Every result.json of the runs folder."""
        found = sorted(self.runs_dir.glob("*/result.json"))
        return [RunResult.model_validate_json(path.read_text(encoding="utf-8")) for path in found]


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture(autouse=True)
def _no_handlers_stay() -> Iterator[None]:
    """The command line gives the log a handler on stderr, which is this test's."""
    logger = logging.getLogger("fbench")
    before = (list(logger.handlers), logger.level, logger.propagate)
    yield
    logger.handlers, logger.level, logger.propagate = before
