"""From a folder to a task: the manifest, the prompt and the hash, or every problem with its file and line."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from fbench.tasks.diagnosis import Diagnosis, diagnose
from fbench.tasks.errors import ManifestError, Problem, TaskError
from fbench.tasks.find import MANIFEST_NAME
from fbench.tasks.folder_rules import UnusableFile, broken_folder_rules, read_prompt, read_text
from fbench.tasks.hashing import hash_task
from fbench.tasks.kept import Kept
from fbench.tasks.manifest import TaskManifest
from fbench.tasks.outside import own_types
from fbench.tasks.yaml_lines import Document, UnreadableYaml, read_yaml

MAX_MANIFEST_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """A task that obeys every rule; `folder` is absolute, `prompt` what the agent is asked first."""

    manifest: TaskManifest
    folder: Path
    prompt: str
    task_hash: str


@dataclass(frozen=True, slots=True)
class TaskInspection:
    """A task as far as it could be read.

    Attributes:
        manifest: None when there are problems in it.
        resolved: what holds, defaults filled in, as JSON types; wrong values are left out. None when task.yaml is no
            YAML mapping.
        problems: everything that is wrong, in the order of lines; empty for a task that can be run.
        task_hash: None when the folder has none.
    """

    folder: Path
    manifest: TaskManifest | None
    resolved: dict[str, Any] | None
    problems: tuple[Problem, ...]
    prompt: str | None = None
    task_hash: str | None = None


_kept: Kept[LoadedTask] = Kept()


def load_task(folder: Path) -> LoadedTask:
    """The task in the folder; one that has not changed since it was last read is not read again.

    Raises:
        ManifestError: something is wrong with it; every problem is listed.
    """
    place = Path(os.path.abspath(folder))  # noqa: PTH100 - no link is resolved: the id has to be the folder's name
    # A program's own types of checks may be others next time.
    stamp, kept = (None, None) if own_types.get() else _kept.look_up(place)
    if kept is not None:
        return kept
    found = inspect_task(folder)
    if found.problems or found.manifest is None or found.prompt is None or found.task_hash is None:
        raise ManifestError(found.problems)
    task = LoadedTask(found.manifest, found.folder, found.prompt, found.task_hash)
    _kept.keep(place, stamp, task)
    return task


def inspect_task(folder: Path) -> TaskInspection:
    """The task in the folder as far as it can be read; whatever is wrong with it is a problem, no exception."""
    shown = str(folder / MANIFEST_NAME)
    if not _is_folder(folder):
        problem = Problem(str(folder), None, "", "no such folder", "a task is a folder with a task.yaml")
        return TaskInspection(folder, None, None, (problem,))
    root = folder.resolve()
    document, problems = _read(root, shown)
    diagnosis = diagnose(document) if document else Diagnosis()
    problems += [Problem(shown, item.line, dotted(item.path), item.message, item.hint) for item in diagnosis.findings]
    for found in broken_folder_rules(root, diagnosis.values):
        line = document.line_of(found.path) if document and found.path else None
        file = shown if found.path else str(folder)
        problems.append(Problem(file, line, dotted(found.path), found.message, found.hint))
    task_hash = None
    try:
        task_hash = hash_task(root)
    except TaskError as error:
        problems.append(Problem(str(folder), None, "", str(error)))
    unique = _in_order(problems)
    resolved = diagnosis.resolved if document and isinstance(document.data, dict) else None
    if unique or document is None:
        return TaskInspection(root, None, resolved, unique, task_hash=task_hash)
    manifest = TaskManifest.model_validate(document.data)
    try:
        prompt = read_prompt(root, vars(manifest.agent))
    except UnusableFile as error:  # it was there a moment ago
        problem = Problem(shown, document.line_of(("agent",)), "agent.prompt", f"the prompt {error}")
        return TaskInspection(root, None, resolved, (problem,), task_hash=task_hash)
    return TaskInspection(root, manifest, manifest.model_dump(mode="json"), (), prompt, task_hash)


def dump_manifest(manifest: TaskManifest) -> str:
    """The manifest as YAML, defaults filled in; it loads again to an equal manifest."""
    return _dump_document(manifest.model_dump_json())


@lru_cache(maxsize=128)
def _dump_document(document: str) -> str:
    """A JSON document as YAML; kept, for the runs of a suite write down the same few manifests."""
    return dump_yaml(json.loads(document))


def load_manifest(text: str) -> TaskManifest:
    """The manifest in a text that `dump_manifest` made, a run's snapshot for example; no folder is looked at.

    Raises:
        ManifestError: the text is none.
    """
    shown = "manifest.snapshot.yaml"
    try:
        document = read_yaml(text, _is_verbatim)
    except UnreadableYaml as error:
        raise ManifestError([Problem(shown, error.line, "", error.message, error.hint)]) from error
    findings = diagnose(document).findings
    if findings:
        raise ManifestError(
            _in_order([Problem(shown, item.line, dotted(item.path), item.message, item.hint) for item in findings])
        )
    return TaskManifest.model_validate(document.data)


def dump_yaml(data: object) -> str:
    """JSON-like data as YAML in the order of its keys."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks; those with characters that a line of YAML would lose in double quotes."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    lines = text.split("\n")
    if not all(line.isprintable() for line in lines):
        style = '"'
    elif len(lines) > 1:
        is_plain = lines[0][:1].strip() and all(line == line.rstrip() for line in lines)
        style = "|" if is_plain else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dotted(path: Sequence[str | int]) -> str:
    """A path as it is written in messages.

    >>> dotted(("grader", "checks", 2, "threshold"))
    'grader.checks[2].threshold'
    """
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.replace("_", "").replace("-", "").isalnum() or part == "<<":
            text += f".{part}" if text else part
        else:
            text += f"[{part!r}]"
    return text


def _is_verbatim(path: Sequence[str | int]) -> bool:
    """Whether a scalar is taken as it is written: the value of an environment variable (`PYTHON: 3.10`)."""
    match path:
        case ("environment", "env", str()) | ("environment", "services", str(), "env", str()):
            return True
    return False


def _is_folder(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except (OSError, ValueError):
        return False


def _read(root: Path, shown: str) -> tuple[Document | None, list[Problem]]:
    path = root / MANIFEST_NAME
    if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
        return None, [Problem(shown, None, "", "is a link that leads out of the task", "put the file itself there")]
    try:
        return read_yaml(read_text(path, MAX_MANIFEST_BYTES), _is_verbatim), []
    except UnusableFile as error:
        hint = "a task is a folder with a task.yaml, a regular file of UTF-8 text"
        return None, [Problem(shown, None, "", str(error), hint)]
    except UnreadableYaml as error:
        return None, [Problem(shown, error.line, "", error.message, error.hint)]


def _in_order(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """By line, each once: an alias repeats what is wrong at its anchor."""
    seen: dict[tuple[object, ...], Problem] = {}
    for problem in problems:
        last = problem.key.rpartition(".")[2]
        seen.setdefault((problem.file, problem.line, last, problem.message), problem)
    return tuple(sorted(seen.values(), key=lambda problem: problem.line or 0))
