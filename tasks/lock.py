"""`task.lock`: what `fbench validate` found in a task, and the hash of the content it found it in."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from fbench.tasks.errors import TaskError
from fbench.tasks.folder_rules import UnusableFile, read_text
from fbench.tasks.hashing import LOCK_NAME

SCHEMA_VERSION = 1
MAX_LOCK_BYTES = 1_000_000


class TaskLock(BaseModel):
    """The outcome of one validation.

    Attributes:
        task_hash: of the content that was validated; the lock says nothing of any other.
        is_valid: whether nothing was at fault.
        faults: what was, in words.
        untouched_score: what doing nothing scored.
        solution_passed, solution_runs: how often the reference solution passed, of how many runs.
        exploit_scores: what each exploit scored, by its path in the task's folder.
        sandbox: the kind it ran in.
        validated_at: UTC, ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    task_hash: str
    is_valid: bool
    faults: tuple[str, ...]
    untouched_score: float
    solution_passed: int
    solution_runs: int
    exploit_scores: Mapping[str, float]
    sandbox: str
    fbench_version: str
    validated_at: str


def read_lock(folder: Path) -> TaskLock | None:
    """The lock of the task in the folder, None when there is none.

    Raises:
        TaskError: it cannot be read, is none, or was written by a later version of fbench.
    """
    path = folder / LOCK_NAME
    if not os.path.lexists(path):
        return None
    try:
        document = json.loads(read_text(path, MAX_LOCK_BYTES))
        lock = TaskLock.model_validate(document)
    except UnusableFile as error:
        raise _unusable(folder, str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _unusable(folder, "it is no lock, or of a later fbench") from error
    if lock.schema_version > SCHEMA_VERSION:
        newer = f"its schema_version {lock.schema_version} is newer than {SCHEMA_VERSION}, the latest this fbench knows"
        raise _unusable(folder, newer)
    return lock


def write_lock(folder: Path, lock: TaskLock) -> None:
    """Put the lock into the task's folder, in place of an older one.

    The old file is unlinked, not written over: installers link files of a wheel to a cache of theirs. No other name is
    used on the way, for whatever else lies in the folder is a part of the task's hash.

    Raises:
        OSError: the folder cannot be written to.
    """
    path = folder / LOCK_NAME
    text = json.dumps(lock.model_dump(mode="json"), indent=2, ensure_ascii=True) + "\n"
    path.unlink(missing_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def why_unvalidated(folder: Path, task_hash: str) -> str | None:
    """Why the task in the folder, whose content has this hash, does not count as validated; None when it does."""
    try:
        lock = read_lock(folder)
    except TaskError as error:
        return str(error)
    if lock is None:
        return "`fbench validate` has not been run on it"
    if lock.task_hash != task_hash:
        return "it has changed since `fbench validate` was run on it"
    return None if lock.is_valid else "`fbench validate` found it at fault"


def _unusable(folder: Path, why: str) -> TaskError:
    return TaskError(f"{LOCK_NAME} of the task {folder.name} cannot be used: {why}; `fbench validate` writes it again")
