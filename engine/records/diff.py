"""What changed between two trees, as a patch in git's format, made without git.

No program of the host interprets either tree: an agent's `.git/config` runs nothing here. Files that are binary or
large are named by size and hash in one line, which `git apply` passes over.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fbench.engine.confine import kind_of
from fbench.engine.records.copying import data_ranges
from fbench.engine.records.lines import Effort, unified_hunks
from fbench.engine.records.walking import (
    Entered,
    Leaf,
    Left,
    Trouble,
    open_folder,
    open_regular,
    path_text,
    reason_of,
    walk_tree,
)

MAX_TEXT_BYTES = 10 * 1024 * 1024
"""Files above are named by size and hash."""
MAX_HASHED_BYTES = 1024**3
"""Files above have the hash of their non-zero blocks: a sparse file states any size and takes no disk."""
MAX_PATH_BYTES = 16 * 1024
"""Longer paths are four times what any program can open; their folder is named once."""
LEFT_OUT_FOLDERS = frozenset({".git", "__pycache__", ".pytest_cache"})

_CHUNK = 1024 * 1024
_BLOCK = 64 * 1024
_ZEROS = bytes(_BLOCK)
_QUOTED = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}


class DiffStopped(Exception):
    """`stop` said so."""


@dataclass(frozen=True, slots=True)
class _Trees:
    """The two sides, and the effort their lines may take together."""

    before: Path
    after: Path
    effort: Effort


@dataclass(frozen=True, slots=True)
class _Item:
    """One entry of a tree: `mode` as git writes it (`100644`, `100755`, `120000`), or empty with a `note`."""

    mode: str
    size: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Content:
    """A file's text, or None where it is binary or large and `summary` names it."""

    text: bytes | None
    summary: str = ""


def diff_trees(
    before: Path,
    after: Path,
    *,
    subpath: str | None = None,
    max_bytes: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    effort: Effort | None = None,
) -> bytes:
    """The patch that makes `after` of `before`, paths in byte order; empty when nothing changed.

    `.git`, caches of Python and pytest are left out. Blocking; call it in a thread.

    Args:
        before: the older folder; one that is gone is empty.
        after: the newer folder.
        subpath: only this file or folder, relative, without `..`.
        max_bytes: the patch ends, with a note, after the file that goes beyond.
        stop: asked between files; once it says True, DiffStopped is raised.
        effort: what finding the changed lines may take; that of `Effort()` if None.

    Raises:
        ValueError: `subpath` is absolute or climbs out.
    """
    wanted = _wanted(subpath)
    old_items = _scan(before, wanted, stop)
    new_items = _scan(after, wanted, stop)
    paths = sorted(old_items.keys() | new_items.keys())
    pieces: list[bytes] = []
    size = 0
    trees = _Trees(before, after, effort or Effort())
    for index, path in enumerate(paths):
        if stop():
            raise DiffStopped
        if max_bytes is not None and size > max_bytes:
            pieces.append(b"# The diff was cut here; paths not compared: %d\n" % (len(paths) - index))
            break
        piece = b"".join(_diff_entry(trees, path, old_items.get(path), new_items.get(path)))
        if piece:
            pieces.append(piece)
            size += len(piece)
    return b"".join(pieces)


def quote_path(path: bytes) -> bytes:
    """The path as git writes it: in double quotes with escapes where it holds more than plain ASCII."""
    if all(32 <= byte < 127 and byte not in (34, 92) for byte in path):  # noqa: PLR2004 - printable ASCII, no " \
        return path
    quoted = "".join(
        _QUOTED.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}")  # noqa: PLR2004
        for byte in path
    )
    return f'"{quoted}"'.encode("ascii")


def _wanted(subpath: str | None) -> list[bytes]:
    raw = os.fsencode(subpath or "")
    parts = [part for part in raw.split(b"/") if part not in {b"", b"."}]
    if raw.startswith(b"/") or b".." in parts:
        msg = f"{subpath!r} is no path inside the tree; give a relative one without '..'"
        raise ValueError(msg)
    return parts


def _is_noise(name: bytes) -> bool:
    return os.fsdecode(name) in LEFT_OUT_FOLDERS or name.endswith(b".pyc")


