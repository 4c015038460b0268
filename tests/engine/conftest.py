"""Fixtures for whole runs: small tasks, scripts of fake models, one engine a test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from fbench.engine import Engine, RunOptions, RunResult

MakeTask = Callable[..., Path]
MakeScript = Callable[..., str]


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
