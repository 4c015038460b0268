"""The rules of a task that need its folder: what the manifest names is there, is a file of the task, and is hidden
from the agent where it has to be."""

import glob
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fbench.tasks.values import shorten

MAX_PROMPT_BYTES = 1_000_000

KeyPath = tuple[str | int, ...]

_JUDGING_FILES = {"reference_output": "reference", "llm_rubric": "rubric", "metric_check": "labels", "pytest": "tests"}
"""The file of the task that a check of a type names; the keys of outside types are their own affair."""


class FolderFinding(NamedTuple):
    """Something wrong in the folder; `path` is the manifest's key to blame, empty when none is."""

    path: KeyPath
    message: str
    hint: str = ""


class UnusableFile(Exception):
    """A file that cannot be used; the text says why, without its name."""


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    Raises:
        UnusableFile: it is none, is larger, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise UnusableFile(_why(error)) from error
    try:
        kind = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(kind):
            msg = "is a folder" if stat.S_ISDIR(kind) else "is no regular file"
            raise UnusableFile(msg)
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise UnusableFile(_why(error)) from error
    finally:
        os.close(descriptor)
    if len(data) > limit:
        msg = f"is larger than {limit:,} bytes"
        raise UnusableFile(msg)
    return data


def read_text(path: Path, limit: int) -> str:
    """The UTF-8 text of a regular file; a byte order mark is left out.

    Raises:
        UnusableFile: as read_bounded, or it is no UTF-8.
    """
    data = read_bounded(path, limit)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        msg = f"is not UTF-8 text: byte 0x{data[error.start]:02x} on line {line}"
        raise UnusableFile(msg) from error


def exploit_files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    """The regular files of the task that the patterns of `exploits` match, sorted, each once."""
    matched = {name for pattern in patterns for name in _matches(folder, pattern)}
    return sorted(folder / name for name in matched if (folder / name).is_file())


def read_prompt(folder: Path, agent: Mapping[str, Any]) -> str:
    """The prompt that `agent` (its values) names or holds, as the agent gets it.

    Raises:
        UnusableFile: its file cannot be used or is blank.
    """
    if agent.get("prompt") is None:
        return str(agent["prompt_text"])
    path = folder / agent["prompt"]
    if problem := _no_file_of(folder, agent["prompt"]):
        raise UnusableFile(problem)
    text = read_text(path, MAX_PROMPT_BYTES)
    if not text.strip():
        msg = "is blank"
        raise UnusableFile(msg)
    return text


def broken_folder_rules(folder: Path, values: Mapping[str, Any]) -> Iterator[FolderFinding]:
    """Every rule the folder breaks. `values` are those of the manifest that hold, nested mappings and lists."""
    root = folder.resolve()
    yield from _check_id(root, values)
    yield from _check_workspace(root)
    agent = values.get("agent") or {}
    environment = values.get("environment") or {}
    if agent.get("prompt") is not None:
        try:
            read_prompt(root, agent)
        except UnusableFile as error:
            yield FolderFinding(("agent", "prompt"), f"{shorten(agent['prompt'])} {error}", "write the prompt there")
    if (solution := values.get("solution")) is not None:
        yield from _check_hidden_file(root, ("solution",), solution, "solution")
    for position, pattern in enumerate(values.get("exploits") or ()):
        yield from _check_exploits(root, ("exploits", position), pattern)
    for position, check in enumerate((values.get("grader") or {}).get("checks") or ()):
        key = _JUDGING_FILES.get(check.get("type"))
        if key is None or check.get(key) is None:
            continue
        place = ("grader", "checks", position, key)
        if key == "labels":  # read inside the sandbox, where grader/ alone is mounted
            yield from _check_hidden_file(root, place, check[key], "grader")
        elif key == "tests":  # a file or a folder, in grader/ by its own rule
            if not (root / check[key]).exists():
                yield FolderFinding(place, f"{shorten(check[key])} does not exist", _near_file(root, check[key]))
        else:
            yield from _check_judging_file(root, place, check[key], ("workspace", environment.get("build")))
    yield from _check_environment(root, environment)


def _check_id(root: Path, values: Mapping[str, Any]) -> Iterator[FolderFinding]:
    if "id" in values and values["id"] != root.name:
        message = f"{values['id']!r} is not the name of the task's folder, which is {root.name!r}"
        yield FolderFinding(("id",), message, "rename one of the two")


