"""Fixtures for whole runs: small tasks, scripts of fake models, one engine a test."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from fbench.engine import Engine, RunOptions, RunResult

MakeTask = Callable[..., Path]
MakeScript = Callable[..., str]
Fbench = Callable[..., subprocess.CompletedProcess[str]]

FBENCH = (sys.executable, "-P", "-c", "from fbench.engine.cli import main; main()")
PATIENCE_S = 60.0


@pytest.fixture
def make_task(tmp_path: Path) -> MakeTask:
    """Makes a task folder: `make_task("id", files={...}, **sections)`; its one check wants `done.txt`."""

    def make(task_id: str = "small_task", *, files: dict[str, str] | None = None, **sections: Any) -> Path:
        folder = tmp_path / "tasks" / task_id
        manifest: dict[str, Any] = {
            "id": task_id,
            "title": "A small task",
            "difficulty": "easy",
            "domain": "testing",
            "agent": {"prompt_text": "Make done.txt."},
            "grader": {"checks": [{"id": "done", "type": "file_present", "path": "done.txt"}]},
            "solution": "solution/solve.sh",
        }
        manifest.update(sections)
        contents = {
            "task.yaml": yaml.safe_dump(manifest, sort_keys=False),
            "workspace/readme.txt": "start\n",
            "solution/solve.sh": "echo done > done.txt\n",
            "grader/secret.txt": "the answer\n",
            **(files or {}),
        }
        for name, text in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return folder

    return make


@pytest.fixture
def make_script(tmp_path: Path) -> MakeScript:
    """Makes a script file and gives the model's name: `make_script([turn, ...], loop=False)`."""

    def make(turns: list[dict[str, Any]], *, loop: bool = False, name: str = "script") -> str:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"turns": turns, "loop": loop}), encoding="utf-8")
        return f"fake/script:{path}"

    return make


class RunLocal(Protocol):
    """Runs a task in the local sandbox, with an engine that sees no environment; the result and the run's folder."""

    async def __call__(self, task: Path, model: str, **options: Any) -> tuple[RunResult, Path]: ...


@pytest.fixture
def run_local(tmp_path: Path) -> RunLocal:
    """See RunLocal."""

    async def run(task: Path, model: str, **options: Any) -> tuple[RunResult, Path]:
        runs_dir = tmp_path / "runs"
        given = {"task": task, "model": model, "sandbox": "local", "runs_dir": runs_dir, **options}
        async with Engine(environ={}) as engine:
            result = await engine.run(RunOptions.model_validate(given))
        return result, runs_dir / result.run_id

    return run


@pytest.fixture
def environ() -> dict[str, str]:
    """The environment without anything fbench or a provider would read."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FBENCH_", "OPENAI_"))}
    return {**kept, "PYTHONSAFEPATH": "1"}


@pytest.fixture
def fbench(tmp_path: Path, environ: dict[str, str]) -> Fbench:
    """Runs `fbench ARGUMENTS` in an empty folder."""
    folder = tmp_path / "cwd"
    folder.mkdir()

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*FBENCH, *arguments],
            cwd=folder,
            env={**environ, **more},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    return run
