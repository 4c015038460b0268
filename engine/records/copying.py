"""Copying, removing and measuring a tree that somebody hostile made. Blocking; call it in a thread.

Links are kept as links and never followed, holes stay holes, hard links within the tree stay hard links. What is no
file, folder or link (FIFOs, sockets, devices) and what cannot be read is left out and listed.
"""

import errno
import os
import stat
import sys
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fbench.engine.confine import kind_of
from fbench.engine.records.walking import (
    OPEN_FOLDER,
    Entered,
    Leaf,
    Left,
    Trouble,
    identity_of,
    open_regular,
    path_text,
    reason_of,
    walk_tree,
)

CHUNK_BYTES = 1024 * 1024
FICLONE = 0x40049409
"""The ioctl that shares a file's blocks (linux/fs.h), on file systems that can."""
BLOCK_BYTES = 512
"""The unit of `st_blocks`, whatever the file system's own."""
REMOVE_PASSES = 3
"""How often a tree is gone through while something still writes into it."""
LITTLE_ENTRIES = 20
LITTLE_BYTES = 64 * 1024
"""Of a tree that is worth no thread: handing a job over takes as long as five entries."""

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NAME_FAILED = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EEXIST}
"""Errors of one name that the target's file system cannot hold; others end the copy."""
_TARGET_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An entry that was not copied (or removed), and why. Bytes that are no UTF-8 are surrogates in `path`."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What was copied: how many files, their bytes without holes, and what had to be left out."""

    files: int
    bytes: int
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True, slots=True)
class TreeSize:
    """How large a tree is. `bytes` are sizes as files state them, `allocated_bytes` what they take on disk, a file
    with several hard links counted once."""

    files: int
    bytes: int
    allocated_bytes: int


def copy_tree(source: Path, target: Path) -> CopyReport:
    """Copy what is in `source` into the new (or empty) folder `target`.

    Modes and times are kept, setuid and setgid bits are not; owners are kept when run as root. A source that is gone
    or no folder gives an empty target and says so in the report.

    Raises:
        FileExistsError: `target` exists and is not empty.
        OSError: the target cannot be written (no space left, read-only).
    """
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise FileExistsError(errno.EEXIST, "the target of a copy must be new or empty", str(target))
    copier = _Copier(os.open(target, OPEN_FOLDER))
    try:
        copier.copy(source)
    finally:
        copier.close()
    return CopyReport(copier.files, copier.bytes, tuple(copier.left_out))


def remove_tree(path: Path) -> tuple[LeftOut, ...]:
    """Remove `path` and all below it, unreadable and deep folders included; a link is removed, not followed.

    Returns:
        What could not be removed and why (immutable, somebody else's); empty when nothing is left of it.
    """
    stuck: list[LeftOut] = []
    for _ in range(REMOVE_PASSES):
        try:
            if not stat.S_ISDIR(path.lstat().st_mode):
                path.unlink()
                return ()
            stuck = _remove_below(path)
            path.rmdir()
        except FileNotFoundError:
            return ()
        except OSError as error:
            if not stuck:
                stuck = [LeftOut(".", reason_of(error))]
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                return tuple(stuck)
        else:
            return ()
    return tuple(stuck)


def is_little_tree(path: Path) -> bool:
    """Whether a tree holds so little that copying, comparing or removing it takes no time to speak of. Looks at no more
    than that, follows no link; False for one that cannot be read."""
    entries_left, bytes_left = LITTLE_ENTRIES, LITTLE_BYTES
    folders = [os.fspath(path)]
    try:
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    entries_left -= 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        bytes_left -= entry.stat(follow_symlinks=False).st_size
                    elif not entry.is_symlink():
                        return False
                    if entries_left < 0 or bytes_left < 0:
                        return False
    except OSError:
        return False
    return True


def tree_size(path: Path) -> TreeSize:
    """How many files lie below `path` and how large they are; what cannot be read counts nothing."""
    files = size = allocated = 0
    seen: set[tuple[int, int]] = set()
    with closing(walk_tree(path)) as steps:
        for step in steps:
            if isinstance(step, Entered):
                allocated += step.info.st_blocks * BLOCK_BYTES
            elif isinstance(step, Leaf):
                if step.info.st_nlink > 1:
                    if identity_of(step.info) in seen:
                        continue
                    seen.add(identity_of(step.info))
                files += 1
                size += step.info.st_size
                allocated += step.info.st_blocks * BLOCK_BYTES
    return TreeSize(files, size, allocated)


