"""One run, on one screen: prepare, act, keep the work, judge, record."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from fbench.engine.budgets import Budget
from fbench.engine.confine import ConfinedFolder
from fbench.engine.errors import RunError, words_of_unforeseen
from fbench.engine.judges import Judges
from fbench.engine.logs import get_logger
from fbench.engine.models.calls import NO_WAITING, ModelCaller, RetryPolicy
from fbench.engine.options import limits_of, model_wait_s
from fbench.engine.plan import RunPlan, sandbox_spec, site_spec
from fbench.engine.prepare import prepare_sandbox
from fbench.engine.record import RunRecord
from fbench.engine.records.copying import copy_tree, is_little_tree
from fbench.engine.records.diff import diff_trees
from fbench.engine.records.lines import Effort
from fbench.engine.registry import load, load_part
from fbench.engine.scratch import open_scratch
from fbench.engine.seams import JudgeRequest, Materials
from fbench.engine.session import Parts, Session
from fbench.engine.threads import Once, in_thread

if TYPE_CHECKING:
    from fbench.engine.budgets import PricesCalls
    from fbench.engine.judge_plans import JudgePlan
    from fbench.engine.models.limits import EndpointLimiter
    from fbench.engine.models.names import ModelSpec
    from fbench.engine.models.traffic import Traffic
    from fbench.engine.purse import Purse
    from fbench.engine.records.folder import RunFolder
    from fbench.engine.records.index import Index
    from fbench.engine.results import RunResult
    from fbench.engine.seams import JudgeWorkspace, Model, OpenSandbox, OpenSite, Sandbox, SandboxSpec

RECORD_GRACE_S = 20.0
VERDICT_CACHE = "judge_cache.sqlite"
"""In the runs folder: what judges said, for all runs and processes that use it."""
MOST_DIFF_BYTES = 64 * 1024**2
"""Of workspace.diff; what is left out is said at its end. The whole work is in workspace_final."""
LITTLE_STEPS = 10_000
"""Of finding changed lines: some 6 ms. A few lines without end in common take seconds, which is for a thread."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What a run has in common with others: the limiters of endpoints, the purse of its suite."""

    limiter_of: "Callable[[ModelSpec], EndpointLimiter] | None" = None
    purse: "Purse | None" = None

    def limiter(self, spec: "ModelSpec", *, is_free: bool) -> "EndpointLimiter | None":
        """That of a model's endpoint; one that costs nothing has none."""
        return None if is_free or self.limiter_of is None else self.limiter_of(spec)


ALONE = Shared()

log = get_logger(__name__)


async def run_task(
    plan: RunPlan, traffic: "Traffic", record: RunRecord, index: "Index", shared: "Shared" = ALONE
) -> "RunResult":
    """Run one plan to its result, whatever happens. A cancelled caller leaves a `cancelled` result behind."""
    budget = Budget(limits_of(plan.manifest), on_breach=record.breached)
    try:
        with failure_as_data(record):
            await record.start()
            record.enter("preparing")
            await index.run_started(record.started_run(), record.folder.path)
            async with open_run(plan, traffic, record, budget, shared) as run:
                await run.work()
                await run.judge()
    finally:
        result = await record.finish(budget)
        with anyio.move_on_after(RECORD_GRACE_S, shield=True):
            await index.run_finished(result, record.folder.path)
    return result


