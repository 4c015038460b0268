"""One run, on one screen: prepare, act, keep the work, judge, record."""

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from fbench.engine.budgets import Budget
from fbench.engine.confine import ConfinedFolder
from fbench.engine.errors import RunError
from fbench.engine.logs import get_logger
from fbench.engine.models.calls import ModelCaller, RetryPolicy
from fbench.engine.options import limits_of, model_wait_s
from fbench.engine.plan import RunPlan, sandbox_spec
from fbench.engine.prepare import prepare_sandbox
from fbench.engine.record import RunRecord
from fbench.engine.records.copying import copy_tree
from fbench.engine.records.diff import diff_trees
from fbench.engine.registry import load
from fbench.engine.scratch import open_scratch
from fbench.engine.session import Parts, Session
from fbench.judging.judge import JudgeRequest, judge_workspace

if TYPE_CHECKING:
    from pathlib import Path

    from fbench.engine.records.index import RunIndex
    from fbench.engine.results import RunResult
    from fbench.engine.seams import Model, OpenSandbox, Sandbox, SandboxSpec

RECORD_GRACE_S = 20.0
KEEP_GRACE_S = 120.0
"""How long a cancelled run may still copy its workspace, seconds."""

log = get_logger(__name__)


async def run_task(plan: RunPlan, model: "Model", record: RunRecord, index: "RunIndex") -> "RunResult":
    """Run one plan to its result, whatever happens. A cancelled caller gets a `cancelled` result and its cancellation."""
    budget = Budget(limits_of(plan.manifest), on_breach=record.breached)
    try:
        record.start()
        await index.run_started(**record.started_facts(), folder=record.folder.path)
        async with open_scratch(record.folder.run_id) as scratch:
            spec = sandbox_spec(plan, record.folder.run_id, scratch)
            open_sandbox: OpenSandbox = load("sandboxes", plan.sandbox)
            await _work(plan, model, record, budget, spec, open_sandbox)
            await _judge(plan, record, scratch, spec, open_sandbox)
    except Exception as error:  # noqa: BLE001 - the one place where a run's failure becomes data
        _fail(record, error)
    except BaseException:
        record.outcome.status = "cancelled"
        raise
    finally:
        result = record.finish(budget)
        with anyio.move_on_after(RECORD_GRACE_S, shield=True):
            await index.run_finished(result, record.folder.path)
    return result


async def _work(
    plan: RunPlan, model: "Model", record: RunRecord, budget: Budget, spec: "SandboxSpec", open_sandbox: "OpenSandbox"
) -> None:
    """From the task's workspace to the final one. When this returns, no process of the agent is alive."""
    record.enter("preparing")
    baseline = spec.workspace.with_name("baseline")
    await anyio.to_thread.run_sync(copy_tree, plan.task.folder / "workspace", spec.workspace)
    try:
        async with open_sandbox(spec) as sandbox:
            record.outcome.isolated = sandbox.capabilities.isolated
            await prepare_sandbox(sandbox, plan.manifest.environment)
            await anyio.to_thread.run_sync(copy_tree, spec.workspace, baseline)
            record.enter("acting")
            await _act(plan, model, record, budget, sandbox, spec.workspace, baseline)
    except BaseException:
        with anyio.move_on_after(KEEP_GRACE_S, shield=True):
            await _keep_what_is_there(record, spec.workspace, baseline)
        raise
    await _keep(record, spec.workspace, baseline)


async def _act(
    plan: RunPlan,
    model: "Model",
    record: RunRecord,
    budget: Budget,
    sandbox: "Sandbox",
    workspace: "Path",
    baseline: "Path",
) -> None:
    """The agent's loop inside the budget's scope; a breach ends whatever is in flight."""
    caller = ModelCaller(
        model,
        ledger=record.ledger,
        price=plan.price,
        retry=RetryPolicy(max_wait_s=model_wait_s(plan.options)),
        waiting=budget.paused,
        on_retry=record.retried,
        redact=record.redact,
    )
    session = Session(
        Parts(
            manifest=plan.manifest,
            prompt=plan.task.prompt,
            model=model,
            caller=caller,
            price=plan.price,
            budget=budget,
            sandbox=sandbox,
            workspace=ConfinedFolder(workspace, sandbox.workspace),
            baseline=baseline,
            tools=plan.tools,
            transcript=record.transcript,
            watch=record.watch,
        )
    )
    run_agent = load("agents", plan.manifest.tools.style)
    with budget.scope():
        record.outcome.end_reason = await run_agent(session)
    if budget.kill_reason is not None:
        record.outcome.status = "killed"


async def _keep(record: RunRecord, workspace: "Path", baseline: "Path") -> None:
    """Copy the workspace into the run folder, and say what changed in it."""
    record.enter("keeping")
    report = await anyio.to_thread.run_sync(copy_tree, workspace, record.folder.workspace_final, abandon_on_cancel=True)
    if report.left_out:
        record.transcript.write(
            "left_out", entries=[{"path": entry.path, "why": entry.why} for entry in report.left_out]
        )
    if baseline.exists():
        diff = await anyio.to_thread.run_sync(
            diff_trees, baseline, record.folder.workspace_final, abandon_on_cancel=True
        )
        record.folder.workspace_diff.write_bytes(diff)


async def _keep_what_is_there(record: RunRecord, workspace: "Path", baseline: "Path") -> None:
    """The same for a run that failed or was cancelled; a second failure is logged and does not hide the first."""
    try:
        await _keep(record, workspace, baseline)
    except OSError as error:
        log.warning("workspace.not_kept", run_id=record.folder.run_id, error=str(error))


async def _judge(
    plan: RunPlan, record: RunRecord, scratch: "Path", spec: "SandboxSpec", open_sandbox: "OpenSandbox"
) -> None:
    """The verdict on the final workspace."""
    record.enter("judging")
    record.folder.grader_outputs.mkdir()
    record.outcome.verdict = await judge_workspace(
        JudgeRequest(
            manifest=plan.manifest,
            task_folder=plan.task.folder,
            workspace_final=record.folder.workspace_final,
            scratch=scratch,
            outputs=record.folder.grader_outputs,
            spec=spec,
            open_sandbox=open_sandbox,
            on_check=record.checked,
        )
    )


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
