"""Where a task is: a folder of the user's, or a built-in task by its id."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from fbench.tasks.errors import TaskError, UnknownTask

MANIFEST_NAME = "task.yaml"


def builtin_tasks() -> list[Path]:
    """The folders of the tasks that come with fbench, sorted by id."""
    root = files("fbench.tasks")
    if not isinstance(root, Path):
        msg = "fbench is installed in an archive, where its tasks cannot be used; install it into a folder"
        raise TaskError(msg)
    return _tasks_in(root)


def find_task(ref: str, folders: Sequence[Path] = ()) -> Path:
    """The folder of the task that `ref` names.

    Args:
        ref: a folder with a task.yaml, the path of a task.yaml, or an id. A folder goes before an id.
        folders: folders of tasks in which an id is looked up before the built-in ones.

    Raises:
        UnknownTask: nothing answers to it; the text lists near ids.
        TaskError: it is a path, but of no task.
    """
    if not ref.strip() or "\0" in ref:
        raise UnknownTask(ref, [task.name for task in builtin_tasks()])
    path = Path(ref)
    if path.name == MANIFEST_NAME and _exists(path) and not path.is_dir():
        return path.parent
    if _exists(path / MANIFEST_NAME):
        return path
    known = [task for folder in folders for task in _tasks_in(folder)] + builtin_tasks()
    for task in known:
        if task.name == ref:
            return task
    if _exists(path):
        what = "has no task.yaml" if path.is_dir() else "is no task"
        msg = f"{ref!r} {what}; a task is a folder with a {MANIFEST_NAME}, or the id that `fbench list-tasks` shows"
        raise TaskError(msg)
    raise UnknownTask(ref, sorted({task.name for task in known}))


def _tasks_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if _exists(entry / MANIFEST_NAME))


def _exists(path: Path) -> bool:
    """Whether there is something, if only a broken link; names the system refuses (too long) are nothing."""
    try:
        path.lstat()
    except (OSError, ValueError):
        return False
    return True
