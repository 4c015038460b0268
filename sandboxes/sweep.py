"""Scratch folders with an owner, and removing those whose owner is dead."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from fbench.engine.logs import get_logger
from fbench.sandboxes.cgroups import sweep_groups
from fbench.sandboxes.owners import Owner

PREFIX = "fbench-"
OWNER_FILE = "owner"
REMOVE_PATIENCE_S = 120.0

log = get_logger(__name__)


def make_scratch_folder(root: Path | None = None) -> Path:
    """A new folder below `root` (the system's temporary folder) that `sweep_scratch` knows the owner of.

    The owner is in its name too, so that a folder whose maker died at once is not kept for ever.
    """
    owner = Owner.this_process()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{owner.as_file_name()}-", dir=root))
    (folder / OWNER_FILE).write_text(f"{owner}\n")
    return folder


def sweep_scratch(root: Path | None = None) -> list[Path]:
    """Remove the scratch folders and control groups that dead owners left; gives those removed. Blocking.

    Args:
        root: where the scratch folders are; the system's temporary folder if None.
    """
    removed = []
    for folder in sorted((root or Path(tempfile.gettempdir())).glob(f"{PREFIX}*-*-*")):
        owner = _owner_of(folder)
        if owner is not None and not owner.is_alive() and folder.is_dir() and not folder.is_symlink():
            if remove_tree(folder):
                removed.append(folder)
            else:
                log.warning("scratch.remove_failed", folder=str(folder))
    return [*removed, *sweep_groups()]


def remove_tree(folder: Path) -> bool:
    """Remove a folder an agent wrote in: closed folders, links, thousands of levels. Whether it is gone. Blocking."""
    if not os.path.lexists(folder):
        return True
    _open_up(folder)
    remover = shutil.which("rm", path="/usr/bin:/bin")
    if remover is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        # rm walks relative to open folders, as deep as it goes; shutil.rmtree recurses and stops at a thousand levels.
        try:
            subprocess.run(  # noqa: S603 - our own words and a path after --
                [remover, "-rf", "--one-file-system", "--", os.path.abspath(folder)],  # noqa: PTH100 - keeps a link
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=REMOVE_PATIENCE_S,
            )
        except subprocess.TimeoutExpired:
            return False
    return not os.path.lexists(folder)


def _open_up(folder: Path) -> None:
    """Give ourselves the right to enter every folder, following no link."""
    if os.getuid() == 0:
        return
    queue = [os.fspath(folder)]
    while queue:
        path = queue.pop()
        try:
            os.chmod(  # noqa: PTH101 - pathlib cannot refuse links
                path, 0o700, follow_symlinks=os.chmod not in os.supports_follow_symlinks
            )
            with os.scandir(path) as entries:
                queue += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except (OSError, NotImplementedError):
            continue  # gone, not ours or too deep: `rm` says in the end whether that mattered


def _owner_of(folder: Path) -> Owner | None:
    """By the file inside, which an agent cannot reach, else by the name."""
    try:
        with open(folder / OWNER_FILE, "rb") as file:  # noqa: PTH123 - reads a bounded part
            owner = Owner.parse(file.read(1000).decode(errors="replace"))
    except OSError:
        owner = None
    return owner or Owner.from_file_name("-".join(folder.name.removeprefix(PREFIX).split("-")[:2]))
