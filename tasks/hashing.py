"""The hash that names a task's content: path, exec bit and bytes of every file of its folder."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from fbench.tasks.errors import TaskError

_CHUNK_BYTES = 1 << 20
LOCK_NAME = "task.lock"
"""What `fbench validate` found; see `fbench.tasks.lock`."""


def hash_task(folder: Path) -> str:
    """`sha256:<hex>` over every file but `__pycache__`, `*.pyc` and the task's own `task.lock`.

    The same from a checkout and from a wheel: empty folders do not count (neither git nor a wheel carries them), of
    the mode only the owner's exec bit does (pip and uv restore it, and nothing else of the mode), and a link to a
    file of the task counts as a file with what it leads to, since that is what a wheel makes of it. For each file,
    in the order of the bytes of its POSIX path: the path, NUL, `x` or `-`, NUL, the SHA-256 of its bytes.

    Raises:
        TaskError: the folder holds what has no such hash (a FIFO, a socket, a device, a link to a folder, to nothing
            or out of the task) or cannot be read.
    """
    root = folder.resolve()
    by_name = {os.fsencode(path.relative_to(root).as_posix()): path for path in _files(root)}
    whole = hashlib.sha256()
    for name in sorted(by_name):
        path = by_name[name]
        try:
            is_executable, digest = _digest(path)
        except OSError as error:
            msg = f"{str(path)!r} cannot be read: {error.strerror}; mend its permissions"
            raise TaskError(msg) from error
        whole.update(name + b"\0" + (b"x" if is_executable else b"-") + b"\0" + digest)
    return f"sha256:{whole.hexdigest()}"


def _files(root: Path) -> Iterator[Path]:
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            found = list(folder.iterdir())
        except OSError as error:
            msg = f"the folder {str(folder)!r} cannot be read: {error.strerror}; mend its permissions"
            raise TaskError(msg) from error
        for path in found:
            if path.name == "__pycache__" or path.name.endswith(".pyc") or path == root / LOCK_NAME:
                continue
            if path.is_dir() and not path.is_symlink():
                pending.append(path)
                continue
            _check_kind(root, path)
            yield path


def _check_kind(root: Path, path: Path) -> None:
    name = str(path)
    if path.is_symlink():
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(root):
            msg = f"{name!r} is a link that leads out of the task; put what it leads to into the task"
            raise TaskError(msg)
        if not target.is_file():
            msg = f"{name!r} is a link to a folder or to nothing, which a wheel cannot carry; replace it"
            raise TaskError(msg)
    elif not path.is_file():
        msg = f"{name!r} is neither a file nor a folder; a task cannot hold it, remove it"
        raise TaskError(msg)


def _digest(path: Path) -> tuple[bool, bytes]:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
        return bool(os.fstat(stream.fileno()).st_mode & stat.S_IXUSR), digest.digest()
