"""What a run writes while it happens, and the result it ends with."""

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Self

from fbench.engine.events import (
    BudgetBreached,
    CheckFinished,
    ModelAwaited,
    ModelRetried,
    PhaseStarted,
    RunFinished,
    RunStarted,
    Warned,
    Watcher,
)
from fbench.engine.logs import get_logger
from fbench.engine.owner import owner_identity
from fbench.engine.records.folder import RunFolder
from fbench.engine.records.ledger import Ledger
from fbench.engine.records.reading import StartedRun
from fbench.engine.records.redaction import redactor
from fbench.engine.records.reserve import HeldSpace
from fbench.engine.records.transcript import Transcript, utc_now
from fbench.engine.results import CheckResult, ErrorInfo, RunResult, RunStatus, Verdict
from fbench.engine.threads import wait_for_disk
from fbench.engine.version import own_version
from fbench.tasks.loading import dump_manifest

if TYPE_CHECKING:
    from fbench.engine.budgets import Budget
    from fbench.engine.events import Phase
    from fbench.engine.models.admission import WaitNotice
    from fbench.engine.models.calls import RetryNotice
    from fbench.engine.plan import RunPlan
    from fbench.pricing.table import PricedModel

log = get_logger(__name__)


@dataclass(slots=True)
class Outcome:
    """What is known of a run so far; filled in as it goes on, read once at its end."""

    status: RunStatus = "completed"
    end_reason: str | None = None
    error: ErrorInfo | None = None
    isolated: bool | None = None
    verdict: Verdict | None = None
    checks: list[CheckResult] = field(default_factory=list)


