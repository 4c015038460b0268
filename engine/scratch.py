"""The scratch folder of a run: under the system's temporary folder, private, marked with its owner, gone afterwards."""

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread

from fbench.engine.errors import UsageError
from fbench.engine.logs import get_logger
from fbench.engine.owner import owner_identity
from fbench.engine.records.copying import remove_tree

OWNER_FILE = "owner"
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
    folder = make_scratch_folder(run_id)
    try:
        yield folder
    finally:
        with anyio.move_on_after(REMOVE_GRACE_S, shield=True) as grace:
            stuck = await anyio.to_thread.run_sync(remove_tree, folder, abandon_on_cancel=True)
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
        (folder / OWNER_FILE).write_text(owner_identity(), encoding="utf-8")
    except OSError as error:
        msg = f"cannot make a scratch folder in {root}: {error.strerror or error}; set TMPDIR to a folder with room"
        raise UsageError(msg) from error
    return folder
