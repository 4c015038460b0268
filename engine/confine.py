"""A workspace from the host's side: every path stays inside, whatever the agent does to it meanwhile.

Paths are walked by `fbench.engine.confined_walk`; what was checked is what is used, so a link that appears between
the two can never lead out.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO, Literal, NoReturn

from fbench.engine.confined_walk import LIST_FOLDER, LeadsOut, Place, find_place, give, split_path
from fbench.engine.errors import ToolRefused

MAX_PATH_BYTES = 64 * 1024
DEFAULT_READ_LIMIT = 10 * 1024 * 1024
MAXLIST_FOLDERED = 2000

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

EntryKind = Literal["file", "folder", "link", "FIFO", "socket", "block device", "character device", "other"]

_KINDS: dict[int, EntryKind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
}


class PathRefused(ToolRefused):
    """A path that cannot be used as asked; the text says why and what would work."""


class PathOutside(PathRefused):
    """A path that leads out of the folder, by itself or through a link."""


class PathMissing(PathRefused):
    """A path where nothing is."""


def kind_of(mode: int) -> EntryKind:
    """What a file mode stands for, in words."""
    return _KINDS.get(stat.S_IFMT(mode), "other")


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """One line of a listing. `path` is relative to the listed folder; bytes that are no UTF-8 are surrogates."""

    path: str
    kind: EntryKind
    size_bytes: int
    link_target: str | None = None


@dataclass(frozen=True, slots=True)
class FolderListing:
    """What a folder holds; `is_cut` when there was more than could be listed."""

    entries: tuple[FolderEntry, ...]
    is_cut: bool = False


class ConfinedFolder:
    """A host folder of which only what lies inside can be reached.

    Paths are relative to it or absolute below `inside`. All methods raise PathRefused (or one of its kinds), whose
    text is written for a model to read, and never another OSError.

    Args:
        root: the folder on the host.
        inside: its path as sandboxed commands see it (`/workspace`; in `local` the host path).
        aliases: further absolute paths that mean the same folder.
    """

    def __init__(self, root: Path, inside: str, aliases: tuple[str, ...] = ()) -> None:
        self.root = root
        self.inside = "/" + "/".join(part for part in inside.split("/") if part)
        self._prefixes = [split_path(os.fsencode(prefix)) for prefix in (inside, *aliases)]

    def relative(self, path: str) -> str:
        """The path relative to the folder with `.` and `..` taken out by text alone, links not looked at; it may be
        missing. The folder itself is an empty text."""
        names: list[bytes] = []
        for part in self._parts(path):
            if part != b"..":
                names.append(part)
            elif names:
                names.pop()
            else:
                raise self._outside(path)
        return os.fsdecode(b"/".join(names))

    def resolve(self, path: str) -> str:
        """The path relative to the folder after all links; its last part may be missing."""
        with self._place(path) as place:
            return os.fsdecode(b"/".join(place.names))

    def open_file(self, path: str) -> BinaryIO:
        """The regular file at `path`, open for reading; the caller closes it. Opening never waits (FIFO)."""
        with self._place(path) as place:
            self._require_file(path, os.stat(place.name, dir_fd=place.parent, follow_symlinks=False))
            descriptor = os.open(place.name, _READ, dir_fd=place.parent)
        try:
            self._require_file(path, os.fstat(descriptor))
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise

    def read_bytes(self, path: str, limit: int = DEFAULT_READ_LIMIT) -> bytes:
        """The file's content. A file of more than `limit` bytes is refused, not cut."""
        with self.open_file(path) as file:
            try:
                data = file.read(limit + 1)
            except OSError as error:
                self._refuse(path, error)
        if len(data) > limit:
            msg = f"{_show(path)} is larger than {limit} bytes; look at it with bash (head, tail, sed -n, grep)"
            raise PathRefused(msg)
        return data

    def write_bytes(self, path: str, data: bytes, *, create_parents: bool = True, exclusive: bool = False) -> str:
        """Put `data` at `path` in one step: readers see the old content or the new.

        An existing file keeps its mode and owner; a new one belongs to the folder's owner. A link that stays inside
        has its target written. With `exclusive` an existing file is refused.

        Returns:
            The path that was written, relative to the folder, after all links.
        """
        with self._place(path, create_parents=create_parents) as place:
            try:
                before = os.stat(place.name, dir_fd=place.parent, follow_symlinks=False)
            except FileNotFoundError:
                before = None
            if before is not None:
                self._require_file(path, before)
                if exclusive:
                    raise FileExistsError(errno.EEXIST, "exists")
            elif path.endswith("/"):
                raise IsADirectoryError(errno.EISDIR, "names a folder")
            self._replace(place, data, before, exclusive=exclusive)
            return os.fsdecode(b"/".join(place.names))

    def remove_file(self, path: str) -> None:
        """Remove the regular file at `path`; a link that stays inside has its target removed."""
        with self._place(path) as place:
            self._require_file(path, os.stat(place.name, dir_fd=place.parent, follow_symlinks=False))
            os.unlink(place.name, dir_fd=place.parent)

    def is_regular_file(self, path: str) -> bool:
        """Whether a regular file is there, after links that stay inside; a link that leads out counts as absent."""
        mode = self._mode(path)
        return mode is not None and stat.S_ISREG(mode)

    def is_folder(self, path: str) -> bool:
        """Whether a folder is there, after links that stay inside."""
        mode = self._mode(path)
        return mode is not None and stat.S_ISDIR(mode)

    def exists(self, path: str) -> bool:
        """Whether anything is there, after links that stay inside; a link that leads out counts as absent."""
        return self._mode(path) is not None

    def list_folder(
        self, path: str = ".", depth: int = 1, *, closed: Callable[[str], bool] = lambda _name: False
    ) -> FolderListing:
        """What lies in the folder, `depth` levels down, sorted; links are named, not followed.

        Args:
            path: the folder.
            depth: how many levels; 1 is the folder's own entries.
            closed: names of folders that are listed but not looked into.
        """
        entries: list[FolderEntry] = []
        with self._place(path) as place:
            descriptor = os.open(place.name, LIST_FOLDER, dir_fd=place.parent)
            try:
                is_whole = _list(descriptor, "", depth, closed, entries)
            finally:
                os.close(descriptor)
        return FolderListing(tuple(entries), is_cut=not is_whole)

    def _mode(self, path: str) -> int | None:
        try:
            with self._place(path) as place:
                mode = os.stat(place.name, dir_fd=place.parent, follow_symlinks=False).st_mode
        except PathRefused:
            return None
        return None if path.endswith("/") and not stat.S_ISDIR(mode) else mode

    def _parts(self, path: str) -> list[bytes]:
        if not path:
            msg = f"the path is empty; give one under {self.inside}"
            raise PathRefused(msg)
        try:
            raw = os.fsencode(path)
        except UnicodeEncodeError:
            msg = f"{_show(path)} holds characters that no file name can have"
            raise PathRefused(msg) from None
        if b"\0" in raw:
            msg = f"{_show(path)} holds a NUL byte, which no file name can have"
            raise PathRefused(msg)
        if len(raw) > MAX_PATH_BYTES:
            msg = f"{_show(path)} is too long for a path ({len(raw)} bytes)"
            raise PathRefused(msg)
        parts = self._below(raw)
        if parts is None:
            raise self._outside(path)
        return parts

    def _below(self, raw: bytes) -> list[bytes] | None:
        """The components below the folder, or None for an absolute path that is not below it."""
        parts = split_path(raw)
        if not raw.startswith(b"/"):
            return parts
        for prefix in self._prefixes:
            if parts[: len(prefix)] == prefix:
                return parts[len(prefix) :]
        return None

    @contextmanager
    def _place(self, path: str, *, create_parents: bool = False) -> Iterator[Place]:
        """Where `path` ends; every OSError below it, also in the body, becomes a refusal."""
        try:
            place = find_place(self.root, self._parts(path), self._below, create_parents=create_parents)
            try:
                yield place
            finally:
                os.close(place.parent)
        except LeadsOut:
            raise self._outside(path) from None
        except OSError as error:
            self._refuse(path, error)

    def _replace(self, place: Place, data: bytes, before: os.stat_result | None, *, exclusive: bool) -> None:
        temporary = f".fbench-{token_hex(8)}.tmp".encode()
        descriptor = os.open(temporary, _CREATE, 0o600, dir_fd=place.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                if before is None:
                    owner = self.root.stat()
                    give(descriptor, owner.st_uid, owner.st_gid)
                else:
                    give(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, 0o644 if before is None else before.st_mode & 0o777)
            if exclusive:
                os.link(temporary, place.name, src_dir_fd=place.parent, dst_dir_fd=place.parent, follow_symlinks=False)
                os.unlink(temporary, dir_fd=place.parent)
            else:
                os.rename(temporary, place.name, src_dir_fd=place.parent, dst_dir_fd=place.parent)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=place.parent)
            raise

    def _require_file(self, path: str, info: os.stat_result) -> None:
        kind = kind_of(info.st_mode)
        if kind == "folder":
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        if kind == "link":
            raise OSError(errno.ELOOP, "became a link")
        if kind != "file":
            msg = f"{_show(path)} is a {kind}, not a regular file; choose another path"
            raise PathRefused(msg)
        if path.endswith("/"):
            raise NotADirectoryError(errno.ENOTDIR, "is a file")

    def _outside(self, path: str) -> PathOutside:
        below = self._below(os.fsencode(path))
        verb = "is outside" if below is None or b".." in below else "is a link that leads out of"
        return PathOutside(f"{_show(path)} {verb} the workspace; use a path under {self.inside}")

    def _refuse(self, path: str, error: OSError) -> NoReturn:
        shown = _show(path)
        match error.errno:
            case errno.ENOENT:
                msg = f"{shown} does not exist under {self.inside}; look with `ls`, or create it"
                raise PathMissing(msg) from error
            case errno.ENOTDIR:
                msg = f"{shown} goes through something that is not a folder"
            case errno.EISDIR:
                msg = f"{shown} is a folder; name a file"
            case errno.EEXIST:
                msg = f"{shown} exists already"
            case errno.ELOOP:
                msg = f"{shown} is a loop of links, or changed while it was opened; look at it with `ls -l`"
            case errno.ENAMETOOLONG:
                msg = f"{shown} has a name that is too long (255 bytes at most)"
            case errno.EACCES | errno.EPERM:
                msg = f"{shown} may not be used: permission denied; see its mode with `ls -l`"
            case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
                msg = f"{shown} could not be written: no space is left; remove what is not needed"
            case _:
                msg = f"{shown} could not be used: {error.strerror or error}"
        raise PathRefused(msg) from error


