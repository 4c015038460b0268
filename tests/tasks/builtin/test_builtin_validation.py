"""Every shipped task: its lock is of its content as it is, and it is valid in the sandbox that `auto` gives it."""

import os
from pathlib import Path

import pytest

from fbench.engine import Engine
from fbench.engine.validating import ValidationOptions, validate_task
from fbench.tasks.find import builtin_tasks
from fbench.tasks.hashing import hash_task
from fbench.tasks.loading import load_task
from fbench.tasks.lock import why_unvalidated

IMAGES = {"postgres:16-alpine": "fbench/postgres:1"}
"""Nothing is pulled in CI."""
WRONG_USAGE = 2

every_task = pytest.mark.parametrize("folder", [pytest.param(folder, id=folder.name) for folder in builtin_tasks()])


@every_task
def test_a_shipped_task_was_validated_since_it_was_changed(folder: Path) -> None:
    why = why_unvalidated(folder, hash_task(folder))
    assert why is None, f"{why}: run `fbench validate --task {folder.name}` and commit its task.lock"


@every_task
async def test_a_shipped_task_is_valid_in_its_own_sandbox(folder: Path, tmp_path: Path) -> None:
    options = ValidationOptions(tmp_path / "runs", concurrency=1, image_map=IMAGES, writes_lock=False)
    async with Engine(environ={}) as engine:
        found = await validate_task(engine, load_task(folder), options)
    if found.exit_code == WRONG_USAGE and os.environ.get("FBENCH_REQUIRE_DOCKER") != "1":
        pytest.skip(f"NOT TESTED HERE: {found.troubles[0]}")
    assert (found.outcome, found.faults, found.troubles) == ("valid", (), ())
    assert {run.part for run in found.runs} == {"untouched", "solution", "exploit"}
    # A cheat that broke off would have shown nothing.
    assert {run.title: run.script_exit_code for run in found.runs if run.script_exit_code not in {None, 0}} == {}
