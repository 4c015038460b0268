"""The task manifest: what `task.yaml` may say, as frozen models.

The models hold every rule that needs nothing but the manifest itself. A rule between keys of one model is in its
`rules`, which also works on a part of the values, so that `fbench.tasks.diagnosis` can name every broken rule of a
manifest that is wrong elsewhere too. Rules that need the task's folder (does the prompt file exist?) are in
`fbench.tasks.folder_rules`.
"""

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, PlainValidator, SerializeAsAny, Tag

from fbench.tasks.checks import BrokenRule, CheckBase, Frozen, OutsideCheck, exactly_one
from fbench.tasks.metric_checks import MetricCheck
from fbench.tasks.outside import is_outside_type, read_outside_check
from fbench.tasks.values import (
    Bytes,
    Command,
    Env,
    InsideFolder,
    InsidePath,
    ModuleName,
    Money,
    Name,
    Row,
    ServiceName,
    internet_only,
    matching,
    not_blank,
    shorten,
)

DEFAULT_IMAGE = "fbench/mle:1"
DEFAULT_WORKDIR = "/workspace"
MOUNTS = ("grader", "solution", "exploits")
"""Folders of the task that a sandbox shows at its root."""


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

    allow: Annotated[
        tuple[Annotated[Literal["internet"], BeforeValidator(internet_only)], ...], Field(strict=False)
    ] = ()


class Healthcheck(Frozen):
    """How it is known that a service is ready."""

    command: Command
    interval_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    retries: Annotated[int, Field(gt=0)] = 60


class Service(Frozen):
    """A container beside the sandbox, reached by its name."""

    image: Name | None = None
    build: InsidePath | None = None
    command: Command | None = None
    env: Env = Field(default_factory=dict)
    files: Mapping[InsidePath, Annotated[str, matching(r"/[^\0]+", "an absolute path in the service")]] = Field(
        default_factory=dict
    )
    healthcheck: Healthcheck | None = None
    resources: Resources = Resources()

    @classmethod
    def rules(cls, values: Mapping[str, Any]) -> Iterator[BrokenRule]:
        yield from exactly_one(values, ("image", "build"), "a service needs either `image` or `build`")