class RunRecord:
    """The open files of one run, in a new folder unless one is given, and who watches it. Closed by its context."""

    def __init__(self, plan: "RunPlan", watch: Watcher, folder: RunFolder | None = None) -> None:
        self.plan = plan
        self.watch = watch
        self.outcome = Outcome()
        self.redact = redactor(plan.secrets)
        self.started_at = utc_now()
        self._started = time.monotonic()
        self._model_wait_s = 0.0
        self._rates_written: set[str] = set()
        self.folder = folder or RunFolder.create(plan.options.runs_dir, plan.manifest.id, plan.options.model)
        self.transcript = Transcript(self.folder.transcript, redact=self.redact)
        self.ledger = Ledger(self.folder.ledger)
        self._space: HeldSpace | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._release()
        self.transcript.close()
        self.ledger.close()

    async def start(self) -> None:
        """Write the snapshot and the first line."""
        plan, manifest = self.plan, self.plan.manifest
        self.folder.write_snapshot(dump_manifest(manifest))
        self.transcript.write("run_started", **self.started_run().facts())
        if plan.price is not None:
            self.rates_used(plan.price)
        self._space = HeldSpace(self.folder.path.parent)
        budget = manifest.budget
        limits: dict[str, float | int | None] = {
            "turns": manifest.agent.max_turns,
            "tokens": budget.tokens,
            "tool_calls": budget.tool_calls,
            "wall_time_s": budget.wall_time_s,
            "cost_usd": None if budget.cost_usd is None else float(budget.cost_usd),
        }
        self.watch(
            RunStarted(self.folder.run_id, manifest.id, plan.options.model, plan.sandbox, self.folder.path, limits)
        )
        for message in plan.warnings:
            self.warn(message)
        if plan.unvalidated is not None:  # result.json says so; in the transcript it would tell equal runs apart
            self.watch(Warned(f"the task {manifest.id} is not validated: {plan.unvalidated}"))

    def started_run(self) -> StartedRun:
        """What is known when a run begins, as the transcript's first line and the index say it."""
        plan = self.plan
        return StartedRun(
            run_id=self.folder.run_id,
            task_id=plan.manifest.id,
            model=plan.options.model,
            started_at=self.started_at,
            attempt=plan.options.attempt,
            suite_run_id=plan.options.suite_run_id,
            sandbox=plan.sandbox,
            seed=plan.manifest.model.seed,
            fbench_version=own_version(),
            task_hash=plan.task.task_hash,
            task_folder=str(plan.task.folder.absolute()),
            owner=owner_identity(),
        )

    def rates_used(self, priced: "PricedModel") -> None:
        """Write down what a model's calls are priced by, once a model: the agent's at the start, a judge's later."""
        if priced.name not in self._rates_written:
            self._rates_written.add(priced.name)
            self.transcript.write("rates_used", **priced.rates_used(datetime.fromisoformat(self.started_at)))

    def warn(self, message: str) -> None:
        """Tell the user and the transcript."""
        self.transcript.write("warning", message=message)
        self.watch(Warned(message))

    def enter(self, phase: "Phase") -> None:
        """Say which part of the run begins."""
        self.transcript.write("phase_started", phase=phase)
        self.watch(PhaseStarted(phase))

    def breached(self, kill_reason: str) -> None:
        """Write down the first breach, at the moment it happens. Called by a timer, so it raises nothing: a disk that
        is full ends the run at the next line."""
        try:
            self.transcript.write("budget_breached", kill_reason=kill_reason)
        except OSError as error:
            log.warning("transcript.write_failed", run_id=self.folder.run_id, error=str(error))
        self.watch(BudgetBreached(kill_reason))

    def retried(self, notice: "RetryNotice") -> None:
        """Write down a failed attempt at the model that will be made again."""
        self.transcript.write(
            "model_retry", turn=notice.turn, error=notice.error, wait_s=notice.wait_s, **{"try": notice.try_}
        )
        self._model_wait_s += notice.wait_s
        self.watch(ModelRetried(notice.turn, notice.try_, notice.error, notice.wait_s))

    def waiting(self, notice: "WaitNotice") -> None:
        """Tell that a call waits to be sent."""
        self.watch(ModelAwaited(notice.turn, notice.why, notice.waited_s))

    def waited(self, notice: "WaitNotice") -> None:
        """Write down that a call had to wait before it was sent."""
        self._model_wait_s += notice.waited_s
        self.transcript.write(
            "model_wait", turn=notice.turn, why=notice.why, wait_s=notice.waited_s, **{"try": notice.try_}
        )

    def checked(self, check: CheckResult) -> None:
        """Write down a check's outcome."""
        self.outcome.checks.append(check)
        facts = check.model_dump(mode="json")
        facts["check_type"] = facts.pop("type")  # a line's own `type` says what kind of line it is
        self.transcript.write("check_finished", **facts)
        self.watch(CheckFinished(check))

    def fail(self, kind: str, message: str) -> None:
        """The run ends as `error`; an infrastructure error is never a score."""
        self.outcome.status = "error"
        self.outcome.error = ErrorInfo(kind=kind, message=self.redact(message))

    async def finish(self, budget: "Budget") -> RunResult:
        """Write the last transcript line and result.json, in this order, and tell who watches. A cancelled caller
        waits for it.

        When the disk does not take them, the folder stays that of an unfinished run, and the result says why.
        """
        self._release()
        result = self._result(budget)
        try:
            self.transcript.write("run_finished", status=result.status, score=result.score)
            with self.folder.new_result(result) as file:
                await wait_for_disk(file.settle)
        except OSError as error:
            self.fail("host_io", f"the result cannot be written into {self.folder.path}: {error}; make room there")
            result = self._result(budget)
        self.watch(RunFinished(result, self.folder.path, round(self._model_wait_s, 3)))
        return result

    def _release(self) -> None:
        if self._space is not None:
            self._space.release()

    def _result(self, budget: "Budget") -> RunResult:
        plan, outcome, totals = self.plan, self.outcome, self.ledger.totals()
        judged = outcome.verdict if outcome.status in {"completed", "killed"} else None
        return RunResult.model_validate(
            {
                "run_id": self.folder.run_id,
                "task_id": plan.manifest.id,
                "model": plan.options.model,
                "attempt": plan.options.attempt,
                "suite_run_id": plan.options.suite_run_id,
                "status": outcome.status,
                "end_reason": outcome.end_reason if outcome.status == "completed" else None,
                "kill_reason": budget.kill_reason if outcome.status == "killed" else None,
                "error": outcome.error,
                "passed": judged.passed if judged else None,
                "score": judged.score if judged else None,
                "checks": judged.checks if judged else tuple(outcome.checks),
                "tokens": totals.tokens,
                # Without a price not even the attempts that came to nothing make it a known 0.
                "cost_usd": float(totals.cost_usd) if plan.has_cost and totals.cost_usd is not None else None,
                "judge_cost_usd": None if totals.judge_cost_usd is None else float(totals.judge_cost_usd),
                "cost_status": totals.cost_status if plan.has_cost else "unknown",
                "isolated": outcome.isolated,
                "turns": budget.turns,
                "tool_calls": budget.tool_calls,
                "started_at": self.started_at,
                "finished_at": utc_now(),
                "duration_s": round(time.monotonic() - self._started, 3),
                "sandbox": plan.sandbox,
                "seed": plan.manifest.model.seed,
                "fbench_version": own_version(),
                "task_hash": plan.task.task_hash,
                "task_validated": plan.unvalidated is None,
            }
        )
