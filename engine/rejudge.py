"""Judging a finished run again: its stored workspace, the task's current grader, a new verdict beside the old one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from fbench.engine.budgets import Budget, BudgetLimits
from fbench.engine.errors import UsageError
from fbench.engine.events import RunStarted
from fbench.engine.options import DEFAULT_MODEL_WAIT_S, DEFAULT_RUNS_DIR, Lifted, RunOptions, SandboxName
from fbench.engine.plan import RunPlan, make_plan
from fbench.engine.record import RunRecord
from fbench.engine.records.folder import RunFolder, make_run_id
from fbench.engine.records.ledger import worse_status
from fbench.engine.records.reading import find_run, read_result, read_started, read_transcript
from fbench.engine.records.transcript import utc_now
from fbench.engine.run import Shared, failure_as_data, open_run
from fbench.engine.version import own_version
from fbench.tasks.loading import dump_manifest

if TYPE_CHECKING:
    from fbench.engine.events import Watcher
    from fbench.engine.models.traffic import Traffic
    from fbench.engine.results import RunResult

REJUDGED = "rejudged"
"""The folder in a run's own that holds its later verdicts, one folder each."""

_NOBODY = "fake/nop"
"""What a plan names where no agent is asked."""


class RejudgeOptions(BaseModel):
    """One run to judge again; names as in RunOptions. `run` is what `fbench show-run` takes. `task` is where the task
    is now, None where the run's own record says it. `sandbox` None is the kind that the run had."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str | Path
    runs_dir: Path = DEFAULT_RUNS_DIR
    task: str | Path | None = None
    sandbox: SandboxName | None = None
    config: Path | None = None
    judge_model: Annotated[str, StringConstraints(strip_whitespace=True)] | None = None
    judge_base_url: str | None = None
    judge_api_key: SecretStr | None = None
    no_judge_cache: bool = False
    max_model_wait: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Lifted = DEFAULT_MODEL_WAIT_S
    prices: Path | None = None
    image_map: Mapping[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RejudgePlan:
    """A rejudging, decided: `work` is the run's folder, `before` its result."""

    plan: RunPlan
    work: RunFolder
    before: "RunResult"


async def plan_rejudging(options: RejudgeOptions, environ: Mapping[str, str]) -> RejudgePlan:
    """Find the run and its task, settle how it is judged.

    Raises:
        UsageError, TaskError, PricingError: it cannot be judged again as asked; nothing was written.
    """
    work = RunFolder(find_run(options.runs_dir, str(options.run)))
    before = read_result(work.path)
    if before is None or not was_judged(work, before):
        said = "has no result" if before is None else f"ended as {before.status} before its work was judged"
        msg = f"the run {work.run_id} {said}, so there is no finished work to judge; run the task again"
        raise UsageError(msg)
    if not work.workspace_final.is_dir():
        msg = f"the run {work.run_id} has no workspace_final any more, so there is nothing to judge"
        raise UsageError(msg)
    given = options.model_dump(exclude={"run", "task", "sandbox"}, exclude_none=True)
    before_in = before.sandbox or "auto"
    sandbox = options.sandbox or ("auto" if before_in == "compose" else before_in)
    plan = await make_plan(
        RunOptions(
            task=options.task or _task_of(work, before),
            model=_NOBODY,
            sandbox=sandbox,
            attempt=before.attempt,
            suite_run_id=before.suite_run_id,
            **given,
        ),
        environ,
    )
    if plan.sandbox == "local" and sandbox != "local":
        msg = "no sandbox here isolates what a model has written; install bubblewrap or Docker, or say --sandbox local"
        raise UsageError(msg)
    if plan.manifest.id != before.task_id:
        msg = f"the run {work.run_id} is one of the task {before.task_id!r}, not of {plan.manifest.id!r}"
        raise UsageError(msg)
    if plan.manifest.environment.services:
        msg = (
            f"the task {before.task_id!r} has services, whose state at the end of the run {work.run_id} is not stored: "
            f"it cannot be judged again; run it again"
        )
        raise UsageError(msg)
    return RejudgePlan(replace(plan, options=plan.options.model_copy(update={"model": before.model})), work, before)


