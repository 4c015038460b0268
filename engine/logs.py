"""Loggers of fbench: structlog in front of the standard library's logging, silent until somebody listens.

A library prints nothing: events go to the standard logger `fbench.*`, whose handlers belong to the program. The
command line attaches one that writes to stderr.
"""

import logging
from typing import TYPE_CHECKING, cast

import structlog

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

logging.getLogger("fbench").addHandler(logging.NullHandler())


def get_logger(name: str) -> "BoundLogger":
    """A logger whose events are `noun.verb_past` with facts as keys: `log.info("run.started", run_id=...)`."""
    return cast(
        "BoundLogger",
        structlog.wrap_logger(
            logging.getLogger(name),
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.processors.format_exc_info,
                structlog.processors.KeyValueRenderer(key_order=["event"], drop_missing=True),
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
            cache_logger_on_first_use=True,
        ),
    )
