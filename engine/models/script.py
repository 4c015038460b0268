"""The YAML script of `fake/script:FILE`: turns a fake model plays, read with errors that name file, line and key."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fbench.engine.errors import UsageError
from fbench.engine.seams import Usage
from fbench.tasks.loading import dotted
from fbench.tasks.yaml_lines import Document, UnreadableYaml, read_yaml

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MOST_SCRIPT_BYTES = 16 * 1024**2

_LONGEST_WORDS = 200
_PLAIN_WORDS = {
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "tuple_type": "must be a list",
    "string_type": "must be a text",
}
_UNION_ARMS = frozenset({"dict[str,any]", "str"})

_Count = Annotated[int, Field(ge=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ScriptUsage(_Frozen):
    """Tokens a turn counts, as given; `input` includes `cached_input`, `output` includes `reasoning`."""

    input: _Count = 0
    cached_input: _Count = 0
    output: _Count = 0
    reasoning: _Count = 0

    def counts(self) -> Usage:
        """The same as disjoint counts."""
        return Usage(
            input=self.input - self.cached_input,
            cache_read=self.cached_input,
            output=self.output,
            reasoning=self.reasoning,
        )

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.cached_input > self.input:
            msg = "`cached_input` is a part of `input` and cannot exceed it"
            raise ValueError(msg)
        if self.reasoning > self.output:
            msg = "`reasoning` is a part of `output` and cannot exceed it"
            raise ValueError(msg)
        return self


class ScriptCall(_Frozen):
    """A tool call. `arguments` as a text is sent as it stands, to play a model that writes broken JSON."""

    name: str
    arguments: dict[str, Any] | str = Field(default_factory=dict)
    id: str | None = None


class ScriptTurn(_Frozen):
    """One answer."""

    content: str = ""
    tool_calls: Annotated[tuple[ScriptCall, ...], Field(strict=False)] = ()
    usage: ScriptUsage | None = None
    latency_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class Script(_Frozen):
    """A whole script; with `loop` it begins again after the last turn."""

    turns: Annotated[tuple[ScriptTurn, ...], Field(strict=False)]
    loop: bool = False

    @field_validator("turns")
    @classmethod
    def _not_empty(cls, value: tuple[ScriptTurn, ...]) -> tuple[ScriptTurn, ...]:
        if not value:
            msg = "a script needs at least one turn"
            raise ValueError(msg)
        return value


def load_script(path: Path) -> Script:
    """The script in `path`.

    Raises:
        UsageError: it cannot be read or is no script; every problem stands on a line of its own.
    """
    text = read_fake_file(path, "the fake script", "fake/script:FILE")
    try:
        document = read_yaml(text)
    except UnreadableYaml as error:
        msg = f"{path}:{error.line or 1}: {error.message}"
        raise UsageError(msg) from None
    problems = [
        f"{path}:{finding.line}: {dotted(finding.path)}: {finding.message}; {finding.hint}"
        for finding in document.findings
    ]
    try:
        script = Script.model_validate(document.data)
    except ValidationError as error:
        problems += [_explain(path, document, problem) for problem in error.errors(include_url=False)]
    else:
        if not problems:
            return script
    raise UsageError("\n".join(dict.fromkeys(problems)))


def read_fake_file(path: Path, what: str, form: str) -> str:
    """The text of a file that a fake goes by; `what` it is and the `form` of the fake's name are for the reader.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        if not path.is_file():
            msg = f"{what} {path} is no file; the name is {form}, relative to the working folder"
            raise UsageError(msg)
        if (size := path.stat().st_size) > MOST_SCRIPT_BYTES:
            msg = f"{what} {path} has {size} bytes; at most {MOST_SCRIPT_BYTES} are read"
            raise UsageError(msg)
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        msg = f"{what} {path} cannot be read: {error}"
        raise UsageError(msg) from None


def _explain(path: Path, document: Document, problem: "ErrorDetails") -> str:
    loc = tuple(part for part in problem["loc"] if part not in _UNION_ARMS)
    words = _PLAIN_WORDS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    if problem["type"] == "extra_forbidden":
        known = _known_keys(loc)
        near = difflib.get_close_matches(str(loc[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        words = f"unknown key; {hint}Known are {', '.join(known)}"
    elif problem["type"] == "missing":
        words = "is missing"
    elif len(loc) < len(problem["loc"]):
        words = "must be a mapping, or a text that is sent as it stands"
    elif not isinstance(problem["input"], dict | list | tuple):
        words = f"{words}, not {problem['input']!r}"[:_LONGEST_WORDS]
    return f"{path}:{document.line_of(loc)}: {dotted(loc) or 'the script'}: {words}"


def _known_keys(loc: tuple[str | int, ...]) -> list[str]:
    """The keys that are legal where `loc` ends: `turns[0].usage.x` has four parts, `turns[0].tool_calls[0].x` five."""
    models: dict[int, type[BaseModel]] = {1: Script, 3: ScriptTurn, 4: ScriptUsage, 5: ScriptCall}
    return list(models[len(loc)].model_fields)