def was_judged(work: RunFolder, result: "RunResult") -> bool:
    """Whether the agent's part of a run is whole: it has a verdict, or only judging failed."""
    if result.status in {"completed", "killed"}:
        return True
    events = read_transcript(work.transcript)
    is_judging = any(event.get("type") == "phase_started" and event.get("phase") == "judging" for event in events)
    return result.status == "error" and is_judging


async def rejudge_run(rejudge: RejudgePlan, traffic: "Traffic", record: "RejudgeRecord", shared: Shared) -> "RunResult":
    """Judge once more, whatever happens; a cancelled caller leaves a `cancelled` result behind."""
    plan = rejudge.plan
    budget = Budget(BudgetLimits())
    try:
        with failure_as_data(record):
            await record.start()
            if plan.manifest.grader.sandbox == "same":
                record.warn("`grader.sandbox: same` keeps the agent's home and temporary folder, which are not stored")
            async with open_run(plan, traffic, record, budget, shared) as run:
                await run.judge(rejudge.work)
    finally:
        result = await record.finish(budget)
    return result


class RejudgeRecord(RunRecord):
    """The files of one rejudging, in `<run>/rejudged/<id>/`: ledger, transcript, grader_outputs, result.json, which
    is the run's own but for the verdict and what belongs to it."""

    def __init__(self, rejudge: RejudgePlan, watch: "Watcher") -> None:
        self._rejudge = rejudge
        folder = rejudge.work.path / REJUDGED / make_run_id(rejudge.before.task_id, "rejudge")
        folder.mkdir(parents=True)
        super().__init__(rejudge.plan, watch, RunFolder(folder))

    async def start(self) -> None:
        """Write the snapshot and the first line."""
        plan, before = self.plan, self._rejudge.before
        self.folder.write_snapshot(dump_manifest(plan.manifest))
        self.transcript.write("rejudge_started", run_id=before.run_id, task_hash=plan.task.task_hash)
        self.watch(RunStarted(before.run_id, before.task_id, before.model, plan.sandbox, self.folder.path, {}))
        for message in plan.warnings:
            self.warn(message)

    def _result(self, budget: "Budget") -> "RunResult":  # noqa: ARG002 - the agent's part is the run's own
        before, outcome, totals = self._rejudge.before, self.outcome, self.ledger.totals()
        changes: dict[str, Any] = {
            "error": outcome.error,
            "passed": outcome.verdict.passed if outcome.verdict else None,
            "score": outcome.verdict.score if outcome.verdict else None,
            "checks": outcome.verdict.checks if outcome.verdict else tuple(outcome.checks),
            "judge_cost_usd": None if totals.judge_cost_usd is None else float(totals.judge_cost_usd),
            "cost_status": worse_status(before.cost_status, totals.cost_status),
            "finished_at": utc_now(),
            "sandbox": self.plan.sandbox,
            "fbench_version": own_version(),
            "task_hash": self.plan.task.task_hash,
            "task_validated": self.plan.unvalidated is None,
        }
        if outcome.status != "completed":
            changes["status"] = outcome.status
        elif before.status == "error":  # only judging had failed
            changes["status"] = "killed" if (reason := self._kill_reason()) else "completed"
            changes["kill_reason"] = reason
        return before.model_copy(update=changes)

    def _kill_reason(self) -> str | None:
        events = read_transcript(self._rejudge.work.transcript)
        return next((event.get("kill_reason") for event in events if event.get("type") == "budget_breached"), None)


def _task_of(work: RunFolder, before: "RunResult") -> str | Path:
    """Where the run's task is: the folder that its record names if it is there still, else the id."""
    folder = read_started(work.path).task_folder
    return Path(folder) if folder and Path(folder, "task.yaml").is_file() else before.task_id
