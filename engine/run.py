"""One run, on one screen: prepare, act, keep the work, judge, record."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread

from fbench.engine.budgets import Budget
from fbench.engine.confine import ConfinedFolder
from fbench.engine.errors import RunError
from fbench.engine.logs import get_logger
from fbench.engine.models.calls import NO_WAITING, ModelCaller, RetryPolicy
from fbench.engine.options import limits_of, model_wait_s
from fbench.engine.plan import RunPlan, sandbox_spec, site_spec
from fbench.engine.prepare import prepare_sandbox
from fbench.engine.record import RunRecord
from fbench.engine.records.copying import copy_tree
from fbench.engine.records.diff import diff_trees
from fbench.engine.registry import load, load_part
from fbench.engine.scratch import open_scratch
from fbench.engine.seams import JudgeRequest
from fbench.engine.session import Parts, Session

if TYPE_CHECKING:
    from fbench.engine.models.limits import EndpointLimiter
    from fbench.engine.purse import Purse
    from fbench.engine.records.index import Index
    from fbench.engine.results import RunResult
    from fbench.engine.seams import JudgeWorkspace, Model, OpenSandbox, OpenSite, Sandbox, SandboxSpec

RECORD_GRACE_S = 20.0
MOST_DIFF_BYTES = 64 * 1024**2
"""Of workspace.diff; what is left out is said at its end. The whole work is in workspace_final."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shared:
    """What a run has in common with others: the limiter of the model's endpoint, the purse of its suite."""

    limiter: "EndpointLimiter | None" = None
    purse: "Purse | None" = None


ALONE = Shared()

log = get_logger(__name__)


async def run_task(
    plan: RunPlan, model: "Model", record: RunRecord, index: "Index", shared: "Shared" = ALONE
) -> "RunResult":
    """Run one plan to its result, whatever happens. A cancelled caller leaves a `cancelled` result behind."""
    budget = Budget(limits_of(plan.manifest), on_breach=record.breached)
    try:
        await record.start()
        record.enter("preparing")
        await index.run_started(record.started_run(), record.folder.path)
        async with open_scratch(record.folder.run_id) as scratch:
            spec = sandbox_spec(plan, record.folder.run_id, scratch)
            open_site: OpenSite = load("sandboxes", plan.sandbox)
            async with open_site(site_spec(plan, record.folder.run_id, scratch)) as open_sandbox:
                run = Run(plan, model, record, budget, spec, open_sandbox, scratch / "baseline", shared)
                await run.work()
                await run.judge(scratch)
    except Exception as error:  # noqa: BLE001 - the one place where a run's failure becomes data
        _fail(record, error)
    except BaseException:
        record.outcome.status = "cancelled"
        raise
    finally:
        result = await record.finish(budget)
        with anyio.move_on_after(RECORD_GRACE_S, shield=True):
            await index.run_finished(result, record.folder.path)
    return result


