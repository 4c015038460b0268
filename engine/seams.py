"""The Protocols an implementation has to satisfy: Model, Sandbox, Tool, Check, Agent; and what crosses them.

Engine code knows these only. Implementations are found by dotted name (see `fbench.engine.registry`), so that a
folder can be replaced, and outside packages can bring their own.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from fbench.engine.confine import ConfinedFolder
    from fbench.engine.errors import RunError
    from fbench.engine.models.overlong import Overlong
    from fbench.engine.results import CheckResult, CheckStatus, Tier, Verdict
    from fbench.tasks.manifest import Environment, TaskManifest

# ---------------------------------------------------------------------------------------------------------- sandboxes


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps of one sandbox; None means none asked for."""

    cpus: float | None = None
    memory_bytes: int | None = None
    pids: int | None = None
    disk_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    """A host folder shown read-only at `/<name>` (`grader`, `solution`, `exploits`) and named to every command by
    the variable `FBENCH_<NAME>`. In `local` the variable holds the host path."""

    name: str
    source: Path


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """Everything needed to open one sandbox.

    Attributes:
        run_id: the run it serves; labels and log lines carry it.
        workspace: host folder that commands see as the workspace, read-write. Belongs to the caller and survives.
        scratch: host folder of the run for the sandbox's own files (`home/`, `tmp/`, `state/` are made inside when
            missing). Reusing one scratch folder is what `grader.sandbox: same` means. Belongs to the caller.
        workdir: the manifest's `environment.workdir`: where the workspace appears and commands start.
        env: the manifest's `environment.env`; nothing else of the host's environment reaches a command.
        hidden: host paths that must not be readable inside where the sandbox can hide them (tasks, run folders).
    """

    run_id: str
    workspace: Path
    scratch: Path
    workdir: str = "/workspace"
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    mounts: tuple[Mount, ...] = ()
    hidden: tuple[Path, ...] = ()
    purpose: Literal["agent", "grader", "validate"] = "agent"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a sandbox really does on this machine.

    `limits` maps `cpus`, `memory`, `pids`, `disk`, `network` to how it is enforced ("cgroup", "rlimit", "watched",
    "namespace"), or to "" where it is not. `has_bash` says that bash is known to be there, so that no command need be
    started to find out.
    """

    isolated: bool
    limits: Mapping[str, str] = field(default_factory=dict)
    has_bash: bool = False


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """One command.

    Attributes:
        argv: program and arguments; no shell is added.
        stdin: bytes for its standard input, which then ends; None is an empty input.
        env: variables over the sandbox's base environment.
        cwd: working folder as the sandbox sees it; None is the workdir.
        merge_stderr: whether stderr joins stdout in one stream, in order.
    """

    argv: tuple[str, ...]
    stdin: bytes | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    merge_stderr: bool = True


@dataclass(frozen=True, slots=True)
class OutputChunk:
    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True, slots=True)
class ExecExit:
    """How a command ended: `exit_code` is 128 + signal after a signal; 126/127 with a text in `reason` when the
    program could not be started; `out_of_memory` when the sandbox's memory cap ended it and that could be told."""

    exit_code: int
    signal: int | None = None
    reason: str | None = None
    out_of_memory: bool = False


class RunningExec(Protocol):
    """A command in a sandbox.

    Iterating yields output as it comes and ends when the command's own process has ended and what it had written is
    read, even if a background child still holds the pipe. Unread output is back-pressured.
    """

    def __aiter__(self) -> AsyncIterator[OutputChunk]: ...

    async def wait(self) -> ExecExit:
        """The exit, once the command's own process has ended. Raises SandboxLost when the sandbox is gone."""
        ...

    async def kill(self) -> None:
        """End the whole tree of this command, setsid children and daemons included; returns when it is gone."""
        ...


class Sandbox(Protocol):
    """A place where tools run. Opened by `open_sandbox(spec)`, an async context manager: it gives a live sandbox or
    leaves nothing behind, and on exit every process in it is dead, within a bounded time."""

    kind: str
    capabilities: Capabilities
    workspace: str
    """The workspace's path as commands see it."""

    def exec(self, request: ExecRequest) -> AbstractAsyncContextManager[RunningExec]:
        """Start a command. Leaving the context while it still runs ends its whole tree."""
        ...

    async def end_processes(self) -> None:
        """End every process of the sandbox's user, background jobs included; the sandbox stays usable."""
        ...


