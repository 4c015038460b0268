"""Which code judges which type of check: dotted names of our own, the entry points `fbench.checks` for others."""

from collections.abc import Mapping
from types import MappingProxyType

from fbench.engine.errors import UnknownNameError
from fbench.engine.registry import import_dotted
from fbench.engine.results import TIERS
from fbench.engine.seams import Check
from fbench.tasks.manifest import TaskManifest
from fbench.tasks.outside import TypeUnusable, is_outside_type, load_outside_type

CHECK_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "file_present": "fbench.judging.files:FilePresent",
        "command_exit_zero": "fbench.judging.commands:CommandExitZero",
        "pytest": "fbench.judging.pytest_check:PytestCheck",
        "metric_check": "fbench.judging.metrics:MetricCheck",
        "sql_check": "fbench.judging.sql:SqlCheck",
        "reference_output": "fbench.judging.references:ReferenceOutput",
        "llm_rubric": "fbench.judging.rubric:LlmRubric",
    }
)


def load_check(kind: str) -> Check:
    """The code that judges checks of this type, loaded now.

    Raises:
        UnknownNameError: neither fbench nor an installed package judges it, or that package's type cannot be used.
    """
    if dotted := CHECK_TYPES.get(kind):
        found: Check = import_dotted(dotted)()
        return found
    if not is_outside_type(kind):
        msg = (
            f"checks of type {kind!r} cannot be judged by this version of fbench; it judges {', '.join(CHECK_TYPES)}. "
            "Install a package that brings the type under the entry-point group fbench.checks, or change the task"
        )
        raise UnknownNameError(msg)
    try:
        found = load_outside_type(kind)
        outside: Check = found() if isinstance(found, type) else found
    except TypeUnusable as error:
        raise UnknownNameError(str(error)) from error
    if (tier := getattr(outside, "tier", None)) not in TIERS:
        msg = f"the type of check {kind!r} has the tier {tier!r}; there are {', '.join(TIERS)}"
        raise UnknownNameError(msg)
    return outside


def unsupported_checks(manifest: TaskManifest) -> list[str]:
    """The checks that cannot be judged here, in order, as `id (type)`; empty when the task can be judged.

    Of ours it loads no code; an outside type's is loaded, since it may not keep to the Protocol.
    """
    unsupported = []
    for check in manifest.grader.checks:
        if check.type in CHECK_TYPES:
            continue
        if not is_outside_type(check.type):
            unsupported.append(f"{check.id} ({check.type})")
            continue
        try:
            load_check(check.type)
        except UnknownNameError as error:
            unsupported.append(f"{check.id} ({error})")
    return unsupported
