"""What a build is given: the files of a folder, `.dockerignore` honoured, packed reproducibly, and their hash.

Only the standard library is needed, so that CI's scripts can pack a folder before anything is installed.
"""

import hashlib
import io
import re
import stat
import tarfile
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fbench.engine.errors import SandboxFailed

DOCKERFILE = "Dockerfile"
IGNORE_FILE = ".dockerignore"
HASH_DIGITS = 12
SPOOL_BYTES = 16 * 1024**2
"""A context up to this size is packed in memory."""

_EXECUTABLE = 0o755
_PLAIN = 0o644
_READ_BYTES = 1024**2


class ImageBuildFailed(SandboxFailed):
    """An image could not be built; the text ends with the build's last lines."""

    kind = "image_build_failed"


@dataclass(frozen=True, slots=True)
class ContextFile:
    """One file or link of a context: `link` is a link's target, `source` a file's place on the host or its bytes."""

    name: str
    source: Path | bytes | None = None
    link: str | None = None
    is_executable: bool = False


def read_context(
    folder: Path, *, without: Collection[Path] = (), replace: Mapping[str, bytes] | None = None
) -> list[ContextFile]:
    """The files of a build folder, in the order of their names. Blocking.

    Args:
        folder: holds a Dockerfile. Links are kept as links, never followed; empty folders are left out.
        without: host paths that must not be part of it, whatever the folder says.
        replace: files by name that stand in for those of the folder, or beside them.

    Raises:
        ImageBuildFailed: there is no Dockerfile, or a file cannot be read or packed.
    """
    if not (folder / DOCKERFILE).is_file():
        msg = f"{folder} has no {DOCKERFILE} to build an image from"
        raise ImageBuildFailed(msg)
    ignored = IgnoreRules.read(folder / IGNORE_FILE)
    replace = replace or {}
    found = [ContextFile(name, source=data) for name, data in replace.items()]
    try:
        for path in _walk(folder, frozenset(without)):
            name = path.relative_to(folder).as_posix()
            if name in replace or (ignored.match(name) and name not in {DOCKERFILE, IGNORE_FILE}):
                continue
            found.append(_context_file(path, name))
    except OSError as error:
        msg = f"cannot read {error.filename}: {error.strerror}; the image of {folder} needs it"
        raise ImageBuildFailed(msg) from error
    return sorted(found, key=lambda file: file.name)


def hash_context(files: Collection[ContextFile], *extra: str) -> str:
    """The hash of names, kinds, executable bits and bytes, with whatever else decides what is built. Blocking."""
    total = hashlib.sha256()
    for part in ("fbench image 1", *extra):
        total.update(part.encode() + b"\0")
    for file in files:
        kind = "link" if file.link is not None else "run" if file.is_executable else "file"
        total.update(f"{kind}\0{file.name}\0".encode(errors="surrogateescape"))
        total.update(_digest(file))
    return total.hexdigest()


def hash_image_folder(folder: Path) -> str:
    """The hash of what one of fbench's own images is made of, machine settings and base left out. Blocking."""
    return hash_context(read_context(folder, without=[folder / "machine"]))


def pack_context(files: Collection[ContextFile]) -> IO[bytes]:
    """A tar archive of the files, owned by root and without times, at its start; the caller closes it. Blocking."""
    packed = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 - handed to the caller
    try:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for file in files:
                _add(archive, file)
        packed.seek(0)
    except OSError as error:
        packed.close()
        msg = f"cannot pack {error.filename or 'the build folder'}: {error.strerror or error}"
        raise ImageBuildFailed(msg) from error
    except BaseException:
        packed.close()
        raise
    return packed


class IgnoreRules:
    """A `.dockerignore`: the last rule that fits a path or a folder above it decides; `!` takes a path back in."""

    def __init__(self, text: str) -> None:
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        for line in text.lstrip("\ufeff").splitlines():
            if line.startswith("#") or not (pattern := line.strip()):
                continue
            is_ignored = not pattern.startswith("!")
            parts = [part for part in pattern.removeprefix("!").strip().split("/") if part not in {"", "."}]
            if parts:
                self._rules.append((is_ignored, re.compile(_expression("/".join(parts)), re.DOTALL)))

    @classmethod
    def read(cls, path: Path) -> "IgnoreRules":
        """The rules of a file; none when there is no such file."""
        try:
            return cls(path.read_text(encoding="utf-8", errors="surrogateescape"))
        except FileNotFoundError:
            return cls("")
        except OSError as error:
            msg = f"cannot read {path}: {error.strerror}"
            raise ImageBuildFailed(msg) from error

    def match(self, name: str) -> bool:
        """Whether the path, relative and with `/`, is left out."""
        is_ignored = False
        for verdict, pattern in self._rules:
            if verdict != is_ignored and pattern.match(name):
                is_ignored = verdict
        return is_ignored


def _expression(pattern: str) -> str:
    """Go's filepath.Match with Docker's `**`, as a regular expression that also fits what lies below a match."""
    out = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**/", at):
            out.append("(?:.*/)?")
            at += 3
        elif pattern.startswith("**", at):
            out.append(".*")
            at += 2
        elif char == "*":
            out.append("[^/]*")
            at += 1
        elif char == "?":
            out.append("[^/]")
            at += 1
        elif char == "[" and (end := pattern.find("]", at + 2)) > 0:
            inner = pattern[at + 1 : end]
            negated = inner.startswith("^")
            members = re.sub(r"([\\\[\]&~|^])", r"\\\1", inner[1:] if negated else inner)
            out.append(f"[{'^' if negated else ''}{members}]")
            at = end + 1
        elif char == "\\" and at + 1 < len(pattern):
            out.append(re.escape(pattern[at + 1]))
            at += 2
        else:
            out.append(re.escape(char))
            at += 1
    return "".join(out) + r"(?:/.*)?\Z"


def _walk(folder: Path, without: frozenset[Path]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path in without or path.name == "__pycache__":
            continue
        if stat.S_ISDIR(path.lstat().st_mode):
            yield from _walk(path, without)
        else:
            yield path


def _context_file(path: Path, name: str) -> ContextFile:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return ContextFile(name, link=str(path.readlink()))
    if not stat.S_ISREG(mode):
        msg = f"{path} is a device, socket or FIFO, which no build can take: remove it or name it in {IGNORE_FILE}"
        raise ImageBuildFailed(msg)
    return ContextFile(name, source=path, is_executable=bool(mode & stat.S_IXUSR))


def _digest(file: ContextFile) -> bytes:
    if file.link is not None:
        return hashlib.sha256(file.link.encode(errors="surrogateescape")).digest()
    if isinstance(file.source, bytes):
        return hashlib.sha256(file.source).digest()
    assert file.source is not None
    try:
        with file.source.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError as error:
        msg = f"cannot read {file.source}: {error.strerror}; the image needs it"
        raise ImageBuildFailed(msg) from error


def _add(archive: tarfile.TarFile, file: ContextFile) -> None:
    info = tarfile.TarInfo(file.name)
    if file.link is not None:
        info.type = tarfile.SYMTYPE
        info.linkname = file.link
        archive.addfile(info)
        return
    info.mode = _EXECUTABLE if file.is_executable else _PLAIN
    if isinstance(file.source, bytes):
        info.size = len(file.source)
        archive.addfile(info, io.BytesIO(file.source))
        return
    assert file.source is not None
    with file.source.open("rb") as opened:
        info.size = file.source.stat().st_size
        archive.addfile(info, opened)