@contextmanager
def failure_as_data(record: RunRecord) -> Iterator[None]:
    """What fails inside is the run's outcome and raises nothing; a cancellation is noted and goes on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the one place where a run's failure becomes data
        _fail(record, error)
    except BaseException:
        record.outcome.status = "cancelled"
        raise


@asynccontextmanager
async def open_run(
    plan: RunPlan, traffic: "Traffic", record: RunRecord, budget: Budget, shared: "Shared"
) -> "AsyncIterator[Run]":
    """A run with its scratch folder and what its sandboxes share, while the context lasts."""
    async with open_scratch(record.folder.run_id) as scratch:
        spec = sandbox_spec(plan, record.folder.run_id, scratch)
        open_site: OpenSite = load("sandboxes", plan.sandbox)
        async with open_site(site_spec(plan, record.folder.run_id, scratch)) as open_sandbox:
            yield Run(plan, traffic, record, budget, spec, open_sandbox, scratch, shared)


@dataclass(frozen=True, slots=True)
class Run:
    """One run that has begun. `scratch` is a host folder of its own; `shared` is what it has in common with others."""

    plan: RunPlan
    traffic: "Traffic"
    record: RunRecord
    budget: Budget
    spec: "SandboxSpec"
    open_sandbox: "OpenSandbox"
    scratch: Path
    shared: "Shared"

    @property
    def baseline(self) -> Path:
        """The host folder for the workspace as the agent first sees it."""
        return self.scratch / "baseline"

    async def work(self) -> None:
        """From the task's workspace to the final one. When this returns, no process of the agent is alive."""
        start, task_hash = self.plan.task.folder / "workspace", self.plan.task.task_hash
        await in_thread(partial(copy_tree, start, self.spec.workspace), kind=("start", task_hash))
        baseline = Once(partial(copy_tree, self.spec.workspace, self.baseline), kind=("baseline", task_hash))
        agent_saw: Once | None = None
        try:
            async with self.open_sandbox(self.spec) as sandbox:
                self.record.outcome.isolated = sandbox.capabilities.isolated
                await prepare_sandbox(sandbox, self.plan.manifest.environment)
                agent_saw = baseline
                self.record.enter("acting")
                with self.traffic.agent(self.record) as model:
                    await self._act(sandbox, model, baseline)
        except BaseException:
            with anyio.CancelScope(shield=True):  # as long as copying takes; a second Ctrl-C ends it
                await self._keep_what_is_there(agent_saw)
            raise
        await self._keep(agent_saw)

    async def judge(self, work: "RunFolder | None" = None) -> None:
        """The verdict on the final workspace, that of the run folder `work` where it is not this run's own."""
        self.record.enter("judging")
        work = work or self.record.folder
        outputs = self.record.folder.grader_outputs
        outputs.mkdir()
        judge_workspace: JudgeWorkspace = load_part("judge_workspace")
        self.record.outcome.verdict = await judge_workspace(
            JudgeRequest(
                manifest=self.plan.manifest,
                task_folder=self.plan.task.folder,
                workspace_final=work.workspace_final,
                scratch=self.scratch,
                outputs=outputs,
                spec=self.spec,
                open_sandbox=self.open_sandbox,
                on_check=self.record.checked,
                run_id=work.run_id,
                materials=Materials(self.plan.task.prompt, work.workspace_diff, work.transcript),
                open_judge=self._judges(work.run_id).open,
                verdict_cache=self._verdict_cache(),
            )
        )

    def _judges(self, run_id: str) -> Judges:
        """The models that judge the work of a run."""
        plan, record = self.plan, self.record

        def caller_of(judge: "JudgePlan", model: "Model") -> ModelCaller:
            if judge.price is not None:
                record.rates_used(judge.price)
            return self._caller(judge.spec, model, judge.price, check_id=judge.check_id)

        return Judges(
            plan.judges,
            model_of=partial(self.traffic.judge, record),
            caller_of=caller_of,
            cap_usd=plan.manifest.budget.judge_cost_usd,
            what_next=f"The work is kept: `fbench rejudge {run_id}` judges it again.",
            redact=record.redact,
        )

    def _verdict_cache(self) -> Path | None:
        """None where every call of a judge has to be made: it is recorded, or replayed."""
        options = self.plan.options
        if options.no_judge_cache or options.record is not None or options.replay is not None:
            return None
        return options.runs_dir / VERDICT_CACHE

    def _caller(
        self, spec: "ModelSpec", model: "Model", price: "PricesCalls | None", *, check_id: str | None = None
    ) -> ModelCaller:
        """What makes the calls of the agent, or of the judge of a check."""
        record = self.record
        return ModelCaller(
            model,
            ledger=record.ledger,
            price=price,
            retry=NO_WAITING if self.traffic.is_replayed else RetryPolicy(max_wait_s=model_wait_s(self.plan.options)),
            limiter=self.shared.limiter(spec, is_free=model.is_free),
            purse=self.shared.purse,
            waiting=self.budget.paused if check_id is None else nullcontext,
            on_retry=record.retried,
            on_wait=record.waiting,
            on_waited=record.waited,
            redact=record.redact,
            who="agent" if check_id is None else "judge",
            check_id=check_id,
        )

    async def _act(self, sandbox: "Sandbox", model: "Model", baseline: Once) -> None:
        """The agent's loop inside the budget's scope; a breach ends whatever is in flight. The baseline is made before
        the first tool runs: until then nobody changes the workspace."""
        plan, record = self.plan, self.record
        session = Session(
            Parts(
                manifest=plan.manifest,
                prompt=plan.task.prompt,
                model=model,
                caller=self._caller(plan.model, model, plan.price),
                price=plan.price,
                budget=self.budget,
                sandbox=sandbox,
                # Prompts say /workspace; `local` shows the folder under its host path and takes both.
                workspace=ConfinedFolder(self.spec.workspace, sandbox.workspace, (plan.manifest.environment.workdir,)),
                baseline=self.baseline,
                before_tools=baseline.done,
                tools=plan.tools,
                transcript=record.transcript,
                watch=record.watch,
                redact=record.redact,
                window_of=partial(self.traffic.window, model),
            )
        )
        run_agent = load("agents", plan.manifest.tools.style)
        with self.budget.scope():
            record.outcome.end_reason = await run_agent(session)
        if self.budget.kill_reason is not None:
            record.outcome.status = "killed"

    async def _keep(self, baseline: Once | None) -> None:
        """Copy the workspace into the run folder, and say what changed in it since the agent, if any, first saw it."""
        self.record.enter("keeping")
        workspace, folder = self.spec.workspace, self.record.folder
        is_little = is_little_tree(workspace)
        report = await in_thread(partial(copy_tree, workspace, folder.workspace_final), is_little=is_little)
        if report.left_out:
            entries = [{"path": entry.path, "why": entry.why} for entry in report.left_out]
            self.record.transcript.write("left_out", entries=entries)
        if baseline is not None:
            await baseline.done()
            write = partial(_write_diff, self.baseline, folder)
            is_little = is_little and is_little_tree(self.baseline)
            if not (is_little and await in_thread(partial(write, Effort(LITTLE_STEPS)), is_little=True)):
                await in_thread(partial(write, Effort()))

    async def _keep_what_is_there(self, baseline: Once | None) -> None:
        """The same for a run that failed or was cancelled; a second failure is logged and does not hide the first."""
        try:
            await self._keep(baseline)
        except OSError as error:
            log.warning("workspace.not_kept", run_id=self.record.folder.run_id, error=str(error))


def _write_diff(before: Path, folder: "RunFolder", effort: Effort) -> bool:
    """Whether the effort was enough."""
    patch = diff_trees(before, folder.workspace_final, max_bytes=MOST_DIFF_BYTES, effort=effort)
    folder.workspace_diff.write_bytes(patch)
    return effort.was_enough


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
        record.fail("internal", words_of_unforeseen(error))
