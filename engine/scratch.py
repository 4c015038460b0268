"""The scratch folder of a run: under the system's temporary folder, private, marked with its owner, gone afterwards."""

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio

from fbench.engine.errors import UsageError
from fbench.engine.logs import get_logger
from fbench.engine.owner import Owner, owner_identity
from fbench.engine.records.copying import LeftOut, remove_tree
from fbench.engine.threads import in_thread, run_to_its_end

OWNER_FILE = "owner"
UNMARKED = ".owner-"
"""Begins the name of a folder while its owner's mark is not written yet, or may be removed already: the name tells."""
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
            stuck = await in_thread(partial(_remove, folder), abandon_on_cancel=True)
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
        unmarked = _unmarked(folder)
        unmarked.mkdir(mode=0o700)
        try:
            (unmarked / OWNER_FILE).write_text(owner_identity(), encoding="utf-8")
            unmarked.rename(folder)
        except OSError:
            remove_tree(unmarked)
            raise
    except OSError as error:
        msg = f"cannot make a scratch folder in {root}: {error.strerror or error}; set TMPDIR to a folder with room"
        raise UsageError(msg) from error
    return folder


def owner_in_name(name: str) -> Owner | None:
    """The owner of a folder that is being made or removed; None for any other name."""
    if not name.startswith(UNMARKED):
        return None
    return Owner.from_file_name("-".join(name.removeprefix(UNMARKED).split("-", 2)[:2]))


def _unmarked(folder: Path) -> Path:
    return folder.with_name(f"{UNMARKED}{Owner.this_process().as_file_name()}-{folder.name}")


def _remove(folder: Path) -> tuple[LeftOut, ...]:
    """Remove the folder; killed in the middle of it, a sweep still knows whose it was. Blocking."""
    unmarked = _unmarked(folder)
    try:
        folder.rename(unmarked)
    except OSError:
        return remove_tree(folder)
    return remove_tree(unmarked)
