"""What happens in a run, as typed events for whoever watches it: the progress line, a service, a test."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from decimal import Decimal

    from fbench.engine.results import CheckResult, RunResult

Phase = Literal["preparing", "acting", "keeping", "judging"]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run has its folder; `limits` are the caps in force, by the contract's names, None where there is none."""

    run_id: str
    task_id: str
    model: str
    sandbox: str
    folder: Path
    limits: "dict[str, float | int | None]" = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    phase: Phase


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the user should know that does not stop the run."""

    message: str


@dataclass(frozen=True, slots=True)
class TurnStarted:
    turn: int


@dataclass(frozen=True, slots=True)
class ModelAnswered:
    """An answer came; `tokens` and `cost_usd` are the run's totals so far."""

    turn: int
    tokens: int
    cost_usd: "Decimal | None"
    remaining_s: float | None


@dataclass(frozen=True, slots=True)
class ModelRetried:
    turn: int
    try_: int
    error: str
    wait_s: float


@dataclass(frozen=True, slots=True)
class ModelAwaited:
    """A call waits to be sent, for more than a second already."""

    turn: int
    why: str
    waited_s: float


@dataclass(frozen=True, slots=True)
class ToolStarted:
    turn: int
    tool_call_id: str
    name: str
    summary: str


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """A piece of a tool's output, as it comes."""

    tool_call_id: str
    data: bytes


@dataclass(frozen=True, slots=True)
class OutputDropped:
    """In place of output that a stream's reader was too slow for; the transcript has what the model read of it."""

    tool_call_id: str
    dropped_bytes: int


@dataclass(frozen=True, slots=True)
class ToolFinished:
    turn: int
    tool_call_id: str
    name: str
    exit_code: int | None
    timed_out: bool
    duration_s: float


@dataclass(frozen=True, slots=True)
class BudgetBreached:
    kill_reason: str


@dataclass(frozen=True, slots=True)
class CheckFinished:
    check: "CheckResult"


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The end. `model_wait_s` is how long the run waited to ask its model: for slots, and after failed attempts."""

    result: "RunResult"
    folder: Path
    model_wait_s: float = 0.0


Event = (
    RunStarted
    | PhaseStarted
    | Warned
    | TurnStarted
    | ModelAnswered
    | ModelRetried
    | ModelAwaited
    | ToolStarted
    | ToolOutput
    | OutputDropped
    | ToolFinished
    | BudgetBreached
    | CheckFinished
    | RunFinished
)
Watcher = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """The watcher of a run nobody watches."""
