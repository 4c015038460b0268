"""Files of a task's workspace that look like material the agent must not see."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from fbench.tasks.folder_rules import UnusableFile, read_text

HIDDEN = ("grader", "solution", "exploits")
TRIVIAL_BYTES = 32
"""Files below this size are alike by chance: an empty `__init__.py`, a line `pytest`."""
MAX_README_BYTES = 1_000_000

_MOST_NAMED = 3
_CHUNK_BYTES = 1 << 20
_LIKE_A_GRADERS = re.compile(
    r"(?:^|[_.-])(?:solutions?|answers?|expected|graders?|hidden|labels|rubrics?|exploits?|ground_?truth)(?:[_.-]|$)|"
    r"^task\.(?:yaml|lock)$",
    re.IGNORECASE,
)


def find_leaks(folder: Path, prompt: str) -> Iterator[str]:
    """A sentence for each file of `workspace/` that equals a hidden one, or is called like one.

    What the author knows of is passed over: a copy whose hidden side, or the folder that holds it, the task's README.md
    names, and a name that README.md or the prompt mentions.
    """
    readme = _readme(folder)
    equal = dict(_equal_files(folder))
    copies: dict[str, list[str]] = defaultdict(list)
    for name, hidden in equal.items():
        if not any(_mentions(readme, path) for path in _with_folders(hidden)):
            home = str(Path(hidden).parent)
            copies[hidden if home in HIDDEN else home].append(f"workspace/{name}")
    for hidden, names in copies.items():
        listed = ", ".join(names[:_MOST_NAMED]) + (
            f" and {len(names) - _MOST_NAMED} more" if names[_MOST_NAMED:] else ""
        )
        where = f"equal files in {hidden}/" if (folder / hidden).is_dir() else f"equals {hidden}"
        yield f"{listed} {where}: does the agent see what it should not? If all is well, name {hidden} in README.md"
    named: dict[str, None] = {}
    for name in sorted(path.relative_to(folder / "workspace").as_posix() for path in _files(folder / "workspace")):
        if name not in equal and (suspect := _suspect(name)) is not None:
            named[suspect] = None
    for name in named:
        if not any(_mentions(text, part) for text in (readme, prompt) for part in (name, Path(name).name)):
            yield (
                f"workspace/{name} is called like grader material: should the agent see it? If all is well, "
                "name it in the prompt or in README.md"
            )


def _equal_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Files of the workspace, each with the hidden one of the same content."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for home in HIDDEN:
        for path in _files(folder / home):
            by_size[path.stat().st_size].append(path)
    for path in sorted(_files(folder / "workspace")):
        size = path.stat().st_size
        if size < TRIVIAL_BYTES:
            continue
        for hidden in sorted(by_size.get(size, ())):
            if _is_equal(path, hidden):
                yield path.relative_to(folder / "workspace").as_posix(), hidden.relative_to(folder).as_posix()
                break


def _files(folder: Path) -> Iterator[Path]:
    """The regular files below, without links and what Python leaves behind."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            path = Path(place, name)
            if path.is_file() and not path.is_symlink() and path.suffix != ".pyc":
                yield path


def _is_equal(first: Path, second: Path) -> bool:
    with first.open("rb") as one, second.open("rb") as other:
        while True:
            chunks = one.read(_CHUNK_BYTES), other.read(_CHUNK_BYTES)
            if chunks[0] != chunks[1]:
                return False
            if not chunks[0]:
                return True


def _suspect(name: str) -> str | None:
    """The path up to the part that is called like a grader's, so that a folder of such files is named once."""
    parts = name.split("/")
    for end, part in enumerate(parts, start=1):
        if _LIKE_A_GRADERS.search(part):
            return "/".join(parts[:end])
    return None


def _with_folders(name: str) -> list[str]:
    """`grader/tests/a.py` and `grader/tests`, but not `grader`, which every README may mention."""
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(2, len(parts) + 1)]


def _mentions(text: str, name: str) -> bool:
    """Whether the text has the name as a word of its own: `expected.csv` does not mention `expected`."""
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-]|\.\w)", text) is not None


def _readme(folder: Path) -> str:
    try:
        return read_text(folder / "README.md", MAX_README_BYTES)
    except UnusableFile:
        return ""