def _scan(root: Path, wanted: list[bytes], stop: Callable[[], bool]) -> dict[bytes, _Item]:
    """Every file, link and special file below `root` by its path."""
    items: dict[bytes, _Item] = {}
    lengths: list[int] = []

    def enters(parts: list[str], name: str, _info: os.stat_result) -> bool:
        raw = os.fsencode(name)
        depth = len(parts)
        if _is_noise(raw) or (depth < len(wanted) and raw != wanted[depth]):
            return False
        if sum(lengths[-1:]) + len(raw) + 1 > MAX_PATH_BYTES:
            path = os.fsencode(path_text(parts, name))
            items[path] = _Item("", 0, "a folder too deep to be looked into")
            return False
        return True

    with closing(walk_tree(root, enters=enters)) as steps:
        for step in steps:
            if isinstance(step, Entered):
                lengths.append(sum(lengths[-1:]) + len(os.fsencode(step.name)) + 1)
                if stop():
                    raise DiffStopped
            elif isinstance(step, Left):
                lengths.pop()
            else:
                item = _item_of(step, wanted)
                if item is not None:
                    items[os.fsencode(path_text(step.parts, step.name))] = item
    return items


def _item_of(step: Leaf | Trouble, wanted: list[bytes]) -> _Item | None:
    name = os.fsencode(step.name)
    depth = len(step.parts)
    if not name or _is_noise(name) or depth + 1 < len(wanted) or (depth + 1 == len(wanted) and name != wanted[depth]):
        return None
    if isinstance(step, Trouble):
        return _Item("", 0, f"unreadable: {step.why}")
    kind = kind_of(step.info.st_mode)
    if kind == "link":
        return _Item("120000", step.info.st_size)
    if kind == "file":
        return _Item("100755" if step.info.st_mode & stat.S_IXUSR else "100644", step.info.st_size)
    return _Item("", 0, kind)


def _diff_entry(trees: _Trees, path: bytes, old: _Item | None, new: _Item | None) -> Iterator[bytes]:
    for side, item, other in ((b"a/", old, new), (b"b/", new, old)):
        if item is not None and item.note and (other is None or other.note != item.note):
            yield b"Special entry %s (%s)\n" % (quote_path(side + path), item.note.encode("utf-8", "replace"))
    old = old if old is not None and old.mode else None
    new = new if new is not None and new.mode else None
    if old is not None and new is not None and old.mode[:3] == new.mode[:3]:
        yield from _diff_files(trees, path, old, new)
        return
    # A file that becomes a link is one file less and one link more, as git has it.
    if old is not None:
        yield from _diff_files(trees, path, old, None)
    if new is not None:
        yield from _diff_files(trees, path, None, new)


def _diff_files(trees: _Trees, path: bytes, old: _Item | None, new: _Item | None) -> Iterator[bytes]:
    try:
        if old is not None and new is not None and _is_same(trees, path, old, new):
            contents = _Content(b""), _Content(b"")
        else:
            contents = _read(trees.before, path, old), _read(trees.after, path, new)
    except OSError as error:
        yield b"Unreadable %s (%s)\n" % (quote_path(b"b/" + path), reason_of(error).encode())
        return
    names = quote_path(b"a/" + path), quote_path(b"b/" + path)
    mode_lines = _mode_lines(old, new)
    if contents[0].text is None or contents[1].text is None:
        shown = names[0] if old else b"/dev/null", names[1] if new else b"/dev/null"
        sums = _summary(contents[0], old, new), _summary(contents[1], new, old)
        yield b"Binary files %s and %s differ (before: %s, after: %s)\n" % (*shown, *sums)
        return
    if contents[0].text == contents[1].text and not mode_lines:
        return
    yield b"diff --git %s %s\n" % names
    yield from mode_lines
    hunks = unified_hunks(contents[0].text, contents[1].text, trees.effort)
    if hunks:
        yield b"--- %s\n" % _with_tab(names[0] if old else b"/dev/null")
        yield b"+++ %s\n" % _with_tab(names[1] if new else b"/dev/null")
        yield from hunks


def _with_tab(name: bytes) -> bytes:
    return name + b"\t" if b" " in name and not name.startswith(b'"') else name


