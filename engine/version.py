"""fbench's own version, as records carry it."""

from functools import cache
from importlib.metadata import version


@cache
def own_version() -> str:
    """The version of the installed package, read once a process: each reading parses the package's whole metadata."""
    return version("factory-bench")
