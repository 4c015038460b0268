"""What a command that takes a run or a suite run means: the folders of its runs."""

from pathlib import Path
from typing import NamedTuple

from fbench.engine.errors import UnknownNameError
from fbench.engine.records.reading import (
    LEDGER,
    SUITE_RUN_ID,
    Unreadable,
    find_run,
    is_run_folder,
    read_result,
    read_started,
    run_folders,
)

_SHOWN = 5


class Target(NamedTuple):
    """What was asked for: one run (`suite_run_id` is None) or all runs of a suite run, oldest first."""

    suite_run_id: str | None
    folders: tuple[Path, ...]


def find_target(runs_dir: Path, wanted: str) -> Target:
    """What `wanted` means: a run as `find_run` finds it, or a suite run's id, or the beginning of just one.

    Raises:
        UnknownNameError: there is no such run or suite run, or more than one.
        Unreadable: `runs_dir` cannot be listed.
    """
    for path in (runs_dir / wanted, Path(wanted)):
        is_suite = SUITE_RUN_ID.fullmatch(path.name) is not None and not (path / LEDGER).exists()
        if wanted and path.is_dir() and is_run_folder(path) and not is_suite:
            return Target(None, (path,))
    name = wanted
    if SUITE_RUN_ID.fullmatch(Path(wanted).name) and Path(wanted).is_dir():
        runs_dir, name = Path(wanted).parent, Path(wanted).name
    if "__suite__" not in name:
        return Target(None, (find_run(runs_dir, wanted),))
    suites: dict[str, list[Path]] = {}
    for folder in run_folders(runs_dir):
        if (suite_run_id := _suite_of(folder)) is not None:
            suites.setdefault(suite_run_id, []).append(folder)
    matches = [name] if name in suites else sorted(known for known in suites if known.startswith(name))
    if len(matches) == 1:
        return Target(matches[0], tuple(suites[matches[0]]))
    if matches:
        shown = ", ".join(matches[:_SHOWN]) + (", ..." if len(matches) > _SHOWN else "")
        begun = f"{name!r} begins the ids of {len(matches)} suite runs in {runs_dir}"
        msg = f"{begun}: {shown}; write more of the one you mean"
        raise UnknownNameError(msg)
    there = ", ".join(sorted(suites)[-_SHOWN:]) or "none"
    msg = f"no run in {runs_dir} belongs to a suite run {name!r}; the newest suite runs there: {there}"
    raise UnknownNameError(msg)


def _suite_of(folder: Path) -> str | None:
    """The suite run a run belongs to; an unfinished one says so where it began."""
    try:
        result = read_result(folder)
    except Unreadable:
        result = None
    return result.suite_run_id if result is not None else read_started(folder).suite_run_id
