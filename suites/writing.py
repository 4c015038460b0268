"""Files that tell of a suite run, each written whole or not at all."""

import tempfile
from pathlib import Path
from typing import ClassVar

from fbench.engine.errors import FbenchError, UsageError
from fbench.engine.records.atomic import write_atomically


class Unwritten(FbenchError):
    """A file that tells of a suite run could not be written; its runs are whole."""

    exit_code: ClassVar[int] = 3


def write_file(path: Path, text: str) -> None:
    """Put `text` at `path`, whose folder is made. Blocking.

    Raises:
        Unwritten: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        msg = (
            f"{path} cannot be written: {error.strerror or error}; no run is lost: once it can be, "
            f"`fbench suite report ID` writes the reports"
        )
        raise Unwritten(msg) from error


def require_writable(path: Path, option: str) -> None:
    """Make the folder of a file that is written at the end: what cannot be is better known before anything is spent.

    Raises:
        UsageError: nothing can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        msg = f"{option} {path}: its folder cannot be written to: {error.strerror or error}; name another"
        raise UsageError(msg) from error