def data_ranges(fd: int, size: int) -> "list[tuple[int, int]] | None":
    """Where a file of `size` bytes has data, as (start, end) pairs; None where the file system cannot tell."""
    if not hasattr(os, "SEEK_DATA"):
        return None
    ranges: list[tuple[int, int]] = []
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            return None
        if start >= size:
            break
        ranges.append((start, min(end, size)))
        position = end
    return ranges


@dataclass(slots=True)
class _Copier:
    """One copy under way; `here` is the target folder at hand, `root` the target itself."""

    root: int
    here: int = -1
    files: int = 0
    bytes: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    linked: dict[tuple[int, int], tuple[str, ...]] = field(default_factory=dict)
    entered: list[Entered] = field(default_factory=list)
    skipped_levels: int = 0

    def copy(self, source: Path) -> None:
        self.here = os.dup(self.root)
        own = identity_of(os.fstat(self.root))
        with closing(walk_tree(source, enters=lambda _parts, _name, info: identity_of(info) != own)) as steps:
            for step in steps:
                if isinstance(step, Trouble):
                    self._leave_out(step, step.why)
                elif self.skipped_levels:
                    self.skipped_levels += isinstance(step, Entered) - isinstance(step, Left)
                elif isinstance(step, Entered):
                    self._enter(step)
                elif isinstance(step, Left):
                    self._leave()
                else:
                    self._copy_leaf(step)
        with suppress(OSError):
            info = source.lstat()
            if stat.S_ISDIR(info.st_mode):
                _settle(self.root, info, stat.S_IMODE(info.st_mode) & 0o1777)

    def close(self) -> None:
        for fd in (self.here, self.root):
            if fd >= 0:
                os.close(fd)

    def _leave_out(self, step: Leaf | Trouble, why: str) -> None:
        self.left_out.append(LeftOut(path_text(step.parts, step.name), why))

    def _enter(self, step: Entered) -> None:
        try:
            os.mkdir(step.name, 0o700, dir_fd=self.here)
        except OSError as error:
            if error.errno not in _NAME_FAILED:
                raise
            self.left_out.append(LeftOut(path_text(step.parts), reason_of(error)))
            self.skipped_levels = 1
            return
        below = os.open(step.name, OPEN_FOLDER, dir_fd=self.here)
        os.close(self.here)
        self.here = below
        self.entered.append(step)

    def _leave(self) -> None:
        step = self.entered.pop()
        above = os.open("..", OPEN_FOLDER, dir_fd=self.here)
        try:
            _settle(self.here, step.info, step.mode & 0o1777)
        finally:
            os.close(self.here)
            self.here = above

    def _copy_leaf(self, leaf: Leaf) -> None:
        kind = kind_of(leaf.info.st_mode)
        if kind == "link":
            self._copy_link(leaf)
        elif kind == "file":
            if leaf.info.st_nlink == 1 or not self._link_again(leaf):
                self._copy_file(leaf)
        else:
            self._leave_out(leaf, f"it is a {kind}")

    def _copy_link(self, leaf: Leaf) -> None:
        try:
            target = os.readlink(leaf.name, dir_fd=leaf.parent_fd)
        except OSError as error:
            self._leave_out(leaf, reason_of(error))
            return
        try:
            os.symlink(target, leaf.name, dir_fd=self.here)
        except OSError as error:
            if error.errno not in _NAME_FAILED:
                raise
            self._leave_out(leaf, reason_of(error))
            return
        with suppress(OSError):
            if os.geteuid() == 0:
                os.chown(leaf.name, leaf.info.st_uid, leaf.info.st_gid, dir_fd=self.here, follow_symlinks=False)
            times = (leaf.info.st_atime_ns, leaf.info.st_mtime_ns)
            os.utime(leaf.name, ns=times, dir_fd=self.here, follow_symlinks=False)

    def _copy_file(self, leaf: Leaf) -> None:
        try:
            source = open_regular(leaf.name, leaf.parent_fd)
        except OSError as error:
            self._leave_out(leaf, reason_of(error))
            return
        try:
            try:
                target = os.open(leaf.name, _CREATE, 0o600, dir_fd=self.here)
            except OSError as error:
                if error.errno not in _NAME_FAILED:
                    raise
                self._leave_out(leaf, reason_of(error))
                return
            try:
                info = os.fstat(source)
                self.bytes += _copy_content(source, target, info.st_size)
                _settle(target, info, stat.S_IMODE(leaf.info.st_mode) & 0o777)
                self.files += 1
                if info.st_nlink > 1:
                    self.linked[identity_of(info)] = (*leaf.parts, leaf.name)
            except OSError as error:
                if error.errno in _TARGET_FULL:
                    raise
                os.unlink(leaf.name, dir_fd=self.here)
                self._leave_out(leaf, reason_of(error))
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _link_again(self, leaf: Leaf) -> bool:
        """Make the leaf another name of a file copied before; False when there is none, or it cannot be reached."""
        first = self.linked.get(identity_of(leaf.info))
        if first is None:
            return False
        folder = os.dup(self.root)
        try:
            for name in first[:-1]:
                below = os.open(name, OPEN_FOLDER, dir_fd=folder)
                os.close(folder)
                folder = below
            os.link(first[-1], leaf.name, src_dir_fd=folder, dst_dir_fd=self.here, follow_symlinks=False)
        except OSError:
            return False
        else:
            self.files += 1
            return True
        finally:
            os.close(folder)


