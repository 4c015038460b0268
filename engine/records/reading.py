"""Read what runs left behind, whatever state it is in: transcripts, results, folders."""

import difflib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from stat import S_ISREG
from typing import Any, Literal

from pydantic import ValidationError

from fbench.engine.errors import FbenchError, UnknownNameError
from fbench.engine.results import SCHEMA_VERSION, Record, RunResult

RESULT = "result.json"
TRANSCRIPT = "transcript.jsonl"
LEDGER = "ledger.jsonl"
SNAPSHOT = "manifest.snapshot.yaml"
SUITE = "suite.json"
"""In the folder of a suite run, which is no run folder."""

MAX_RESULT_BYTES = 64 * 1024 * 1024
"""Thousands of checks with long details stay far below."""

RUN_ID = re.compile(
    r"(?P<time>\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}Z)__(?P<task>.+?)__(?P<model>[a-z0-9_]+)__(?P<hex>[0-9a-f]+)"
)
SUITE_RUN_ID = re.compile(r"(?P<time>\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}Z)__suite__(?P<suite>.+)__(?P<hex>[0-9a-f]+)")

_STARTED_WITHIN_LINES = 50
"""`run_started` is the first event; a few lines of grace cost nothing."""


_SHOWN = 5
"""Ids listed when several fit."""


class Unreadable(FbenchError):
    """A stored file that says nothing certain: damaged, or written by a newer fbench."""


@dataclass(frozen=True, slots=True)
class StartedRun:
    """What is known of a run before its end. `owner` is the process that runs it, `host:pid:start`."""

    run_id: str
    task_id: str | None
    model: str | None
    started_at: str | None
    attempt: int | None = None
    suite_run_id: str | None = None
    sandbox: str | None = None
    seed: int | None = None
    fbench_version: str | None = None
    task_hash: str | None = None
    task_folder: str | None = None
    owner: str | None = None

    def facts(self) -> dict[str, str | int | None]:
        """Every field by its name."""
        return {known.name: getattr(self, known.name) for known in fields(self)}


class SuiteRecord(Record):
    """How far a suite run is, as its folder and the index say it; `unfinished` while runs are owed."""

    schema_version: int = SCHEMA_VERSION
    suite_run_id: str
    suite: str
    status: Literal["finished", "unfinished"]
    started_at: str
    finished_at: str | None = None


def read_suites(runs_dir: Path) -> list[SuiteRecord]:
    """The suite runs whose folders lie in `runs_dir`, oldest first; what cannot be read is left out."""
    found = []
    for path in sorted(runs_dir.glob(f"*__suite__*/{SUITE}")):
        try:
            suite = SuiteRecord.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            continue
        if suite.suite_run_id == path.parent.name and suite.schema_version <= SCHEMA_VERSION:
            found.append(suite)
    return found


def read_transcript(path: Path) -> Iterator[dict[str, Any]]:
    """The transcript's events in order.

    A torn last line, as a killed process leaves it, is left out; a damaged line before it comes as
    `{"type": "unreadable", "line": N}`. A missing file has no events.

    Raises:
        Unreadable: the file is there and cannot be read.
    """
    try:
        with _open_regular(path) as file:
            damaged: int | None = None
            line = b""
            for number, line in enumerate(file, start=1):
                if damaged is not None:
                    yield {"type": "unreadable", "line": damaged}
                    damaged = None
                if not line.strip():
                    continue
                event = _json_object(line)
                if event is None:
                    damaged = number
                else:
                    yield event
            if damaged is not None and line.endswith(b"\n"):
                yield {"type": "unreadable", "line": damaged}
    except FileNotFoundError:
        return
    except OSError as error:
        msg = f"the transcript {path} cannot be read: {error.strerror or error}"
        raise Unreadable(msg) from error


def read_result(folder: Path) -> RunResult | None:
    """The run's result; None when the folder has none, which is an unfinished run.

    Raises:
        Unreadable: there is one, but it is damaged or of a newer schema.
    """
    path = folder / RESULT
    try:
        with _open_regular(path) as file:
            data = file.read(MAX_RESULT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror or error}"
        raise Unreadable(msg) from error
    document = _json_object(data, _refuse) if len(data) <= MAX_RESULT_BYTES else None
    if document is None:
        msg = f"{path} is damaged: it holds no JSON object"
        raise Unreadable(msg)
    if (newer := newer_schema(document, path, SCHEMA_VERSION)) is not None:
        raise Unreadable(newer)
    try:
        return RunResult.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        msg = f"{path} is damaged: `{where}` {first['msg']} ({error.error_count()} problem(s))"
        raise Unreadable(msg) from error


def newer_schema(document: object, path: Path, known: int) -> str | None:
    """What to say of a document whose `schema_version` is above the one `known` here; None when it is not."""
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int) or version <= known:
        return None
    return (
        f"{path} has schema_version {version}, this fbench reads up to {known}; upgrade fbench "
        f"(distribution factory-bench)"
    )


