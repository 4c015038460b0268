"""The task manifest: what `task.yaml` may say, as frozen models.

The models hold every rule that needs nothing but the manifest itself. Rules that need the task's folder (does the
prompt file exist?) are in `fbench.tasks.loading`, which also turns a problem into a file, a line and advice.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

DEFAULT_IMAGE = "fbench/mle:1"
DEFAULT_WORKDIR = "/workspace"
DEFAULT_CHECK_TIMEOUT_S = 60.0

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_MEMORY_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_bytes(value: object) -> int:
    """Bytes of `512m`, `1g` or a plain number of bytes; units are powers of 1024, as Docker reads them."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        msg = "a size is a number of bytes or a text like 512m or 1g"
        raise ValueError(msg)
    match = _MEMORY.fullmatch(str(value).strip())
    if match is None or (size := int(float(match[1]) * _MEMORY_UNITS[match[2].lower()])) <= 0:
        msg = f"{value!r} is no size: write a number above 0 and a unit, like 512m or 1g"
        raise ValueError(msg)
    return size


def _plain_text(value: object) -> object:
    """YAML reads `PORT: 5432` as a number; an environment variable is a text all the same."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _as_decimal(value: object) -> object:
    return Decimal(str(value)) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _inside(value: str) -> str:
    path = PurePosixPath(value)
    if not value or path.is_absolute() or ".." in path.parts or path == PurePosixPath():
        msg = f"{value!r} must be a relative path that stays inside, without '..'"
        raise ValueError(msg)
    return value


def _env_names(value: Mapping[str, str]) -> Mapping[str, str]:
    for name, text in value.items():
        if not _ENV_NAME.fullmatch(name):
            msg = f"{name!r} is no name of an environment variable"
            raise ValueError(msg)
        if name.startswith("FBENCH_"):
            msg = f"{name!r} is reserved: names that begin with FBENCH_ are set by fbench"
            raise ValueError(msg)
        if "\0" in text:
            msg = f"the value of {name!r} holds a NUL byte"
            raise ValueError(msg)
    return MappingProxyType(dict(value))


Bytes = Annotated[int, BeforeValidator(parse_bytes)]
Money = Annotated[
    Decimal,
    BeforeValidator(_as_decimal),
    Field(ge=0, allow_inf_nan=False, strict=False),
    PlainSerializer(float, return_type=float, when_used="json"),
]
InsidePath = Annotated[str, AfterValidator(_inside)]
Text = Annotated[str, BeforeValidator(_plain_text)]
Env = Annotated[
    Mapping[str, Text], AfterValidator(_env_names), PlainSerializer(lambda value: dict(value), return_type=dict)
]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Command = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]


class Frozen(BaseModel):
    """Base of every manifest model: unknown keys are errors, values are not guessed from other types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Resources(Frozen):
    """Caps of one sandbox or service; None leaves it to the engine."""

    cpus: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    memory: Bytes | None = None
    pids: Annotated[int, Field(gt=0)] | None = None
    disk: Bytes | None = None


class SandboxResources(Resources):
    """Caps of the agent's sandbox."""

    cpus: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 1.0
    memory: Bytes | None = 1024**3
    pids: Annotated[int, Field(gt=0)] | None = 256
    disk: Bytes | None = 5 * 1024**3


class Network(Frozen):
    """Where the sandbox may connect: nowhere but its services, or the internet."""

    allow: Annotated[tuple[Literal["internet"], ...], Field(strict=False)] = ()


class Healthcheck(Frozen):
    command: Command
    interval_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    retries: Annotated[int, Field(gt=0)] = 60


class Service(Frozen):
    """A container beside the sandbox, reached by its name."""

    image: str | None = None
    build: InsidePath | None = None
    command: Command | None = None
    env: Env = Field(default_factory=dict)
    files: Mapping[InsidePath, Annotated[str, Field(pattern=r"^/")]] = Field(default_factory=dict)
    healthcheck: Healthcheck | None = None
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.image is None) == (self.build is None):
            msg = "a service needs either `image` or `build`"
            raise ValueError(msg)
        return self


class Environment(Frozen):
    """What the sandbox is made of."""

    image: str | None = None
    build: InsidePath | None = None
    workdir: Annotated[str, Field(pattern=r"^/[^\x00]+$")] = DEFAULT_WORKDIR
    env: Env = Field(default_factory=dict)
    resources: SandboxResources = SandboxResources()
    network: Network = Network()
    services: Mapping[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")], Service] = Field(default_factory=dict)
    setup: Annotated[tuple[Command, ...], Field(strict=False)] = ()
    container_only: bool = False
    modules: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*$")], ...], Field(strict=False)
    ] = ()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.image is not None and self.build is not None:
            msg = "`image` and `build` exclude each other"
            raise ValueError(msg)
        if ".." in PurePosixPath(self.workdir).parts:
            msg = "`workdir` must not contain '..'"
            raise ValueError(msg)
        return self

    @property
    def needs_compose(self) -> bool:
        """Whether services or an opened network ask for Compose."""
        return bool(self.services or self.network.allow)


class ModelSettings(Frozen):
    """What is asked of the model; None leaves it to the server."""

    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    reasoning_effort: str | None = None
    max_output_tokens: Annotated[int, Field(gt=0)] = 4096


