"""Removes what runs of dead owners left on this machine: scratch folders and control groups."""

import stat
import time
from pathlib import Path

from fbench.engine.logs import get_logger
from fbench.engine.owner import is_owner_alive
from fbench.engine.records.copying import remove_tree
from fbench.engine.scratch import OWNER_FILE, scratch_root
from fbench.sandboxes.cgroups import sweep_groups

OWNERLESS_S = 600.0
"""A folder without its owner's mark is being made, or its maker died at once; this old, it is the second."""

log = get_logger(__name__)


def dead_folders(root: Path | None = None) -> list[Path]:
    """Scratch folders whose owner is dead. `root` is where they lie, this user's if None. Reads only."""
    try:
        folders = sorted((root or scratch_root()).iterdir())
    except OSError:
        return []
    return [folder for folder in folders if _is_dead(folder)]


def sweep_scratch(root: Path | None = None) -> list[Path]:
    """Remove the scratch folders and control groups of dead owners; gives those removed. Blocking."""
    removed = []
    for folder in dead_folders(root):
        if stuck := remove_tree(folder):
            log.warning("scratch.not_removed", folder=str(folder), why=stuck[0].why)
        else:
            removed.append(folder)
    return [*removed, *sweep_groups()]


def _is_dead(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        return False
    try:
        with (folder / OWNER_FILE).open("rb") as file:
            return not is_owner_alive(file.read(1000).decode(errors="replace"))
    except FileNotFoundError:
        return time.time() - status.st_mtime > OWNERLESS_S
    except OSError:
        return False