def _mode_lines(old: _Item | None, new: _Item | None) -> list[bytes]:
    if old is None and new is not None:
        return [f"new file mode {new.mode}\n".encode()]
    if new is None and old is not None:
        return [f"deleted file mode {old.mode}\n".encode()]
    if old is not None and new is not None and old.mode != new.mode:
        return [f"old mode {old.mode}\nnew mode {new.mode}\n".encode()]
    return []


def _summary(content: _Content, item: _Item | None, other: _Item | None) -> bytes:
    if item is None:
        return b"absent"
    if content.text is not None:
        content = _Content(None, f"{len(content.text)} bytes sha256 {hashlib.sha256(content.text).hexdigest()}")
    mode = f"mode {item.mode} " if other is None or other.mode != item.mode else ""
    return f"{mode}{content.summary}".encode()


@contextmanager
def _folder_of(root: Path, path: bytes) -> Iterator[tuple[int, bytes]]:
    """The folder that holds `path`, open, and the last name; no link on the way is followed. A folder its owner may
    not enter is entered all the same, its mode put back at the end."""
    *folders, name = path.split(b"/")
    granted: list[tuple[int, int]] = []
    current = -1
    try:
        for folder in (os.fsencode(root), *folders):
            below, mode = open_folder(folder, current if current >= 0 else None)
            if current >= 0:
                os.close(current)
            current = below
            if mode is not None:
                granted.append((os.dup(current), mode))
        yield current, name
    finally:
        if current >= 0:
            os.close(current)
        for fd, mode in reversed(granted):
            with suppress(OSError):
                os.fchmod(fd, mode)
            os.close(fd)


@contextmanager
def _file_at(root: Path, path: bytes) -> Iterator[int]:
    with _folder_of(root, path) as (folder, name):
        fd = open_regular(name, folder)
        try:
            yield fd
        finally:
            os.close(fd)


def _is_same(trees: _Trees, path: bytes, old: _Item, new: _Item) -> bool:
    """Whether both have the same content; told without reading what is a hole in both."""
    if old.mode == "120000":
        return False
    with _file_at(trees.before, path) as one, _file_at(trees.after, path) as two:
        size = os.fstat(one).st_size
        if size != os.fstat(two).st_size or old.size != new.size:
            return False
        return all(
            os.pread(one, _BLOCK, position) == os.pread(two, _BLOCK, position)
            for position in _data_blocks((one, two), size)
        )


def _data_blocks(files: tuple[int, ...], size: int) -> Iterator[int]:
    """Starts of the 64 KiB blocks where at least one of the files has data, in order."""
    following = 0
    spans = sorted(span for fd in files for span in _spans(fd, size))
    for start, end in spans:
        first = max(following, start - start % _BLOCK)
        yield from range(first, end, _BLOCK)
        following = max(following, -(-end // _BLOCK) * _BLOCK)


def _spans(fd: int, size: int) -> list[tuple[int, int]]:
    ranges = data_ranges(fd, size)
    return [(0, size)] if ranges is None else ranges


def _read(root: Path, path: bytes, item: _Item | None) -> _Content:
    if item is None:
        return _Content(b"")
    if item.mode == "120000":
        with _folder_of(root, path) as (folder, name):
            return _Content(os.readlink(name, dir_fd=folder))
    with _file_at(root, path) as fd:
        size = os.fstat(fd).st_size
        if size > MAX_TEXT_BYTES:
            return _Content(None, f"{size} bytes {_hash(fd, size)}")
        with os.fdopen(os.dup(fd), "rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES or b"\0" in data:
        return _Content(None, f"{len(data)} bytes sha256 {hashlib.sha256(data).hexdigest()}")
    return _Content(data)


def _hash(fd: int, size: int) -> str:
    digest = hashlib.sha256()
    if size <= MAX_HASHED_BYTES:
        for position in range(0, size, _CHUNK):
            digest.update(os.pread(fd, min(_CHUNK, size - position), position))
        return f"sha256 {digest.hexdigest()}"
    for position in _data_blocks((fd,), size):
        block = os.pread(fd, min(_BLOCK, size - position), position)
        if block and block != _ZEROS[: len(block)]:
            digest.update(position.to_bytes(8, "big") + block)
    return f"sha256 of its non-zero 64 KiB blocks, each after its offset, {digest.hexdigest()}"
