"""Walking a tree that somebody hostile made: any depth, any names, no path ever longer than one name.

One descriptor is held for the folder at hand and one for the root, so depth exhausts neither descriptors nor the
stack, and no link is ever followed. The way up is `..`, checked against the folder it came from.
"""

import os
import stat
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_O_PATH: int | None = getattr(os, "O_PATH", None)


@dataclass(frozen=True, slots=True)
class Entered:
    """A folder begins: `fd` is open on it until the next step. `parts` are the names from the root, `mode` its
    permission bits before any were given."""

    fd: int
    name: str
    info: os.stat_result
    mode: int
    parts: list[str]


@dataclass(frozen=True, slots=True)
class Left:
    """A folder is done; `parent_fd` is the folder that holds it, None when that could not be found again. Each
    `Entered` has its `Left`, unless the walk is given up."""

    parent_fd: int | None
    name: str
    parts: list[str]


@dataclass(frozen=True, slots=True)
class Leaf:
    """Anything but a folder. `parts` are the names of the folder it lies in."""

    parent_fd: int
    name: str
    info: os.stat_result
    parts: list[str]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that could not be looked at."""

    name: str
    parts: list[str]
    why: str


Step = Entered | Left | Leaf | Trouble


@dataclass(slots=True)
class _Frame:
    identity: tuple[int, int]
    names: list[str]
    mode: int
    is_changed: bool


def path_text(parts: list[str], name: str = "") -> str:
    """The path as one text, relative to the walk's root."""
    return "/".join([*parts, name] if name else parts) or "."


def identity_of(info: os.stat_result) -> tuple[int, int]:
    """What tells an inode from every other."""
    return info.st_dev, info.st_ino


def reason_of(error: OSError) -> str:
    """The error in words, without a path."""
    return (error.strerror or type(error).__name__).lower()


def walk_tree(  # noqa: C901, PLR0912, PLR0915 - one state machine over one open folder, read as a whole
    root: Path,
    *,
    needs: int = 0o500,
    restores: bool = True,
    enters: Callable[[list[str], str, os.stat_result], bool] = lambda _parts, _name, _info: True,
) -> Generator[Step, None, None]:
    """Every entry below `root`, depth first, names in byte order. `parts` belongs to the walk and changes with it.

    Args:
        root: the folder; a link is not followed.
        needs: permission bits the owner needs on a folder; missing ones are given while the walk is in it.
        restores: whether a mode that was changed is put back.
        enters: asked with (parts, name, info) before a folder is opened; False leaves it out silently.
    A root that cannot be opened is one `Trouble`.
    """
    try:
        root_fd, root_mode = open_folder(os.fsencode(root), None, needs)
    except OSError as error:
        yield Trouble("", [], reason_of(error))
        return
    current = root_fd
    is_lost = False
    parts: list[str] = []
    frames: list[_Frame] = []
    try:
        current = os.dup(root_fd)
        frames.append(_frame(current, root_mode))
        while True:
            frame = frames[-1]
            if frame.names:
                name = frame.names.pop()
                try:
                    info = os.stat(name, dir_fd=current, follow_symlinks=False)
                    if not stat.S_ISDIR(info.st_mode):
                        yield Leaf(current, name, info, parts)
                        continue
                    if not enters(parts, name, info):
                        continue
                    fd, below = _open_frame(name, current, needs)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    yield Trouble(name, parts, reason_of(error))
                    continue
                os.close(current)
                current = fd
                frames.append(below)
                parts.append(name)
                yield Entered(fd, name, os.fstat(fd), below.mode, parts)
                continue
            frames.pop()
            if not frames:
                _restore(current, frame, restores=restores and not is_lost)
                return
            name = parts.pop()
            parent = _go_up(root_fd, current, parts, frames[-1].identity)
            _restore(current, frame, restores=restores and not is_lost)
            is_lost = parent is None
            if parent is None:
                frames[-1].names.clear()
                yield Trouble("", parts, "moved away while it was read")
            else:
                os.close(current)
                current = parent
            yield Left(parent, name, parts)
    finally:
        if restores and frames and not is_lost:
            _restore_rest(root_fd, current, parts, frames)
        if current != root_fd:
            os.close(current)
        os.close(root_fd)