OpenSandbox = Callable[[SandboxSpec], AbstractAsyncContextManager[Sandbox]]


@dataclass(frozen=True, slots=True)
class SiteSpec:
    """What all sandboxes of one run have in common: the agent's and those that judge.

    Attributes:
        run_id: labels and log lines carry it.
        owner: `host:pid:start` of the process that runs it, for labels.
        task_folder: where `build` and `files` of the environment are found.
        environment: the manifest's.
        scratch: host folder of the run for files the site needs; belongs to the caller.
        image_map: image names to use in place of those the task names.
    """

    run_id: str
    owner: str
    task_folder: Path
    environment: "Environment"
    scratch: Path
    image_map: Mapping[str, str] = field(default_factory=dict)


OpenSite = Callable[[SiteSpec], AbstractAsyncContextManager[OpenSandbox]]
"""Makes ready what a run's sandboxes share (images, a network, services up and healthy) and gives what opens them.
The registry's `sandboxes` are of this kind. Opening gives a live site or leaves nothing behind; closing is bounded.
Raises SandboxFailed."""

# ------------------------------------------------------------------------------------------------------------- models


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as the model asked for it. `arguments` is the raw text; None of its content is trusted."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, in the words of Chat Completions.

    `provider_items` are a reply's, JSON that only its own wire format reads; they stand for the whole message there.
    `is_output` says that it holds a tool's output, which may be shortened once it is old.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None
    provider_items: tuple[Mapping[str, Any], ...] = ()
    is_output: bool = False


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """What the model is told of a tool: `parameters` is a JSON Schema of type object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One call of a model. `max_output_tokens` has been lowered to what the budget leaves."""

    messages: Sequence[Message]
    tools: Sequence[ToolSchema] = ()
    max_output_tokens: int = 4096
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    reasoning_effort: str | None = None


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """What a call is expected to take: `input` tokens, and at least `min_output` tokens for a usable answer.
    `input_at_most` is a count the input cannot pass, None where `input` is exact."""

    input: int
    min_output: int = 1
    input_at_most: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Disjoint counts of one answer, except that `reasoning` is a part of `output`."""

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class ModelReply:
    """One answer. `usage` is None when the server sent none that makes sense; `usage_raw` is what it sent.

    `provider_items` is what the next request carries for this answer where that is more than its text and calls
    (encrypted reasoning, for one): JSON, empty for most servers. It goes into the conversation, not the transcript.
    """

    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    usage: Usage | None = None
    usage_raw: Any = None
    model_answered: str | None = None
    finish_reason: str | None = None
    http_status: int | None = None
    provider_items: tuple[Mapping[str, Any], ...] = ()


class AttemptFailed(Exception):
    """One HTTP attempt without a usable answer.

    Attributes:
        retryable: whether asking again may help.
        http_status: the status line's code, None when no answer came.
        retry_after_s: what the server asked to wait, seconds.
        overlong: set where the request was longer than the model's window.
        final: what the call ends with, where that is known beforehand: a replayed call is not tried again for longer
            than the recorded one was.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool,
        http_status: int | None = None,
        retry_after_s: float | None = None,
        overlong: "Overlong | None" = None,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.http_status = http_status
        self.retry_after_s = retry_after_s
        self.overlong = overlong
        self.final: RunError | None = None


class Model(Protocol):
    """A model that answers one request at a time for one run. Opened as an async context manager by its factory."""

    name: str
    is_free: bool
    """Whether its calls cost 0 by definition (`fake/*`, `replay/*`)."""

    def estimate(self, request: ModelRequest) -> TokenEstimate:
        """What `complete(request)` would take; pure and cheap."""
        ...

    async def complete(self, request: ModelRequest) -> ModelReply:
        """One attempt, never retried inside. Raises AttemptFailed."""
        ...


# -------------------------------------------------------------------------------------------------------------- tools


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool may use while it runs.

    Attributes:
        sandbox: where commands run.
        workspace: the same folder from the host, every path confined.
        baseline: host folder with the workspace as it was before the agent's first turn.
        remaining_s: seconds of wall time left, None when there is no such cap.
        keep_bytes: how much output to keep; the middle of longer output is left out.
        emit_output: told of output as it comes, for live views.
        notes: the tool's own memory between calls of one run (undo history, shell state).
    """

    sandbox: Sandbox
    workspace: "ConfinedFolder"
    baseline: Path
    remaining_s: Callable[[], float | None]
    keep_bytes: int
    emit_output: Callable[[bytes], None]
    notes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What a call gave: `output` is what the model reads. A non-zero exit is a value, no error."""

    output: str
    exit_code: int | None = None
    dropped_bytes: int = 0
    timed_out: bool = False