class Agent(Frozen):
    prompt: InsidePath | None = None
    prompt_text: Annotated[str, Field(min_length=1)] | None = None
    system_text: str | None = None
    max_turns: Annotated[int, Field(gt=0)] | None = 30
    turns: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if (self.prompt is None) == (self.prompt_text is None):
            msg = "the agent needs either `prompt` (a file of the task) or `prompt_text`"
            raise ValueError(msg)
        return self


class Tools(Frozen):
    style: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = "native"
    allow: Annotated[tuple[str, ...], Field(strict=False)] = ("bash", "python", "text_editor", "git_diff")

    @field_validator("allow")
    @classmethod
    def _no_submit(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "submit" in value:
            msg = "`submit` is always there and is not listed"
            raise ValueError(msg)
        if len(set(value)) != len(value):
            msg = "a tool is listed twice"
            raise ValueError(msg)
        return value


class Budget(Frozen):
    """Caps of one run; None means none."""

    tokens: Annotated[int, Field(ge=0)] | None = None
    tool_calls: Annotated[int, Field(ge=0)] | None = None
    wall_time_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    cost_usd: Money | None = None
    judge_cost_usd: Money | None = None


class CheckBase(Frozen):
    """What every check has, whatever its type."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    gating: bool = False
    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = DEFAULT_CHECK_TIMEOUT_S


class FilePresent(CheckBase):
    type: Literal["file_present"]
    path: InsidePath


class CommandExitZero(CheckBase):
    type: Literal["command_exit_zero"]
    command: Command


class MetricCheck(CheckBase):
    type: Literal["metric_check"]
    command: Command | None = None
    path: InsidePath | None = None
    metric: Annotated[str, Field(min_length=1)]
    op: Literal[">=", "<=", ">", "<", "==", "between"]
    threshold: Finite | Annotated[tuple[Finite, Finite], Field(strict=False)]
    baseline: Finite | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.command is None) == (self.path is None):
            msg = "a metric_check reads either `command` or `path`"
            raise ValueError(msg)
        if (self.op == "between") != isinstance(self.threshold, tuple):
            msg = "`between` takes a threshold of [low, high], every other op a single number"
            raise ValueError(msg)
        if isinstance(self.threshold, tuple):
            if self.threshold[0] > self.threshold[1]:
                msg = "the threshold [low, high] has low above high"
                raise ValueError(msg)
            if self.baseline is not None:
                msg = "`baseline` goes with an open-ended op, not with `between`"
                raise ValueError(msg)
        elif self.baseline is not None:
            if self.op == "==":
                msg = "`baseline` goes with an open-ended op, not with `==`"
                raise ValueError(msg)
            higher_is_better = self.op in {">", ">="}
            if self.baseline == self.threshold or (self.baseline < self.threshold) != higher_is_better:
                msg = f"with op {self.op!r} the baseline must lie on the worse side of the threshold"
                raise ValueError(msg)
        return self


class SqlCheck(CheckBase):
    type: Literal["sql_check"]
    dsn: Annotated[str, Field(pattern=r"^(postgres(ql)?|sqlite)://")]
    query: Command
    expect: Annotated[tuple[Annotated[tuple[Any, ...], Field(strict=False)], ...], Field(strict=False)]
    ordered: bool = False


class Tolerance(Frozen):
    rel: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    abs: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    ignore_case: bool = False
    strip: bool = True
    ignore_row_order: bool = False


class ReferenceOutput(CheckBase):
    type: Literal["reference_output"]
    command: Command | None = None
    path: InsidePath | None = None
    reference: InsidePath
    format: Literal["text", "json", "csv"] = "text"
    tolerance: Tolerance = Tolerance()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.command is None) == (self.path is None):
            msg = "a reference_output compares either the stdout of `command` or the file at `path`"
            raise ValueError(msg)
        return self


class LlmRubric(CheckBase):
    type: Literal["llm_rubric"]
    rubric: InsidePath
    judge_model: str | None = None
    votes: Annotated[int, Field(gt=0)] = 1


Check = FilePresent | CommandExitZero | MetricCheck | SqlCheck | ReferenceOutput | LlmRubric


class Grader(Frozen):
    pass_threshold: Annotated[float, Field(ge=0, le=1)] = 1.0
    sandbox: Literal["fresh", "same"] = "fresh"
    checks: Annotated[tuple[Annotated[Check, Field(discriminator="type")], ...], Field(strict=False, min_length=1)]

    @model_validator(mode="after")
    def _weighted(self) -> Self:
        seen: set[str] = set()
        for check in self.checks:
            if check.id.lower() in seen:
                msg = f"two checks have the id {check.id!r} (case does not tell ids apart)"
                raise ValueError(msg)
            seen.add(check.id.lower())
        if not any(check.weight > 0 for check in self.checks):
            msg = "at least one check needs a weight above 0"
            raise ValueError(msg)
        return self


class TaskManifest(Frozen):
    """A whole `task.yaml`."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    title: Annotated[str, Field(min_length=1)]
    description: str = ""
    difficulty: Literal["easy", "medium", "hard"]
    domain: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
    tags: Annotated[tuple[str, ...], Field(strict=False)] = ()
    environment: Environment = Environment()
    model: ModelSettings = ModelSettings()
    agent: Agent
    tools: Tools = Tools()
    budget: Budget = Budget()
    grader: Grader
    solution: InsidePath | None = None
    exploits: Annotated[tuple[InsidePath, ...], Field(strict=False)] = ()