class Environment(Frozen):
    """What the sandbox is made of."""

    image: Name | None = None
    build: InsidePath | None = None
    workdir: Annotated[str, matching(r"/[^\0]*[^\0/]", "an absolute path other than /")] = DEFAULT_WORKDIR
    env: Env = Field(default_factory=dict)
    resources: SandboxResources = SandboxResources()
    network: Network = Network()
    services: Mapping[ServiceName, Service] = Field(default_factory=dict)
    setup: Annotated[tuple[Command, ...], Field(strict=False)] = ()
    container_only: bool = False
    modules: Annotated[tuple[ModuleName, ...], Field(strict=False)] = ()

    @classmethod
    def fill(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Without `image` and `build` the image is the default one."""
        if data.get("image") is None and data.get("build") is None:
            return {**data, "image": DEFAULT_IMAGE}
        return data

    @classmethod
    def rules(cls, values: Mapping[str, Any]) -> Iterator[BrokenRule]:
        if values.get("image") is not None and values.get("build") is not None:
            yield BrokenRule(("build",), "`image` and `build` exclude each other")
        workdir = PurePosixPath(values.get("workdir", DEFAULT_WORKDIR))
        if ".." in workdir.parts:
            yield BrokenRule(("workdir",), "`workdir` must not contain '..'")
        elif workdir.parts[1:2] and workdir.parts[1] in MOUNTS:
            message = f"`workdir` must not lie in /{workdir.parts[1]}, where fbench mounts that folder of the task"
            yield BrokenRule(("workdir",), message)

    @property
    def needs_compose(self) -> bool:
        """Whether services or an opened network ask for Compose."""
        return bool(self.services or self.network.allow)


class ModelSettings(Frozen):
    """What is asked of the model; None leaves it to the server."""

    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    reasoning_effort: Name | None = None
    max_output_tokens: Annotated[int, Field(gt=0)] = 4096


class Agent(Frozen):
    """What the agent is told, and how many turns it has; None of `max_turns` means no such cap."""

    prompt: InsidePath | None = None
    prompt_text: Annotated[str, AfterValidator(not_blank)] | None = None
    system_text: str | None = None
    max_turns: Annotated[int, Field(gt=0)] | None = 30
    turns: Annotated[tuple[Annotated[str, AfterValidator(not_blank)], ...], Field(strict=False)] = ()

    @classmethod
    def rules(cls, values: Mapping[str, Any]) -> Iterator[BrokenRule]:
        message = "the agent needs either `prompt` (a file of the task) or `prompt_text`"
        yield from exactly_one(values, ("prompt", "prompt_text"), message)


class Tools(Frozen):
    """How tools are called and which; names from outside come by entry point, so the engine checks them."""

    style: Annotated[str, matching(r"[a-z][a-z0-9_]*", "native, json_text or the name of an installed agent")] = (
        "native"
    )
    allow: Annotated[tuple[Name, ...], Field(strict=False)] = ("bash", "python", "text_editor", "git_diff")

    @classmethod
    def rules(cls, values: Mapping[str, Any]) -> Iterator[BrokenRule]:
        allow = values.get("allow", ())
        for position, name in enumerate(allow):
            if name == "submit":
                yield BrokenRule(("allow", position), "`submit` is always there and is not listed")
            elif name in allow[:position]:
                yield BrokenRule(("allow", position), f"the tool {shorten(name)} is listed twice")


class Budget(Frozen):
    """Caps of one run; None means none."""

    tokens: Annotated[int, Field(ge=0)] | None = None
    tool_calls: Annotated[int, Field(ge=0)] | None = None
    wall_time_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    cost_usd: Money | None = None
    judge_cost_usd: Money | None = None


class FilePresent(CheckBase):
    """Passes when `path` is a regular file of the workspace."""

    type: Literal["file_present"]
    path: InsidePath


class CommandExitZero(CheckBase):
    """Passes when `command` exits 0."""

    type: Literal["command_exit_zero"]
    command: Command


class PytestCheck(CheckBase):
    """Passes when every test in `tests`, of the grader, passes; `pythonpath` is what they import of the workspace."""

    type: Literal["pytest"]
    tests: Annotated[InsidePath, matching(r"grader(/.*)?", "a path in the task's grader/")] = "grader/tests"
    pythonpath: Annotated[tuple[InsideFolder, ...], Field(strict=False)] = ()


class SqlCheck(CheckBase):
    """Compares the rows that a query gives with those expected."""

    type: Literal["sql_check"]
    dsn: Annotated[str, matching(r"(postgres(ql)?|sqlite)://[^\0]*", "a postgresql:// or sqlite:// address")]
    query: Command
    expect: Annotated[tuple[Row, ...], Field(strict=False)]
    ordered: bool = False


class Tolerance(Frozen):
    """What a comparison with a reference forgives."""

    rel: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    abs: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    ignore_case: bool = False
    strip: bool = True
    ignore_row_order: bool = False
    nan_is_empty: bool = False


ColumnType = Literal["text", "number", "integer", "boolean", "datetime"]


class ReferenceOutput(CheckBase):
    """Compares a command's stdout, or a file, with a reference."""

    type: Literal["reference_output"]
    command: Command | None = None
    path: InsidePath | None = None
    reference: InsidePath
    format: Literal["text", "json", "csv"] = "text"
    columns: Mapping[str, ColumnType] = Field(default_factory=dict)
    tolerance: Tolerance = Tolerance()

    @classmethod
    def rules(cls, values: Mapping[str, Any]) -> Iterator[BrokenRule]:
        message = "a reference_output compares either the stdout of `command` or the file at `path`"
        yield from exactly_one(values, ("command", "path"), message)
        if values.get("columns") and values.get("format", "csv") != "csv":
            yield BrokenRule(("columns",), "`columns` goes with the format csv")


class LlmRubric(CheckBase):
    """Has a model judge the work by a rubric."""

    type: Literal["llm_rubric"]
    rubric: InsidePath
    judge_model: Name | None = None
    votes: Annotated[int, Field(gt=0)] = 1


BuiltInCheck = FilePresent | CommandExitZero | PytestCheck | MetricCheck | SqlCheck | ReferenceOutput | LlmRubric
Check = BuiltInCheck | OutsideCheck
CHECK_MODELS: Mapping[str, type[CheckBase]] = {
    get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(BuiltInCheck)
}
"""The built-in types of check; an installed package's type comes beside them and takes the place of none."""


def _whose(check: object) -> str:
    kind = _part(check, "type")
    return "outside" if isinstance(kind, str) and kind not in CHECK_MODELS and is_outside_type(kind) else "built-in"


_AnyCheck = Annotated[
    Annotated[BuiltInCheck, Field(discriminator="type"), Tag("built-in")]
    | Annotated[SerializeAsAny[OutsideCheck], PlainValidator(read_outside_check), Tag("outside")],
    Discriminator(_whose),
]


class Grader(Frozen):
    """How the final workspace is judged."""

    pass_threshold: Annotated[float, Field(ge=0, le=1)] = 1.0
    sandbox: Literal["fresh", "same"] = "fresh"
    checks: Annotated[tuple[_AnyCheck, ...], Field(strict=False, min_length=1)]

    @classmethod
    def rules(cls, values: Mapping[str, Any]) -> Iterator[BrokenRule]:
        checks = values.get("checks", ())
        seen: set[str] = set()
        for position, check in enumerate(checks):
            name = _part(check, "id")
            if name is not None and name.lower() in seen:
                message = f"two checks have the id {name!r} (case does not tell ids apart)"
                yield BrokenRule(("checks", position, "id"), message)
            seen.add(str(name).lower())
        weights = [_part(check, "weight") for check in checks]
        if weights and all(weight == 0 for weight in weights):
            yield BrokenRule(("checks",), "at least one check needs a weight above 0")


class TaskManifest(Frozen):
    """A whole `task.yaml`."""

    id: Annotated[str, matching(r"[a-z0-9_]{1,100}", "at most 100 lower-case letters, digits and '_'")]
    title: Annotated[str, AfterValidator(not_blank)]
    description: str = ""
    difficulty: Literal["easy", "medium", "hard"]
    domain: Annotated[str, matching(r"[a-z0-9_-]{1,100}", "lower-case letters, digits, '_' and '-'")]
    tags: Annotated[tuple[str, ...], Field(strict=False)] = ()
    environment: Environment = Environment()
    model: ModelSettings = ModelSettings()
    agent: Agent
    tools: Tools = Tools()
    budget: Budget = Budget()
    grader: Grader
    solution: InsidePath | None = None
    exploits: Annotated[tuple[InsidePath, ...], Field(strict=False)] = ()


def _part(check: object, name: str) -> Any:  # noqa: ANN401 - the type of the check's field
    """A field of a check, which is a mapping while a faulty manifest is looked through."""
    return check.get(name) if isinstance(check, Mapping) else getattr(check, name, None)