@dataclass(frozen=True, slots=True)
class Run:
    """One run that has begun. `baseline` is a host folder for the workspace as the agent first sees it; `shared` is
    what it has in common with other runs."""

    plan: RunPlan
    model: "Model"
    record: RunRecord
    budget: Budget
    spec: "SandboxSpec"
    open_sandbox: "OpenSandbox"
    baseline: Path
    shared: "Shared"

    async def work(self) -> None:
        """From the task's workspace to the final one. When this returns, no process of the agent is alive."""
        await _in_thread(copy_tree, self.plan.task.folder / "workspace", self.spec.workspace)
        try:
            async with self.open_sandbox(self.spec) as sandbox:
                self.record.outcome.isolated = sandbox.capabilities.isolated
                await prepare_sandbox(sandbox, self.plan.manifest.environment)
                await _in_thread(copy_tree, self.spec.workspace, self.baseline)
                self.record.enter("acting")
                await self._act(sandbox)
        except BaseException:
            with anyio.CancelScope(shield=True):  # as long as copying takes; a second Ctrl-C ends it
                await self._keep_what_is_there()
            raise
        await self._keep()

    async def judge(self, scratch: Path) -> None:
        """The verdict on the final workspace; grading sandboxes keep their files under `scratch`."""
        self.record.enter("judging")
        self.record.folder.grader_outputs.mkdir()
        judge_workspace: JudgeWorkspace = load_part("judge_workspace")
        self.record.outcome.verdict = await judge_workspace(
            JudgeRequest(
                manifest=self.plan.manifest,
                task_folder=self.plan.task.folder,
                workspace_final=self.record.folder.workspace_final,
                scratch=scratch,
                outputs=self.record.folder.grader_outputs,
                spec=self.spec,
                open_sandbox=self.open_sandbox,
                on_check=self.record.checked,
            )
        )

    async def _act(self, sandbox: "Sandbox") -> None:
        """The agent's loop inside the budget's scope; a breach ends whatever is in flight."""
        plan, record = self.plan, self.record
        caller = ModelCaller(
            self.model,
            ledger=record.ledger,
            price=plan.price,
            retry=NO_WAITING if plan.options.replay else RetryPolicy(max_wait_s=model_wait_s(plan.options)),
            limiter=self.shared.limiter,
            purse=self.shared.purse,
            waiting=self.budget.paused,
            on_retry=record.retried,
            on_wait=record.waiting,
            on_waited=record.waited,
            redact=record.redact,
        )
        session = Session(
            Parts(
                manifest=plan.manifest,
                prompt=plan.task.prompt,
                model=self.model,
                caller=caller,
                price=plan.price,
                budget=self.budget,
                sandbox=sandbox,
                # Prompts say /workspace; `local` shows the folder under its host path and takes both.
                workspace=ConfinedFolder(self.spec.workspace, sandbox.workspace, (plan.manifest.environment.workdir,)),
                baseline=self.baseline,
                tools=plan.tools,
                transcript=record.transcript,
                watch=record.watch,
                context_window=plan.model.context_window,
                redact=record.redact,
            )
        )
        run_agent = load("agents", plan.manifest.tools.style)
        with self.budget.scope():
            record.outcome.end_reason = await run_agent(session)
        if self.budget.kill_reason is not None:
            record.outcome.status = "killed"

    async def _keep(self) -> None:
        """Copy the workspace into the run folder, and say what changed in it."""
        self.record.enter("keeping")
        folder = self.record.folder
        report = await _in_thread(copy_tree, self.spec.workspace, folder.workspace_final)
        if report.left_out:
            entries = [{"path": entry.path, "why": entry.why} for entry in report.left_out]
            self.record.transcript.write("left_out", entries=entries)
        if self.baseline.exists():
            diff = await _in_thread(_bounded_diff, self.baseline, folder.workspace_final)
            folder.workspace_diff.write_bytes(diff)

    async def _keep_what_is_there(self) -> None:
        """The same for a run that failed or was cancelled; a second failure is logged and does not hide the first."""
        try:
            await self._keep()
        except OSError as error:
            log.warning("workspace.not_kept", run_id=self.record.folder.run_id, error=str(error))


async def _in_thread(function: Callable[[Path, Path], T], before: Path, after: Path) -> T:
    """Blocking work on two folders, off the loop. A thread cannot be stopped: a cancelled caller waits for its end,
    or it would go on writing into folders that are being removed."""
    return await anyio.to_thread.run_sync(function, before, after)


def _bounded_diff(before: Path, after: Path) -> bytes:
    return diff_trees(before, after, max_bytes=MOST_DIFF_BYTES)


def _fail(record: RunRecord, error: BaseException) -> None:
    """Say what kind of failure ended the run; what we did not foresee is ours, with a traceback in the log."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, RunError):
        record.fail(error.kind, str(error))
    elif isinstance(error, OSError):
        record.fail("host_io", f"the machine refused: {error}; look at its disk space and permissions")
    else:
        log.error("run.crashed", run_id=record.folder.run_id, exc_info=error)
        record.fail("internal", f"{type(error).__name__}: {error}. This is a fault of fbench: please report it")
