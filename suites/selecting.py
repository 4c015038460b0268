"""The tasks of a suite: its entries looked up, its filters applied, in the order of the file."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from fbench.suites.manifest import EVERY_BUILT_IN, Filter, LoadedSuite, SuiteError
from fbench.tasks.errors import ManifestError, Problem, TaskError, UnknownTask
from fbench.tasks.find import MANIFEST_NAME, builtin_tasks, find_task
from fbench.tasks.loading import LoadedTask, load_task
from fbench.tasks.manifest import TaskManifest

if TYPE_CHECKING:
    from collections.abc import Sequence

_PATTERN = frozenset("*?[")


def select_tasks(suite: LoadedSuite) -> tuple[LoadedTask, ...]:
    """The tasks of the suite, each loaded and each once. Blocking.

    Raises:
        SuiteError: an entry means no task, a task is broken, or nothing is left; every problem is listed.
    """
    problems: list[Problem] = []
    left_out = {folder.resolve() for folder in _folders(suite, "exclude", problems)}
    chosen = [folder for folder in _folders(suite, "tasks", problems) if folder.resolve() not in left_out]
    tasks: dict[str, LoadedTask] = {}
    for folder in dict.fromkeys(path.resolve() for path in chosen):
        try:
            task = load_task(folder)
        except ManifestError as error:
            problems += error.problems
            continue
        twin = tasks.setdefault(task.manifest.id, task)
        if twin is not task:
            message = f"two folders hold a task {task.manifest.id!r}: {twin.folder} and {task.folder}"
            problems.append(suite.problem(("tasks",), message, "exclude one of them"))
    for task_id in suite.manifest.overrides:
        if task_id not in tasks and not problems:
            message = f"no task of this suite has the id {task_id!r}"
            problems.append(suite.problem(("overrides", task_id), message, f"its tasks: {', '.join(tasks)}"))
    kept = tuple(task for task in tasks.values() if fits(suite.manifest.filter, task.manifest))
    if not kept and not problems:
        where, message = (
            ("filter", f"none of the {len(tasks)} tasks is left") if tasks else ("exclude", "no task is left")
        )
        problems.append(suite.problem((where,), message, "loosen the filter or exclude less"))
    if problems:
        raise SuiteError(problems)
    return kept


def fits(wanted: Filter, task: TaskManifest) -> bool:
    """Whether a task answers to every key of a filter."""
    return (
        (not wanted.difficulty or task.difficulty in wanted.difficulty)
        and (not wanted.domain or task.domain in wanted.domain)
        and (not wanted.tags or not set(wanted.tags).isdisjoint(task.tags))
        and (wanted.services is None or task.environment.needs_compose == wanted.services)
    )


def _folders(suite: LoadedSuite, key: str, problems: list[Problem]) -> list[Path]:
    """The folders that the entries under `key` mean; one that means nothing becomes a problem."""
    entries: Sequence[str] = getattr(suite.manifest, key)
    found: list[Path] = []
    for position, entry in enumerate(entries):
        try:
            folders = _look_up(entry, suite.path.parent)
        except TaskError as error:
            problems.append(suite.problem((key, position), str(error)))
            continue
        if not folders:
            message = f"no task answers to the pattern {entry!r}"
            hint = "a pattern with a '/' is looked up from the suite's file, one without among the built-in ids"
            problems.append(suite.problem((key, position), message, hint))
        found += folders
    return found


def _look_up(entry: str, base: Path) -> list[Path]:
    if entry == EVERY_BUILT_IN:
        return builtin_tasks()
    is_pattern = not _PATTERN.isdisjoint(entry)
    if "/" not in entry:
        if is_pattern:
            return [folder for folder in builtin_tasks() if fnmatchcase(folder.name, entry)]
        known = {folder.name: folder for folder in builtin_tasks()}
        if (base / entry / MANIFEST_NAME).is_file():  # beside the file, and never in whatever folder one works in
            return [base / entry]
        if entry not in known:
            raise UnknownTask(entry, list(known))
        return [known[entry]]
    path = Path(entry).expanduser()
    if not is_pattern:
        return [find_task(str(path if path.is_absolute() else base / path))]
    if path.is_absolute():
        base, entry = Path(path.anchor), str(path.relative_to(path.anchor))
    matches = sorted(base.glob(entry.rstrip("/")))
    return [folder for folder in matches if (folder / MANIFEST_NAME).is_file()]
