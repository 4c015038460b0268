"""Lets the command line show log events on stderr; the library itself prints nothing."""

import logging
import sys
from typing import TextIO

from fbench.engine.commands.progress import clear_live_line


class _LineHandler(logging.StreamHandler[TextIO]):
    """Gives each event a line of its own, where the live line stood."""

    def emit(self, record: logging.LogRecord) -> None:
        clear_live_line(self.stream)
        super().emit(record)


def log_to_stderr(*, quiet: bool) -> None:
    """Warnings and worse on stderr; only errors with `quiet`."""
    handler = _LineHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("fbench")
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR if quiet else logging.WARNING)
    logger.propagate = False
