"""What the manifest's models stand on, and what every check has, whatever its type.

A package that brings a type of check of its own derives the model of its keys from `OutsideCheck`; see
`fbench.tasks.outside`.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fbench.tasks.values import Name, matching

DEFAULT_CHECK_TIMEOUT_S = 60.0
CHECK_ID_WORDS = "at most 100 letters, digits, '_', '.' and '-', not led by '.' or '-'"


class BrokenRule(NamedTuple):
    """A rule between keys of one model; `path` leads from the model to the key to mend."""

    path: tuple[str | int, ...]
    message: str


class Frozen(BaseModel):
    """Base of every manifest model: unknown keys are errors, values are not guessed from other types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def fill(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """The keys as given, with those defaults that depend on another key."""
        return data

    @classmethod
    def rules(cls, values: Mapping[str, Any]) -> Iterator[BrokenRule]:  # noqa: ARG003 - for subclasses
        """The broken rules between keys. `values` lacks the keys whose own value is wrong."""
        yield from ()

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, data: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        return cls.fill(data) if isinstance(data, Mapping) else data

    @model_validator(mode="after")
    def _obeys_rules(self) -> Self:
        broken = [rule.message for rule in type(self).rules(vars(self))]
        if broken:
            raise ValueError("; ".join(broken))
        return self


class CheckBase(Frozen):
    """What every check has, whatever its type."""

    id: Annotated[str, matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", CHECK_ID_WORDS)]
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    gating: bool = False
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = DEFAULT_CHECK_TIMEOUT_S


class OutsideCheck(CheckBase):
    """Base of the checks that other packages bring: their keys are fields of a model derived from this one."""

    type: Name


def exactly_one(values: Mapping[str, Any], names: tuple[str, ...], message: str) -> Iterator[BrokenRule]:
    """The broken rule, when not exactly one of the keys has a value; nothing is said where one's value is wrong."""
    given = [name for name in names if values.get(name) is not None]
    if all(name in values for name in names) and len(given) != 1:
        yield BrokenRule((given[1],) if given else (), message)
