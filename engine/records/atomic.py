"""Files that a reader sees whole or not at all, and that are on the disk once they are there."""

import json
import os
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import pydantic_core


class NewFile:
    """A text that is written beside its place and takes it with `settle`, or with `take_place` where the disk may have
    it later. As a context it leaves nothing behind.

    All but `settle` takes no time to speak of, and is best done where `settle` is not: a thread beside a busy loop
    waits for Python's lock after every system call.

    Args:
        path: its place; a file that stands there stays until it is taken.
        text: UTF-8; a lone surrogate becomes its escape.
        after: files that are on the disk before it has its place, those of them that are there.
        below: folders whose own entries are on the disk afterwards, as those of its own folder are.

    Raises:
        OSError: a folder or the disk does not take it.
    """

    def __init__(self, path: Path, text: str, *, after: Iterable[Path] = (), below: Iterable[Path] = ()) -> None:
        self._path = path
        self._stack = ExitStack()
        try:
            fd, self._temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            self._stack.callback(Path(self._temporary).unlink, missing_ok=True)
            self._stack.callback(os.close, fd)
            self._files = [fd]
            for known in after:
                with suppress(FileNotFoundError):
                    self._files.append(self._opened(known))
            os.fchmod(fd, 0o644)
            content = memoryview(text.encode("utf-8", errors="backslashreplace"))
            while content:
                content = content[os.write(fd, content) :]
            self._folders = [self._opened(folder) for folder in (path.parent, *below)]
        except BaseException:
            self._stack.close()
            raise

    def settle(self) -> None:
        """Return once it has its place and all is on the disk. Blocking."""
        for fd in self._files:
            os.fsync(fd)
        self.take_place()
        for fd in self._folders:
            os.fsync(fd)

    def take_place(self) -> None:
        """Let readers see it."""
        os.replace(self._temporary, self._path)  # noqa: PTH105 - without making paths

    def _opened(self, path: Path) -> int:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._stack.callback(os.close, fd)
        return fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()


def pretty_json(value: object) -> str:
    """JSON of JSON's own types, indented, as a text that ends its last line."""
    try:
        return pydantic_core.to_json(value, indent=2, inf_nan_mode="null").decode() + "\n"
    except ValueError:  # a lone surrogate, which stands for a byte that is no UTF-8
        return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_atomically(path: Path, text: str, *, below: Iterable[Path] = ()) -> None:
    """Put `text` at `path`, see NewFile. Blocking."""
    with NewFile(path, text, below=below) as file:
        file.settle()
