"""Where a path below a folder ends, found without ever leaving that folder.

A path is walked component by component with folder descriptors and O_NOFOLLOW; links are read and resolved by hand,
`..` is taken out of the names walked so far and never asked of the file system.
"""

import errno
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

MAX_LINKS = 40
"""Links followed in one path, as many as Linux allows."""
MAX_STEPS = 20_000
"""Folders opened for one path; links full of `..` would otherwise keep the host busy."""

LIST_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PASS_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LeadsOut(Exception):
    """The path climbs out of the folder, or a link does."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path ends after all links: an open parent folder and a name in it (`.` is the folder itself).

    `name` was no link when it was looked at and may be missing. Whoever gets one closes `parent`.
    """

    parent: int
    name: bytes
    names: tuple[bytes, ...]


def find_place(
    root: Path,
    parts: Iterable[bytes],
    below: Callable[[bytes], list[bytes] | None],
    *,
    create_parents: bool = False,
) -> Place:
    """Where the path `parts` below `root` ends.

    Args:
        root: the folder nothing leaves.
        parts: the components, `..` among them.
        below: the components of a link's target, of an absolute one those below the root; None when it is elsewhere.
        create_parents: whether missing folders on the way are made, owned by the root's owner.

    Raises:
        LeadsOut: the path or a link in it leads out.
        OSError: a component is missing, no folder, not permitted, or the links have no end (ELOOP).
    """
    root_fd = os.open(root, _PASS_FOLDER)
    try:
        walk = _Walk(root_fd, os.dup(root_fd), list(parts)[::-1])
        try:
            name = walk.run(below, create_parents=create_parents)
        except BaseException:
            if walk.current >= 0:
                os.close(walk.current)
            raise
        return Place(walk.current, name, (*walk.names, name) if name != b"." else tuple(walk.names))
    finally:
        os.close(root_fd)


def split_path(raw: bytes) -> list[bytes]:
    """The components of a path, empty ones and `.` left out."""
    return [part for part in raw.split(b"/") if part not in {b"", b"."}]


def give(descriptor: int, uid: int, gid: int) -> None:
    """Make uid and gid the owners where that is permitted."""
    info = os.fstat(descriptor)
    if (info.st_uid, info.st_gid) != (uid, gid):
        with suppress(PermissionError):
            os.fchown(descriptor, uid, gid)


@dataclass(slots=True)
class _Walk:
    """One walk under way: `current` is open on the folder `names`, `pending` holds what is to come, last first."""

    root: int
    current: int
    pending: list[bytes]
    names: list[bytes] = field(default_factory=list)
    links: int = 0
    steps: int = 0

    def run(self, below: Callable[[bytes], list[bytes] | None], *, create_parents: bool) -> bytes:
        """Walk to the end; gives the last name, which is no link."""
        while self.pending:
            part = self.pending.pop()
            self._count_step()
            if part == b"..":
                self._go_up()
            elif (target := _read_link(part, self.current)) is not None:
                self._follow(target, below(target))
            elif self.pending:
                self._enter(part, create=create_parents)
            else:
                return part
        return b"."

    def _count_step(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise OSError(errno.ELOOP, "too many steps")

    def _go_up(self) -> None:
        if not self.names:
            raise LeadsOut
        names, self.names = self.names[:-1], []
        self._restart()
        for name in names:
            self._count_step()
            self._enter(name, create=False)

    def _follow(self, target: bytes, parts: list[bytes] | None) -> None:
        self.links += 1
        if self.links > MAX_LINKS:
            raise OSError(errno.ELOOP, "too many links")
        if parts is None:
            raise LeadsOut
        if target.startswith(b"/"):
            self.names.clear()
            self._restart()
        self.pending.extend(reversed(parts))

    def _restart(self) -> None:
        fresh = os.dup(self.root)
        os.close(self.current)
        self.current = fresh

    def _enter(self, name: bytes, *, create: bool) -> None:
        following = _open_folder(name, self.current, self.root, create=create)
        os.close(self.current)
        self.current = following
        self.names.append(name)


def _open_folder(name: bytes, parent: int, root: int, *, create: bool) -> int:
    try:
        return os.open(name, _PASS_FOLDER, dir_fd=parent)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent)
    # Its owner is set through a descriptor that can only be a folder: by name it could be something else by now.
    fresh = os.open(name, LIST_FOLDER, dir_fd=parent)
    owner = os.fstat(root)
    give(fresh, owner.st_uid, owner.st_gid)
    return fresh


def _read_link(name: bytes, parent: int) -> bytes | None:
    """The link's target, None when `name` is no link or not there."""
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.ENOENT}:
            return None
        raise
