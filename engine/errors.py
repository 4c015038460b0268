"""What can go wrong, in one tree.

    FbenchError
    ├── UsageError            the user's to fix before anything runs (exit code 2)
    │   └── UnknownNameError  a task, model, tool, agent or run that does not exist
    ├── RunError              the run's outcome: recorded as status `error`, no traceback (exit code 3)
    │   ├── ModelUnavailable  the model did not answer within its patience
    │   ├── ModelRejected     the model's server refused the request for good
    │   ├── ContextExceeded   the conversation is longer than the model's window
    │   ├── ReplayMissing     a replayed recording has no answer to a request
    │   ├── SandboxLost       the sandbox went away under the run
    │   ├── SandboxFailed     the sandbox could not start (SetupFailed, ModuleMissing: not as the task needs it)
    │   └── JudgingFailed     the grader could not start (GraderLost: its sandbox went away)
    └── ToolRefused           a tool call that was not run; its text goes to the model as an observation

Manifest and price errors live with their folders, which know nobody: `fbench.tasks.errors`, `fbench.pricing.errors`.
Each class there owns its `exit_code` as well. Whatever else is raised is ours: a traceback and a request to report.
"""

from typing import ClassVar


class FbenchError(Exception):
    """Base of what fbench raises on purpose; the text says what happened, to what, and what to do next."""

    exit_code: ClassVar[int] = 1


class UsageError(FbenchError):
    """Something the user asked for cannot be done as asked."""

    exit_code: ClassVar[int] = 2


class UnknownNameError(UsageError):
    """A name that nothing answers to."""


class RunError(FbenchError):
    """An infrastructure failure that ends one run as `error`; `kind` goes into result.json."""

    exit_code: ClassVar[int] = 3
    kind: ClassVar[str] = "internal"


class ModelUnavailable(RunError):
    """No usable answer within `--max-model-wait`."""

    kind: ClassVar[str] = "model_unavailable"


class ModelRejected(RunError):
    """The server said no in a way that asking again will not change."""

    kind: ClassVar[str] = "model_rejected"


class ContextExceeded(RunError):
    """The conversation does not fit the model's window, which takes `window_tokens` where that was said; `tries` were
    made."""

    kind: ClassVar[str] = "context_exceeded"

    def __init__(self, message: str, window_tokens: int | None = None, *, tries: int = 0) -> None:
        super().__init__(message)
        self.window_tokens = window_tokens
        self.tries = tries


class ReplayMissing(RunError):
    """A request that the replayed recording has no answer to."""

    kind: ClassVar[str] = "replay_missing"


class SandboxLost(RunError):
    """The sandbox's own process or container disappeared."""

    kind: ClassVar[str] = "sandbox_lost"


class SandboxFailed(RunError):
    """The sandbox did not come up as the task needs it."""

    kind: ClassVar[str] = "sandbox_failed"


class SetupFailed(SandboxFailed):
    """A command of `environment.setup` failed."""

    kind: ClassVar[str] = "setup_failed"


class ModuleMissing(SandboxFailed):
    """A Python module the task names does not import in the sandbox."""

    kind: ClassVar[str] = "module_missing"


class JudgingFailed(RunError):
    """The grader itself could not start; the work is kept and can be judged again."""

    kind: ClassVar[str] = "judging_failed"


class GraderLost(JudgingFailed):
    """A grading sandbox's own process or container disappeared under a check."""

    kind: ClassVar[str] = SandboxLost.kind


class ToolRefused(FbenchError):
    """A tool call that must not or cannot run; the model reads why."""


def words_of_unforeseen(error: BaseException) -> str:
    """An error that nobody foresaw, and what to do about it: parts of a program's own fail in their own way."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = "" if frame is None else str(frame.tb_frame.f_globals.get("__name__", ""))
    what_next = "This is a fault of fbench: please report it"
    if frame is not None and module.partition(".")[0] != "fbench":
        place = f"{module} line {frame.tb_lineno}"
        what_next = f"It was raised in {place}; where no part of your own is in play, please report it"
    return f"{type(error).__name__}: {error}. {what_next}"
