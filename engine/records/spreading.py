"""Where the file system puts what many runs write.

ext4 without a journal passes by every inode that was freed in the last minutes of the block group a folder lies in:
where 10,000 files have just been removed, making one took 0.9 ms instead of 0.02. Runs make and remove many, all below
the same few folders. Such a folder can be marked as the top of unrelated hierarchies (`chattr +T`, see chattr(1)): what
is made in it is then spread over the groups, each run's files in one of their own.
"""

import array
import fcntl
import os
import sys
from contextlib import suppress
from pathlib import Path

_GET_FLAGS = 0x80086601
_SET_FLAGS = 0x40086602
"""FS_IOC_GETFLAGS and FS_IOC_SETFLAGS of linux/fs.h, for a long of 8 bytes."""
_TOP_OF_HIERARCHIES = 0x00020000
"""FS_TOPDIR_FL of the same."""
LINKS_WITH_ONE = 3
"""Of a folder with one folder in it, where the file system counts them: its name, its own `.`, the other's `..`."""


def spread_if_first(folder: Path) -> None:
    """When the first folder has been made in `folder`, let the next ones lie apart from each other. A hint: where the
    file system knows none, nothing is done. Raises nothing."""
    if sys.platform != "linux" or array.array("l").itemsize != 8:  # noqa: PLR2004 - see above
        return
    with suppress(OSError):  # another file system, or another user's folder
        if os.stat(folder).st_nlink != LINKS_WITH_ONE:  # noqa: PTH116 - once a run
            return
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            flags = array.array("l", [0])
            fcntl.ioctl(opened, _GET_FLAGS, flags)
            if not flags[0] & _TOP_OF_HIERARCHIES:
                flags[0] |= _TOP_OF_HIERARCHIES
                fcntl.ioctl(opened, _SET_FLAGS, flags)
        finally:
            os.close(opened)