def _copy_content(source: int, target: int, size: int) -> int:
    """Copy at most `size` bytes, so that a file that grows ends too; holes stay holes. The bytes written."""
    if _share_blocks(source, target):
        return size
    ranges = data_ranges(source, size)
    written = sum(_copy_range(source, target, start, end) for start, end in ([(0, size)] if ranges is None else ranges))
    # A hole at the end is made here; a file that shrank meanwhile is as long as it is now.
    os.ftruncate(target, min(size, os.fstat(source).st_size))
    return written


def _share_blocks(source: int, target: int) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl  # noqa: PLC0415 - Unix only, and needed nowhere else

    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError:
        return False
    return True


def _copy_range(source: int, target: int, start: int, end: int) -> int:
    position = start
    in_kernel = hasattr(os, "copy_file_range")
    while position < end:
        if in_kernel:
            try:
                count = os.copy_file_range(source, target, end - position, position, position)
            except OSError as error:
                if error.errno in _TARGET_FULL:
                    raise
                in_kernel = False
                continue
        else:
            data = os.pread(source, min(CHUNK_BYTES, end - position), position)
            count = len(data)
            view = memoryview(data)
            while view:
                view = view[os.pwrite(target, view, position + count - len(view)) :]
        if not count:
            break
        position += count
    return position - start


def _settle(fd: int, info: os.stat_result, mode: int) -> None:
    """Give the copy the original's owner (as root), mode and times, in the order in which they survive."""
    if os.geteuid() == 0:
        with suppress(PermissionError):
            os.fchown(fd, info.st_uid, info.st_gid)
    os.fchmod(fd, mode)
    with suppress(OSError):
        os.utime(fd, ns=(info.st_atime_ns, info.st_mtime_ns))


def _remove_below(path: Path) -> list[LeftOut]:
    stuck: list[LeftOut] = []
    with closing(walk_tree(path, needs=0o700, restores=False)) as steps:
        for step in steps:
            try:
                if isinstance(step, Leaf):
                    os.unlink(step.name, dir_fd=step.parent_fd)
                elif isinstance(step, Left) and step.parent_fd is not None:
                    os.rmdir(step.name, dir_fd=step.parent_fd)
                elif isinstance(step, Trouble):
                    stuck.append(LeftOut(path_text(step.parts, step.name), step.why))
            except FileNotFoundError:
                continue
            except OSError as error:
                if isinstance(step, Leaf) or error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    stuck.append(LeftOut(path_text(step.parts, step.name), reason_of(error)))
    return stuck