def _show(path: str) -> str:
    shown = repr(path)
    return shown if len(shown) <= 300 else f"{shown[:200]}...{shown[-60:]}"  # noqa: PLR2004 - readable in one line


def _list(folder: int, prefix: str, depth: int, closed: Callable[[str], bool], entries: list[FolderEntry]) -> bool:
    """Add the folder's entries; False when there were too many."""
    names: list[str] = []
    with os.scandir(folder) as found:
        for entry in found:
            if len(names) > MAXLIST_FOLDERED:
                break
            names.append(entry.name)
    for name in sorted(names, key=os.fsencode):
        if len(entries) >= MAXLIST_FOLDERED:
            return False
        try:
            info = os.stat(name, dir_fd=folder, follow_symlinks=False)
            kind = kind_of(info.st_mode)
            target = os.readlink(name, dir_fd=folder) if kind == "link" else None
        except OSError:
            continue  # it went away while the folder was read
        entries.append(FolderEntry(prefix + name, kind, info.st_size, target))
        if kind == "folder" and depth > 1 and not closed(name):
            try:
                below = os.open(name, LIST_FOLDER, dir_fd=folder)
            except OSError:
                continue
            try:
                if not _list(below, f"{prefix}{name}/", depth - 1, closed, entries):
                    return False
            finally:
                os.close(below)
    return len(names) <= MAXLIST_FOLDERED