def open_folder(name: bytes, parent: int | None, needs: int = 0o500) -> tuple[int, int | None]:
    """A descriptor of the folder, and the mode to put back if permission had to be given to its owner first."""
    restore: int | None = None
    if os.geteuid() != 0:
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        mode = stat.S_IMODE(info.st_mode)
        if stat.S_ISDIR(info.st_mode) and mode & needs != needs and info.st_uid == os.geteuid():
            grant_mode(name, parent, mode | 0o700)
            restore = mode
    return os.open(name, OPEN_FOLDER, dir_fd=parent), restore


def open_regular(name: str | bytes, parent: int) -> int:
    """A descriptor of a regular file, never of what a link points at; one its owner may not read is read all the
    same, its mode put back at once.

    Raises:
        OSError: it is not there, no regular file, or somebody else's and unreadable.
    """
    try:
        fd = os.open(name, OPEN_FILE, dir_fd=parent)
    except PermissionError:
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if info.st_uid != os.geteuid() or not stat.S_ISREG(info.st_mode):
            raise
        mode = stat.S_IMODE(info.st_mode)
        grant_mode(os.fsencode(name), parent, mode | 0o400)
        fd = os.open(name, OPEN_FILE, dir_fd=parent)
        os.fchmod(fd, mode)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        msg = "no longer a regular file"
        raise OSError(0, msg)
    return fd


def grant_mode(name: bytes, parent: int | None, mode: int) -> None:
    """Set the mode of the entry itself, never that of a link's target."""
    if _O_PATH is None:
        os.chmod(name, mode, dir_fd=parent, follow_symlinks=False)
        return
    fd = os.open(name, _O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if not stat.S_ISLNK(os.fstat(fd).st_mode):
            os.chmod(f"/proc/self/fd/{fd}", mode)  # noqa: PTH101 - a descriptor without rights has no other way
    finally:
        os.close(fd)


def _open_frame(name: str, parent: int, needs: int) -> tuple[int, _Frame]:
    fd, restore_mode = open_folder(os.fsencode(name), parent, needs)
    try:
        return fd, _frame(fd, restore_mode)
    except BaseException:
        os.close(fd)
        raise


def _frame(fd: int, restore_mode: int | None) -> _Frame:
    names = sorted(os.listdir(fd), key=os.fsencode, reverse=True)
    info = os.fstat(fd)
    mode = stat.S_IMODE(info.st_mode) if restore_mode is None else restore_mode
    return _Frame(identity_of(info), names, mode, is_changed=restore_mode is not None)


def _restore(fd: int, frame: _Frame, *, restores: bool) -> None:
    if restores and frame.is_changed:
        with suppress(OSError):
            os.fchmod(fd, frame.mode)


def _restore_rest(root_fd: int, current: int, parts: list[str], frames: list[_Frame]) -> None:
    """The walk was given up halfway: put back what it changed on the way up."""
    if not any(frame.is_changed for frame in frames):
        return
    fd = os.dup(current)
    names = list(parts)
    try:
        while frames:
            frame = frames.pop()
            parent = _go_up(root_fd, fd, names[:-1], frames[-1].identity) if frames else None
            _restore(fd, frame, restores=True)
            if parent is None:
                return
            os.close(fd)
            fd = parent
            names.pop()
    finally:
        os.close(fd)


def _go_up(root_fd: int, current: int, parts: list[str], identity: tuple[int, int]) -> int | None:
    """The parent, known by its identity: by `..`, else by name from the root, else None."""
    with suppress(OSError):
        parent = os.open("..", OPEN_FOLDER, dir_fd=current)
        if identity_of(os.fstat(parent)) == identity:
            return parent
        os.close(parent)
    fd = os.dup(root_fd)
    for name in parts:
        try:
            following = os.open(name, OPEN_FOLDER, dir_fd=fd)
        except OSError:
            return None
        finally:
            os.close(fd)
        fd = following
    if identity_of(os.fstat(fd)) == identity:
        return fd
    os.close(fd)
    return None
