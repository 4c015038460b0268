"""`task.lock`: written in place of an older one, read with suspicion."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fbench.tasks.errors import TaskError
from fbench.tasks.hashing import hash_task
from fbench.tasks.lock import TaskLock, read_lock, why_unvalidated, write_lock

if TYPE_CHECKING:
    from tests.tasks.conftest import WriteTask

LOCK = TaskLock(
    task_hash="sha256:0",
    is_valid=True,
    faults=(),
    untouched_score=0.0,
    solution_passed=3,
    solution_runs=3,
    exploit_scores={"exploits/a.sh": 0.0},
    sandbox="docker",
    fbench_version="0.1.0",
    validated_at="2026-05-13T20:40:21+00:00",
)


def test_a_lock_is_read_as_it_was_written_and_does_not_change_the_hash(write_task: "WriteTask") -> None:
    folder = write_task()
    before = hash_task(folder)
    assert read_lock(folder) is None
    write_lock(folder, LOCK)
    write_lock(folder, LOCK.model_copy(update={"sandbox": "bubblewrap"}))
    assert read_lock(folder) == LOCK.model_copy(update={"sandbox": "bubblewrap"})
    assert hash_task(folder) == before


def test_a_file_that_the_old_lock_was_linked_to_stays_as_it_is(write_task: "WriteTask", tmp_path: Path) -> None:
    folder = write_task()
    cached = tmp_path / "cached"
    cached.write_text("of an installer")
    os.link(cached, folder / "task.lock")
    write_lock(folder, LOCK)
    (folder / "task.lock").unlink()
    (folder / "task.lock").symlink_to(cached)
    write_lock(folder, LOCK)
    assert cached.read_text() == "of an installer"
    assert read_lock(folder) == LOCK


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"task_hash": "sha256:1"}, "it has changed"),
        ({"is_valid": False, "faults": ("bad",)}, "at fault"),
        ({"schema_version": 2}, "schema_version 2 is newer than 1"),
        ({"sandbox": None}, "no lock"),
        ({"more": 1}, "no lock"),
    ],
)
def test_only_a_good_lock_of_just_this_content_counts(
    write_task: "WriteTask", change: dict[str, object], why: str | None
) -> None:
    folder = write_task()
    (folder / "task.lock").write_text(json.dumps({**LOCK.model_dump(mode="json"), **change}))
    found = why_unvalidated(folder, "sha256:0")
    assert (found is None) == (why is None)
    assert (why or "") in (found or "")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"7"])
def test_what_is_no_lock_is_an_error_and_counts_as_none(write_task: "WriteTask", content: bytes) -> None:
    folder = write_task()
    (folder / "task.lock").write_bytes(content)
    with pytest.raises(TaskError, match="fbench validate"):
        read_lock(folder)
    assert why_unvalidated(folder, "sha256:0") is not None


def test_a_lock_that_is_a_pipe_or_a_folder_is_not_waited_for(write_task: "WriteTask") -> None:
    folder = write_task()
    os.mkfifo(folder / "task.lock")
    assert "no regular file" in (why_unvalidated(folder, "sha256:0") or "")
    (folder / "task.lock").unlink()
    assert "has not been run" in (why_unvalidated(folder, "sha256:0") or "")