class Tool(Protocol):
    """A tool; `arguments` is the pydantic model its JSON Schema is made from and calls are checked against."""

    name: ClassVar[str]
    description: ClassVar[str]
    arguments: ClassVar[type[Any]]
    """A class of pydantic's BaseModel, written so that an implementation may name its own."""

    async def run(self, arguments: Any, context: ToolContext) -> ToolOutcome:  # noqa: ANN401 - an instance of `arguments`
        """Run one call. Raises ToolRefused for a call that must not run; that is told to the model."""
        ...


# ------------------------------------------------------------------------------------------------------------ judging


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """What a check found. `output` joins id, status, score and detail in `grader_outputs/<check_id>.json`."""

    status: "CheckStatus"
    score: float
    detail: str
    output: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Materials:
    """What is known of a run besides its workspace: the task's prompt, the files with its diff and its transcript."""

    prompt: str = ""
    diff: Path | None = None
    transcript: Path | None = None


class Judge(Protocol):
    """A model that judges one check. `identity` is what its verdicts depend on besides what it is shown: JSON."""

    identity: Mapping[str, Any]

    async def ask(self, messages: Sequence[Message], tool: ToolSchema, *, vote: int) -> ModelReply:
        """The answer to `messages`, of which `tool` is how the verdict is given; `vote` counts from 1. Raises RunError
        where there is none for no fault of the work, another FbenchError where it cannot be asked this."""
        ...


OpenJudge = Callable[[str], AbstractContextManager[Judge]]
"""Opens the judge of a check, named by its id."""


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What a check may use.

    Attributes:
        workspace: the final workspace on the host, read only, every path confined.
        task_folder: host folder of the task, from which the manifest names its references.
        grader: host folder with the grader's material; a task may have none.
        open_sandbox: a new grading sandbox on a pristine copy of the final workspace, `/grader` mounted; the caller
            closes it.
        materials: what else is known of the run.
        open_judge: opens a judge; None where none was planned.
        verdict_cache: the file that verdicts of judges are kept in; None keeps none.
    """

    workspace: "ConfinedFolder"
    task_folder: Path
    grader: Path
    open_sandbox: Callable[[], AbstractAsyncContextManager[Sandbox]]
    materials: Materials = Materials()
    open_judge: OpenJudge | None = None
    verdict_cache: Path | None = None


class Check(Protocol):
    """A type of check; other packages bring theirs under the entry-point group `fbench.checks`, named as the type.

    Attributes:
        tier: when it is judged.
        arguments: the model of its keys in a manifest, a `fbench.tasks.checks.CheckBase`; of an outside type derived
            from `OutsideCheck` there.
    """

    tier: ClassVar["Tier"]
    arguments: ClassVar[type[Any]]

    async def evaluate(self, check: Any, context: CheckContext) -> CheckOutcome:  # noqa: ANN401 - an instance of `arguments`
        """Evaluate. What cannot be evaluated is an outcome of status `error`, no exception."""
        ...


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """What judging needs.

    Attributes:
        manifest: the task as resolved.
        task_folder: its folder, with `grader/` when it has one.
        workspace_final: the workspace after the agent, on the host; it is only read.
        scratch: host folder to make copies in; each is removed when its check is done.
        outputs: the run's `grader_outputs` folder.
        spec: the run's sandbox; judging opens it again with another workspace, `/grader` for its only mount and,
            unless the task asks for `sandbox: same`, an empty scratch folder.
        open_sandbox: opens it.
        on_check: told of each result as it is known, skipped ones too.
        run_id: the run whose work is judged, for what users are told; None is that of `spec`.
        materials, open_judge, verdict_cache: see CheckContext.
    """

    manifest: "TaskManifest"
    task_folder: Path
    workspace_final: Path
    scratch: Path
    outputs: Path
    spec: SandboxSpec
    open_sandbox: OpenSandbox
    on_check: Callable[["CheckResult"], None]
    run_id: str | None = None
    materials: Materials = Materials()
    open_judge: OpenJudge | None = None
    verdict_cache: Path | None = None


class JudgeWorkspace(Protocol):
    """What `fbench.judging` offers: the verdict on a final workspace. Raises JudgingFailed when nothing was judged."""

    async def __call__(self, request: JudgeRequest) -> "Verdict": ...
