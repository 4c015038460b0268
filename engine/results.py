"""What a run leaves behind, as frozen models: the verdict, its checks, result.json."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1

Tier = Literal["deterministic", "reference", "rubric"]
CheckStatus = Literal["passed", "failed", "error", "skipped"]
RunStatus = Literal["completed", "killed", "cancelled", "error"]
CostStatus = Literal["exact", "estimated", "unknown"]

TIERS: tuple[Tier, ...] = ("deterministic", "reference", "rubric")


class Record(BaseModel):
    """Base of what is written to and read from files."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CheckResult(Record):
    """One check's outcome; `score` is in [0, 1]."""

    id: str
    type: str
    tier: Tier
    status: CheckStatus
    score: float
    weight: float
    gating: bool
    detail: str = ""


class Verdict(Record):
    """What judging yields; `checks` stand in the manifest's order."""

    score: float
    passed: bool
    checks: tuple[CheckResult, ...]


class TokenCounts(Record):
    """Tokens of a run's agent; `input` includes `cached_input`, `output` includes `reasoning`."""

    input: int = 0
    cached_input: int = 0
    output: int = 0
    reasoning: int = 0
    total: int = 0

    def __add__(self, other: Self) -> "TokenCounts":
        return TokenCounts(
            input=self.input + other.input,
            cached_input=self.cached_input + other.cached_input,
            output=self.output + other.output,
            reasoning=self.reasoning + other.reasoning,
            total=self.total + other.total,
        )


class ErrorInfo(Record):
    kind: str
    message: str


class RunResult(Record):
    """The keys of result.json, all always present; None where not known.

    `task_validated` says whether `fbench validate` had found the task good in just this content, `task_hash`; results
    that were written before there was such a thing have None.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    task_id: str
    model: str
    attempt: int = Field(default=1, ge=1)
    suite_run_id: str | None = None
    status: RunStatus
    end_reason: Literal["submitted", "answered", "unusable_replies"] | None = None
    kill_reason: str | None = None
    error: ErrorInfo | None = None
    passed: bool | None = None
    score: float | None = None
    checks: tuple[CheckResult, ...] = ()
    tokens: TokenCounts = TokenCounts()
    cost_usd: float | None = 0.0
    judge_cost_usd: float | None = 0.0
    cost_status: CostStatus = "exact"
    isolated: bool | None = None
    turns: int = 0
    tool_calls: int = 0
    started_at: str
    finished_at: str
    duration_s: float
    sandbox: str | None = None
    seed: int | None = None
    fbench_version: str
    task_hash: str
    task_validated: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """The document as JSON types, keys in the contract's order."""
        return self.model_dump(mode="json")