def run_folders(runs_dir: Path) -> list[Path]:
    """The run folders in `runs_dir`, oldest first: folders that hold a run's files, or were named for one and no more.

    Raises:
        Unreadable: `runs_dir` is there and cannot be listed.
    """
    try:
        with os.scandir(runs_dir) as entries:
            folders = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    except OSError as error:
        msg = f"the runs folder {runs_dir} cannot be listed: {error.strerror or error}"
        raise Unreadable(msg) from error
    return sorted((folder for folder in folders if is_run_folder(folder)), key=lambda folder: folder.name)


def is_run_folder(folder: Path) -> bool:
    """Whether the folder holds a run's files, or was named for a run and got no further."""
    if any((folder / name).exists() for name in (RESULT, TRANSCRIPT, SNAPSHOT)):
        return True
    return RUN_ID.fullmatch(folder.name) is not None and SUITE_RUN_ID.fullmatch(folder.name) is None


def find_run(runs_dir: Path, wanted: str) -> Path:
    """The run folder that `wanted` means: a run's id, the beginning of just one id, or a folder's path.

    Raises:
        UnknownNameError: there is no such run, or more than one.
        Unreadable: `runs_dir` cannot be listed.
    """
    for path in (runs_dir / wanted, Path(wanted)):
        if wanted and path.is_dir() and is_run_folder(path):
            return path
    names = [folder.name for folder in run_folders(runs_dir)]
    matches = [name for name in names if name.startswith(wanted)] if wanted else []
    if len(matches) == 1:
        return runs_dir / matches[0]
    if matches:
        shown = ", ".join(matches[:_SHOWN]) + (", ..." if len(matches) > _SHOWN else "")
        msg = f"{wanted!r} begins the ids of {len(matches)} runs in {runs_dir}: {shown}; write more of the one you mean"
        raise UnknownNameError(msg)
    near = (
        difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
        or [name for name in reversed(names) if wanted and wanted in name][:3]
    )
    hint = (
        f"near ones: {', '.join(near)}"
        if near
        else "`fbench runs` lists those there are; --runs-dir names another folder"
    )
    msg = f"no run {wanted!r} in {runs_dir}; {hint}"
    raise UnknownNameError(msg)


def read_started(folder: Path) -> StartedRun:
    """What an unfinished run's folder tells: its `run_started` event, else its snapshot, else its name."""
    event: dict[str, Any] = {}
    try:
        for number, found in enumerate(read_transcript(folder / TRANSCRIPT)):
            if found.get("type") == "run_started":
                event = found
            if event or number >= _STARTED_WITHIN_LINES:
                break
    except Unreadable:
        event = {}
    named = RUN_ID.fullmatch(folder.name)
    return StartedRun(
        run_id=folder.name,
        task_id=_text(event.get("task_id")) or _snapshot_id(folder) or (named["task"] if named else None),
        model=_text(event.get("model")),
        started_at=_text(event.get("started_at"))
        or _text(event.get("time"))
        or (time_of_id(named["time"]) if named else None),
        attempt=_integer(event.get("attempt")),
        suite_run_id=_text(event.get("suite_run_id")),
        sandbox=_text(event.get("sandbox")),
        seed=_integer(event.get("seed")),
        fbench_version=_text(event.get("fbench_version")),
        task_hash=_text(event.get("task_hash")),
        task_folder=_text(event.get("task_folder")),
        owner=_text(event.get("owner")),
    )


def time_of_id(text: str) -> str:
    """The time in an id, as other files write times.

    >>> time_of_id("2026-05-13T20-40-21Z")
    '2026-05-13T20:40:21Z'
    """
    day, _, clock = text.partition("T")
    return f"{day}T{clock.replace('-', ':')}"


def _refuse(constant: str) -> object:
    msg = f"{constant} is no JSON"
    raise ValueError(msg)


def _open_regular(path: Path) -> Any:  # noqa: ANN401 - a buffered binary file
    """Open for reading; never waits on a FIFO that somebody put there."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if S_ISREG(os.fstat(fd).st_mode):
        return os.fdopen(fd, "rb")
    os.close(fd)
    raise OSError(0, "it is no regular file")


def _json_object(line: bytes, constant: Callable[[str], object] = str) -> dict[str, Any] | None:
    """The object a line holds. NaN is no JSON: in an event it can be shown as a text, a score it cannot be."""
    try:
        value = json.loads(line, parse_constant=constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _snapshot_id(folder: Path) -> str | None:
    """The snapshot's `id`, read as text: a torn snapshot is no valid YAML any more."""
    try:
        with _open_regular(folder / SNAPSHOT) as file:
            head = file.read(64 * 1024)
    except OSError:
        return None
    match = re.search(rb"^id:[ ]*['\"]?([a-z0-9_]+)['\"]?[ ]*$", head, re.MULTILINE)
    return match[1].decode() if match else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
