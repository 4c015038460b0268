"""Which code judges which type of check: dotted names of our own, the entry points `fbench.checks` for others."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from types import MappingProxyType

from fbench.engine.errors import UnknownNameError
from fbench.engine.registry import import_dotted
from fbench.engine.seams import Check
from fbench.tasks.manifest import TaskManifest

CHECK_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "file_present": "fbench.judging.files:FilePresent",
        "command_exit_zero": "fbench.judging.commands:CommandExitZero",
        "metric_check": "fbench.judging.metrics:MetricCheck",
        "sql_check": "fbench.judging.sql:SqlCheck",
        "reference_output": "fbench.judging.references:ReferenceOutput",
    }
)


def load_check(kind: str) -> Check:
    """The code that judges checks of this type, loaded now.

    Raises:
        UnknownNameError: neither fbench nor an installed package judges it.
    """
    if dotted := CHECK_TYPES.get(kind):
        found: Check = import_dotted(dotted)()
        return found
    for point in entry_points(group="fbench.checks", name=kind):
        outside: Check = point.load()()
        return outside
    msg = (
        f"checks of type {kind!r} cannot be judged by this version of fbench; it judges {', '.join(CHECK_TYPES)}. "
        "Install a package that brings the type under the entry-point group fbench.checks, or change the task"
    )
    raise UnknownNameError(msg)


def unsupported_checks(manifest: TaskManifest) -> list[str]:
    """The checks nothing installed can judge, in order, as `id (type)`; empty when the task can be judged.

    Loads no code: it only asks whether a name is known.
    """
    others = [check for check in manifest.grader.checks if check.type not in CHECK_TYPES]
    if not others:  # to list what is installed reads the metadata of every package
        return []
    outside = {point.name for point in entry_points(group="fbench.checks")}
    return [f"{check.id} ({check.type})" for check in others if check.type not in outside]
