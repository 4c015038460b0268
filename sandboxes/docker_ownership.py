"""Who owns what is mounted into a container: given to its user before, given back to the user of fbench afterwards."""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fbench.engine.records.walking import Entered, Leaf, walk_tree

CONTAINER_UID = 1000
"""Of commands where fbench runs as root; else they run as the user of fbench, and nothing changes hands."""


class Account(NamedTuple):
    uid: int
    gid: int


def container_account() -> Account:
    """The user commands run as. Never root."""
    return Account(CONTAINER_UID, CONTAINER_UID) if os.geteuid() == 0 else Account(os.geteuid(), os.getegid())


def own_account() -> Account:
    """The user fbench runs as."""
    return Account(os.geteuid(), os.getegid())


def give_tree(root: Path, account: Account) -> None:
    """Make `account` the owner of everything below `root` and of `root`; links themselves, never what they lead to.

    Does nothing unless fbench runs as root. A file with several names is left alone when it is not one of the two
    users' own: its other name may lie anywhere. Blocking.
    """
    if os.geteuid() != 0:
        return
    ours = {account.uid, os.geteuid(), CONTAINER_UID}
    with suppress(FileNotFoundError):
        os.chown(root, account.uid, account.gid, follow_symlinks=False)
    for step in walk_tree(root):
        if isinstance(step, Entered):
            if (step.info.st_uid, step.info.st_gid) != account:
                os.fchown(step.fd, account.uid, account.gid)
        elif isinstance(step, Leaf):
            info = step.info
            if (info.st_uid, info.st_gid) == account or (info.st_nlink > 1 and info.st_uid not in ours):
                continue
            with suppress(FileNotFoundError):
                # The kernel clears set-user-id bits on the way: what an agent set there never runs as fbench's user.
                os.chown(step.name, account.uid, account.gid, dir_fd=step.parent_fd, follow_symlinks=False)


def is_readable_by_all(root: Path) -> bool:
    """Whether any user may read every file below `root`. Blocking."""
    try:
        if root.stat().st_mode & 0o005 != 0o005:  # noqa: PLR2004 - read and enter, for others
            return False
    except OSError:
        return False
    for step in walk_tree(root):
        if isinstance(step, Entered) and step.mode & 0o005 != 0o005:  # noqa: PLR2004 - as above
            return False
        if isinstance(step, Leaf) and stat.S_ISREG(step.info.st_mode) and not step.info.st_mode & 0o004:
            return False
    return True
