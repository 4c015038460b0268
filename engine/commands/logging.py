"""Lets the command line show log events on stderr; the library itself prints nothing."""

import logging
import sys


def log_to_stderr(*, quiet: bool) -> None:
    """Warnings and worse on stderr; only errors with `quiet`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("fbench")
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR if quiet else logging.WARNING)
    logger.propagate = False
