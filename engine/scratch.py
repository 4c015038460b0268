"""The scratch folder of a run: under the system's temporary folder, private, marked with its owner, gone afterwards."""

import errno
import os
import stat
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio

from fbench.engine.errors import UsageError
from fbench.engine.logs import get_logger
from fbench.engine.owner import Owner, is_owner_alive, owner_identity
from fbench.engine.records.copying import LeftOut, is_little_tree, remove_tree
from fbench.engine.records.spreading import spread_if_first
from fbench.engine.threads import in_thread, run_to_its_end

OWNER_ATTRIBUTE = "user.fbench.owner"
"""Extended attribute of a scratch folder: whose it is. It comes and goes with the folder, and is no file more."""
OWNER_FILE = "owner"
"""Says the same where the file system has no such attributes."""
UNMARKED = ".owner-"
"""Begins the name of a folder while that file is not written yet, or may be removed already: the name tells."""
OWNERLESS_S = 600.0
"""A folder without its owner's mark is being made, or its maker died at once; this old, it is the second."""
REMOVE_GRACE_S = 60.0

log = get_logger(__name__)


def scratch_root() -> Path:
    """Where this user's runs keep their scratch folders. `TMPDIR` moves it."""
    return Path(tempfile.gettempdir()) / f"fbench-{os.geteuid()}"


@asynccontextmanager
async def open_scratch(run_id: str) -> AsyncIterator[Path]:
    """A new folder of this run, removed with everything in it when the context ends.

    Raises:
        UsageError: the temporary folder cannot be used safely.
    """
    folder = await run_to_its_end(lambda: make_scratch_folder(run_id), kind="scratch")
    try:
        yield folder
    finally:
        with anyio.move_on_after(REMOVE_GRACE_S, shield=True) as grace:
            is_little = is_little_tree(folder)
            stuck = await in_thread(partial(_remove, folder), abandon_on_cancel=True, is_little=is_little)
            if stuck:
                log.warning("scratch.not_removed", folder=str(folder), why=stuck[0].why)
        if grace.cancelled_caught:
            log.error("scratch.remove_timed_out", folder=str(folder), grace_s=REMOVE_GRACE_S)


def make_scratch_folder(run_id: str) -> Path:
    """A new scratch folder with its owner's mark; whoever makes it removes it. Raises UsageError."""
    root = scratch_root()
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        status = root.lstat()
        if root.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            msg = f"{root} belongs to somebody else or others may write to it; remove it, or set TMPDIR"
            raise UsageError(msg)
        folder = root / run_id
        folder.mkdir(mode=0o700)
        spread_if_first(root)
        if not _mark(folder):
            folder.rmdir()
            _make_with_owner_file(folder)
    except OSError as error:
        msg = f"cannot make a scratch folder in {root}: {error.strerror or error}; set TMPDIR to a folder with room"
        raise UsageError(msg) from error
    return folder


def is_dead(folder: Path) -> bool:
    """Whether this scratch folder's owner is dead, as far as can be told."""
    try:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode):
            return False
        if folder.name.startswith(UNMARKED):
            pid_and_start = folder.name.removeprefix(UNMARKED).split("-", 2)[:2]
            owner = Owner.from_file_name("-".join(pid_and_start))
            return owner is not None and not owner.is_alive()
        mark = _read_mark(folder)
    except OSError:
        return False
    return not is_owner_alive(mark) if mark else time.time() - status.st_mtime > OWNERLESS_S


def _mark(folder: Path) -> bool:
    """Say on the folder itself whose it is; False where that cannot be."""
    if sys.platform != "linux":
        return False
    try:
        os.setxattr(folder, OWNER_ATTRIBUTE, owner_identity().encode())
    except OSError:
        return False
    return True


def _read_mark(folder: Path) -> str:
    """Whose a folder is, "" when it does not say. Raises OSError when it cannot be read."""
    if sys.platform == "linux":
        try:
            return os.getxattr(folder, OWNER_ATTRIBUTE, follow_symlinks=False).decode(errors="replace")
        except OSError as error:
            if error.errno not in {errno.ENODATA, errno.EOPNOTSUPP}:
                raise
    try:
        with (folder / OWNER_FILE).open("rb") as file:
            return file.read(1000).decode(errors="replace")
    except FileNotFoundError:
        return ""


def _make_with_owner_file(folder: Path) -> None:
    unmarked = _unmarked(folder)
    unmarked.mkdir(mode=0o700)
    try:
        (unmarked / OWNER_FILE).write_text(owner_identity(), encoding="utf-8")
        unmarked.rename(folder)
    except OSError:
        remove_tree(unmarked)
        raise


def _unmarked(folder: Path) -> Path:
    return folder.with_name(f"{UNMARKED}{Owner.this_process().as_file_name()}-{folder.name}")


def _remove(folder: Path) -> tuple[LeftOut, ...]:
    """Remove the folder; killed in the middle of it, a sweep still knows whose it was. Blocking."""
    if not (folder / OWNER_FILE).exists():
        return remove_tree(folder)
    unmarked = _unmarked(folder)
    try:
        folder.rename(unmarked)
    except OSError:
        return remove_tree(folder)
    return remove_tree(unmarked)
