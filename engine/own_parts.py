"""Parts that a program hands to its `Engine` as objects: models, tools, sandboxes, agents and types of check.

The runs of that engine find them by name, before what installed packages bring under entry points. Which engine's run
asks is known from the context it runs in, so two engines of one loop do not see each other's.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from fbench.tasks.outside import own_types

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from fbench.engine.models.names import ModelSpec
    from fbench.engine.seams import Check, Model, OpenSite, Tool
    from fbench.engine.session import RunAgent

    OwnModel = Model | Callable[[ModelSpec], AbstractAsyncContextManager[Model]]


@dataclass(frozen=True, slots=True)
class OwnParts:
    """Parts by name; see `Engine`, which takes them apart from each other."""

    models: "Mapping[str, OwnModel]" = field(default_factory=dict)
    tools: "Mapping[str, Tool]" = field(default_factory=dict)
    sandboxes: "Mapping[str, OpenSite]" = field(default_factory=dict)
    agents: "Mapping[str, RunAgent]" = field(default_factory=dict)
    checks: "Mapping[str, Check | type[Check]]" = field(default_factory=dict)

    def of_group(self, group: str) -> Mapping[str, Any]:
        """Those of a group of the registry."""
        return cast("Mapping[str, Any]", getattr(self, group))

    def model(self, full_name: str) -> "OwnModel | None":
        """What answers to `provider/name`: the one of that name, or the one of the provider."""
        found = self.models.get(full_name)
        return found if found is not None else self.models.get(full_name.partition("/")[0])


NO_PARTS = OwnParts()
_current: ContextVar[OwnParts] = ContextVar("fbench_own_parts", default=NO_PARTS)


def own_parts() -> OwnParts:
    """Those of the engine whose run this is; none outside of a run."""
    return _current.get()


@contextmanager
def use_own_parts(parts: OwnParts) -> Iterator[None]:
    """What runs inside finds these parts, and no other engine's."""
    before, before_types = _current.set(parts), own_types.set(parts.checks)
    try:
        yield
    finally:
        own_types.reset(before_types)
        _current.reset(before)


def own_model_is_free(full_name: str) -> bool:
    """Whether the model is a program's own that costs nothing. A factory's is known only once it is open."""
    return bool(getattr(own_parts().model(full_name), "is_free", False))


def gather_own_parts(
    *,
    models: "Mapping[str, OwnModel]",
    tools: "Iterable[Tool]",
    sandboxes: "Mapping[str, OpenSite]",
    agents: "Mapping[str, RunAgent]",
    checks: "Mapping[str, Check | type[Check]]",
) -> OwnParts:
    """The parts a program hands over, looked through.

    Raises:
        ValueError: a name is one of fbench's own, is given twice or cannot be a name.
        TypeError: an object lacks what its Protocol in `fbench.engine.seams` asks for.
    """
    by_name: dict[str, Tool] = {}
    for tool in tools:
        _need(f"the tool {getattr(tool, 'name', tool)!r}", tool, ("name", "description", "arguments", "run"))
        if tool.name in by_name:
            msg = f"the tool {tool.name!r} is given twice; a task names each tool once"
            raise ValueError(msg)
        by_name[tool.name] = tool
    for name, model in models.items():
        if hasattr(model, "complete") or not callable(model):
            _need(f"the model {name!r}", model, ("name", "is_free", "estimate", "complete"))
    for name, check in checks.items():
        _need(f"the type of check {name!r}", check, ("tier", "arguments", "evaluate"))
    for kind, functions in (("sandbox", sandboxes), ("agent", agents)):
        for name, function in functions.items():
            if not callable(function):
                msg = f"the {kind} {name!r} cannot be called: it is {type(function).__name__}"
                raise TypeError(msg)
    parts = OwnParts(dict(models), by_name, dict(sandboxes), dict(agents), dict(checks))
    if parts != NO_PARTS:
        _check_names(parts)
    return parts


def _check_names(parts: OwnParts) -> None:
    from fbench.engine.models.names import PROVIDERS  # noqa: PLC0415 - late: an engine without own parts needs none
    from fbench.engine.registry import BUILT_IN  # noqa: PLC0415
    from fbench.engine.sandbox_kinds import SANDBOX_CHOICES  # noqa: PLC0415
    from fbench.tasks.manifest import CHECK_MODELS  # noqa: PLC0415

    taken = {
        "tools": {*BUILT_IN["tools"], "submit"},
        "agents": set(BUILT_IN["agents"]),
        "sandboxes": {*BUILT_IN["sandboxes"], *SANDBOX_CHOICES},
        "checks": set(CHECK_MODELS),
    }
    clashes = [f"{group} {name!r}" for group, names in taken.items() for name in parts.of_group(group) if name in names]
    clashes += [f"models {name!r}" for name in parts.models if name.partition("/")[0] in PROVIDERS]
    if clashes:
        msg = f"fbench has these itself, give yours other names: {', '.join(clashes)}"
        raise ValueError(msg)


def _need(what: str, part: object, attributes: tuple[str, ...]) -> None:
    lacking = [name for name in attributes if not hasattr(part, name)]
    if lacking:
        msg = f"{what} lacks {', '.join(lacking)}; see the Protocols in fbench.engine.seams"
        raise TypeError(msg)