def _check_workspace(root: Path) -> Iterator[FolderFinding]:
    workspace = root / "workspace"
    if not workspace.is_dir():
        hint = "make it, with the files that the agent starts from (for an empty start: one with a .gitkeep)"
        yield FolderFinding((), "the folder workspace/ is missing", hint)
        return
    home = Path(os.path.realpath(workspace))
    if not home.is_relative_to(root):
        hint = "put the files themselves there"
        yield FolderFinding((), "workspace/ is a link that leads out of the task", hint)
        return
    for folder, folders, files in os.walk(workspace):
        for name in sorted(folders + files):
            path = Path(folder, name)
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(home):
                shown = shorten(str(path.relative_to(root)))
                yield FolderFinding((), f"{shown} is a link that leads out of workspace/", "replace it by a file")


def _check_hidden_file(root: Path, path: KeyPath, name: str, home: str) -> Iterator[FolderFinding]:
    if Path(name).parts[0] != home:
        hint = f"move it to {home}/, which the agent never sees"
        yield FolderFinding(path, f"{shorten(name)} must lie in {home}/", hint)
    elif problem := _no_file_of(root, name):
        yield FolderFinding(path, f"{shorten(name)} {problem}", _near_file(root, name))


def _check_judging_file(
    root: Path, path: KeyPath, name: str, seen_folders: tuple[str | None, ...]
) -> Iterator[FolderFinding]:
    """A reference or rubric: a file of the task, in no folder that enters the agent's sandbox or its image."""
    seen = next((folder for folder in seen_folders if folder and Path(name).is_relative_to(folder)), None)
    if seen is not None:
        hint = "move it to grader/, which the agent never sees"
        yield FolderFinding(path, f"{shorten(name)} lies in {seen.rstrip('/')}/, which the agent sees", hint)
    elif problem := _no_file_of(root, name):
        yield FolderFinding(path, f"{shorten(name)} {problem}", _near_file(root, name))


def _check_exploits(root: Path, path: KeyPath, pattern: str) -> Iterator[FolderFinding]:
    if Path(pattern).parts[0] != "exploits":
        yield FolderFinding(path, f"{shorten(pattern)} must lie in exploits/", "move the files to exploits/")
        return
    files = [name for name in _matches(root, pattern) if not (root / name).is_dir()]
    if not files:
        yield FolderFinding(path, f"{shorten(pattern)} matches no file of the task", "add the files or remove the line")
    for name in files:
        if problem := _no_file_of(root, name):
            yield FolderFinding(path, f"{shorten(name)} {problem}")


def _check_environment(root: Path, environment: Mapping[str, Any]) -> Iterator[FolderFinding]:
    if environment.get("build") is not None:
        yield from _check_build(root, ("environment", "build"), environment["build"])
    for name, service in (environment.get("services") or {}).items():
        place = ("environment", "services", name)
        if service.get("build") is not None:
            yield from _check_build(root, (*place, "build"), service["build"])
        for file in service.get("files") or {}:
            if problem := _no_file_of(root, file):
                yield FolderFinding((*place, "files", file), f"{shorten(file)} {problem}", _near_file(root, file))


def _check_build(root: Path, path: KeyPath, name: str) -> Iterator[FolderFinding]:
    if problem := _leads_out(root, name):
        yield FolderFinding(path, f"{shorten(name)} {problem}")
    elif not (root / name).is_dir():
        yield FolderFinding(path, f"{shorten(name)} is no folder of the task", "make it, with a Dockerfile in it")
    elif problem := _no_file_of(root, f"{name.rstrip('/')}/Dockerfile"):
        yield FolderFinding(path, f"the Dockerfile of {shorten(name)} {problem}", "add it")


def _no_file_of(root: Path, name: str) -> str:
    """Why the name is no regular file of the task; empty when it is one."""
    if problem := _leads_out(root, name):
        return problem
    try:
        kind = (root / name).stat().st_mode
    except (OSError, ValueError) as error:
        return _why(error)
    if stat.S_ISREG(kind):
        return ""
    return "is a folder, not a file" if stat.S_ISDIR(kind) else "is no regular file"


def _leads_out(root: Path, name: str) -> str:
    try:
        real = Path(os.path.realpath(root / name))
    except (OSError, ValueError) as error:
        return _why(error)
    return "" if real.is_relative_to(root) else "leads out of the task's folder"


def _why(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "does not exist"
    return f"cannot be read: {(error.strerror if isinstance(error, OSError) else None) or error}"


def _near_file(root: Path, name: str) -> str:
    folder = (root / name).parent
    try:
        there = sorted(entry.name for entry in folder.iterdir())[:8]
    except (OSError, ValueError):
        return "add it"
    return f"there are: {', '.join(there)}" if there else "add it"


def _matches(root: Path, pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, root_dir=root, recursive=True))  # noqa: PTH207 - Path.glob raises on odd patterns
