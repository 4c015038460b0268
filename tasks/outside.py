"""Types of check that are not ours: an installed package's, found by the entry-point group `fbench.checks`, and those
that a program brings for its own runs.

What an entry point names is the type's implementation (the Protocol `fbench.engine.seams.Check`). This folder needs of
it only `arguments`, the model of the type's keys, so that a task's check is read as strictly as any of ours. The
package's code is imported when a task names its type, and not before.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

from fbench.tasks.checks import OutsideCheck

GROUP = "fbench.checks"

own_types: ContextVar[Mapping[str, Any]] = ContextVar("fbench_own_check_types", default=MappingProxyType({}))
"""Those of the program in whose run a task is read: implementations, or classes of them, by the type's name."""


class TypeUnusable(ValueError):
    """An installed type of check that cannot be used; the text names the package and what is wrong with it."""


def outside_types() -> list[str]:
    """The names of the types that come from outside, sorted; no code of a package is loaded."""
    return sorted({*own_types.get(), *(point.name for point in entry_points(group=GROUP))})


def is_outside_type(kind: str) -> bool:
    """Whether the type comes from outside; no code of a package is loaded."""
    return kind in own_types.get() or bool(entry_points(group=GROUP, name=kind))


def load_outside_type(kind: str) -> Any:  # noqa: ANN401 - the Protocol is the engine's, which this folder does not know
    """The implementation of a type that `is_outside_type`.

    Raises:
        TypeUnusable: two packages bring it, its code cannot be imported, or it has no model of its keys.
    """
    if kind in own_types.get():
        return _with_arguments(own_types.get()[kind], kind, "the program that runs fbench")
    points = tuple(entry_points(group=GROUP, name=kind))
    if len({point.value for point in points}) != 1:
        msg = f"the type of check {kind!r} is brought by {' and '.join(map(_origin, points))}; keep one of them"
        raise TypeUnusable(msg)
    try:
        found = points[0].load()
    except (ImportError, AttributeError, SyntaxError) as error:
        msg = f"the type of check {kind!r} of {_origin(points[0])} cannot be loaded: {type(error).__name__}: {error}"
        raise TypeUnusable(msg) from error
    return _with_arguments(found, kind, _origin(points[0]))


def outside_model(kind: str) -> type[OutsideCheck]:
    """The model of the keys of a type. Raises TypeUnusable, as `load_outside_type`."""
    model: type[OutsideCheck] = load_outside_type(kind).arguments
    return model


def read_outside_check(value: Any) -> OutsideCheck:  # noqa: ANN401 - what a manifest holds
    """The check as its own model reads it. Raises ValueError, which pydantic takes for a finding."""
    return value if isinstance(value, OutsideCheck) else outside_model(value["type"]).model_validate(value)


def _with_arguments(found: Any, kind: str, origin: str) -> Any:  # noqa: ANN401 - see load_outside_type
    arguments = getattr(found, "arguments", None)
    if not (isinstance(arguments, type) and issubclass(arguments, OutsideCheck)):
        msg = (
            f"the type of check {kind!r} of {origin} has no `arguments`: "
            "a class derived from fbench.tasks.checks.OutsideCheck"
        )
        raise TypeUnusable(msg)
    return found


def _origin(point: EntryPoint) -> str:
    return f"the package {point.dist.name}" if point.dist else f"{point.value}"
