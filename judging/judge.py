"""Judging a final workspace: tiers in order, a grading sandbox for each command, one verdict.

Read `judge_workspace` first. What a type of check does is in a module of its own, found through `table`.
"""

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import anyio

from fbench.engine.confine import ConfinedFolder
from fbench.engine.errors import (
    FbenchError,
    GraderLost,
    JudgingFailed,
    ModelRejected,
    ModelUnavailable,
    ReplayMissing,
    SandboxFailed,
    SandboxLost,
)
from fbench.engine.logs import get_logger
from fbench.engine.records.copying import copy_tree, remove_tree
from fbench.engine.results import TIERS, CheckResult, CheckStatus, Tier, Verdict
from fbench.engine.seams import Check, CheckContext, CheckOutcome, JudgeRequest, Mount, Sandbox, SandboxSpec
from fbench.judging.evidence import clean_text, evidence_path, is_little_evidence, write_evidence
from fbench.judging.gather import in_thread
from fbench.judging.scoring import ALMOST_ONE, make_verdict
from fbench.judging.table import CHECK_TYPES, load_check
from fbench.tasks import manifest

OPEN_ATTEMPTS = 2
"""How often a grading sandbox is opened before judging fails: one retry, for what passes by itself."""
REMOVE_GRACE_S = 60.0
"""How long the copy of a check may take to remove."""
OUTSIDE_GRACE_S = 60.0
"""How long a check of another package may take beyond its `timeout_s`: opening a sandbox is none of its time."""
MAX_DETAIL_CHARS = 2000

log = get_logger(__name__)


async def judge_workspace(request: JudgeRequest) -> Verdict:
    """The verdict on the final workspace.

    Every check gets a result: one that cannot be evaluated is `error`, one behind a closed gate `skipped`.

    Raises:
        JudgingFailed: no grading sandbox could be opened, or one was lost, so the work was not judged.
        ModelUnavailable, ModelRejected, ReplayMissing: the judge of a rubric gave no answer.
        UnknownNameError: a type of check that nothing installed judges; see `unsupported_checks`.
    """
    judges = {check.id: load_check(check.type) for check in request.manifest.grader.checks}
    results: dict[str, CheckResult] = {}
    closed_by: str | None = None
    for tier in TIERS:
        checks = [check for check in request.manifest.grader.checks if judges[check.id].tier == tier]
        for check in checks:
            if closed_by is None:
                outcome = await _evaluate(judges[check.id], check, request)
            else:
                outcome = CheckOutcome("skipped", 0.0, f"the gating check {closed_by!r} did not pass")
            results[check.id] = await _record(check, tier, outcome, request)
        if closed_by is None:
            shut = [check.id for check in checks if check.gating and results[check.id].status != "passed"]
            closed_by = shut[0] if shut else None
    ordered = [results[check.id] for check in request.manifest.grader.checks]
    return make_verdict(ordered, request.manifest.grader.pass_threshold)


async def _evaluate(judge: Check, check: manifest.Check, request: JudgeRequest) -> CheckOutcome:
    context = CheckContext(
        # In `local` the agent saw the workspace under its host path, and links may name it so.
        workspace=ConfinedFolder(request.workspace_final, request.spec.workdir, (str(request.spec.workspace),)),
        task_folder=request.task_folder,
        grader=request.task_folder / "grader",
        open_sandbox=lambda: open_grading_sandbox(request, hidden=_hidden_from(check, request.task_folder)),
        materials=request.materials,
        open_judge=request.open_judge,
        verdict_cache=request.verdict_cache,
    )
    try:
        outcome = await _ask(judge, check, context)
    except (JudgingFailed, ModelUnavailable, ModelRejected, ReplayMissing):
        raise  # no fault of the work
    except FbenchError as error:
        return CheckOutcome("error", 0.0, str(error), {"error": str(error)})
    except Exception as error:
        # The contract: what could not be evaluated never crashes the run. The log has the traceback to report.
        log.exception("check.crashed", run_id=request.spec.run_id, check_id=check.id)
        reason = f"fbench failed to evaluate this check, please report it: {type(error).__name__}: {error}"
        return CheckOutcome("error", 0.0, reason, {"error": reason})
    if problem := _find_problem(outcome):
        return CheckOutcome("error", 0.0, f"the check gave {problem}", {"error": f"the check gave {problem}"})
    if outcome.status in {"error", "skipped"}:
        return replace(outcome, score=0.0)
    # What failed must not add up to a perfect score.
    return replace(outcome, score=min(outcome.score, ALMOST_ONE)) if outcome.status == "failed" else outcome


async def _ask(judge: Check, check: manifest.Check, context: CheckContext) -> CheckOutcome:
    """What the check says. Ours bound each of their steps; what another package brings may hang anywhere."""
    if check.type in CHECK_TYPES:
        return await judge.evaluate(check, context)
    with anyio.move_on_after(check.timeout_s + OUTSIDE_GRACE_S):
        return await judge.evaluate(check, context)
    reason = f"the check did not end within its timeout_s of {check.timeout_s:g} s"
    return CheckOutcome("error", 0.0, reason, {"error": reason})


def _find_problem(outcome: object) -> str:
    """What keeps an outcome from counting, for a check of another package may give anything; empty when it counts."""
    if not isinstance(outcome, CheckOutcome):
        return f"an object of type {type(outcome).__name__}, which is no CheckOutcome"
    if outcome.status not in get_args(CheckStatus):
        return f"the status {outcome.status!r}; there are {', '.join(get_args(CheckStatus))}"
    if not isinstance(outcome.detail, str) or not isinstance(outcome.output, Mapping):
        return "a detail that is no text, or an output that is no mapping"
    if outcome.status in {"passed", "failed"} and not (
        isinstance(outcome.score, int | float) and 0.0 <= outcome.score <= 1.0
    ):
        return f"the score {outcome.score!r}, which is not between 0 and 1"
    return ""


def _hidden_from(check: manifest.Check, task_folder: Path) -> tuple[Path, ...]:
    """What a check's command must not find in /grader: the answer it is compared with, which is read out here."""
    return (task_folder / check.reference,) if isinstance(check, manifest.ReferenceOutput) else ()


async def _record(check: manifest.Check, tier: Tier, outcome: CheckOutcome, request: JudgeRequest) -> CheckResult:
    """Write what the check saw and tell of the result. A skipped check saw nothing and leaves no file."""
    result = CheckResult(
        id=check.id,
        type=check.type,
        tier=tier,
        status=outcome.status,
        score=outcome.score,
        weight=check.weight,
        gating=check.gating,
        detail=clean_text(outcome.detail, MAX_DETAIL_CHARS),
    )
    if result.status == "skipped":
        evidence_path(request.outputs, check.id).unlink(missing_ok=True)  # of an earlier judging of the same run
    else:
        is_little = is_little_evidence(outcome.output)
        await in_thread(lambda: write_evidence(request.outputs, result, outcome.output), is_little=is_little)
    request.on_check(result)
    return result


@asynccontextmanager
async def open_grading_sandbox(request: JudgeRequest, hidden: tuple[Path, ...] = ()) -> AsyncIterator[Sandbox]:
    """A live sandbox on a pristine copy of the final workspace, `/grader` mounted but for what is `hidden`; both are
    gone afterwards.

    Raises:
        JudgingFailed: it could not be opened, with one retry.
        GraderLost: an isolated one went away, which no work inside could bring about. In `local` the work can kill
            what runs it, and must not escape its score that way: there SandboxLost stays with the check.
    """
    request = replace(request, spec=replace(request.spec, hidden=(*request.spec.hidden, *hidden)))
    async with _temporary_folder(request.scratch) as folder, AsyncExitStack() as stack:
        sandbox = await _open(stack, request, folder)
        try:
            yield sandbox
        except SandboxLost as error:
            if not sandbox.capabilities.isolated:
                raise
            msg = f"the grading sandbox was lost: {error}. {_what_next(request)}"
            raise GraderLost(msg) from error


async def _open(stack: AsyncExitStack, request: JudgeRequest, folder: Path) -> Sandbox:
    attempt = 1
    while True:
        try:
            spec = await in_thread(partial(_prepare, request, folder / str(attempt)))
            return await stack.enter_async_context(request.open_sandbox(spec))
        except (SandboxFailed, SandboxLost, OSError) as error:
            log.warning("grader.open_failed", run_id=request.spec.run_id, attempt=attempt, error=str(error))
            if attempt == OPEN_ATTEMPTS:
                msg = f"the grading sandbox could not be opened, tried {attempt} times: {error}. {_what_next(request)}"
                raise JudgingFailed(msg) from error
        attempt += 1


def _what_next(request: JudgeRequest) -> str:
    again = f"fbench rejudge {request.run_id or request.spec.run_id}"
    return f"The work is kept in {request.workspace_final}; see `fbench doctor`, then `{again}`"


def _prepare(request: JudgeRequest, place: Path) -> SandboxSpec:
    """A pristine copy of the final workspace in the new folder `place`, and the sandbox to open on it."""
    workspace = place / "workspace"
    copy_tree(request.workspace_final, workspace)
    scratch = request.spec.scratch
    if request.manifest.grader.sandbox == "fresh":
        scratch = place / "scratch"
        scratch.mkdir()
    grader = request.task_folder / "grader"
    mounts = (Mount("grader", grader),) if grader.is_dir() else ()
    return replace(request.spec, workspace=workspace, scratch=scratch, mounts=mounts, purpose="grader")


@asynccontextmanager
async def _temporary_folder(parent: Path) -> AsyncIterator[Path]:
    folder = await in_thread(partial(_make_folder, parent))
    try:
        yield folder
    finally:
        with anyio.move_on_after(REMOVE_GRACE_S, shield=True) as grace:
            left = await in_thread(partial(remove_tree, folder), abandon_on_cancel=True)
            if left:
                log.warning("grader.copy_not_removed", folder=str(folder), path=left[0].path, why=left[0].why)
        if grace.cancelled_caught:
            log.error("grader.remove_timed_out", folder=str(folder), grace_s=REMOVE_GRACE_S)


def _make_folder(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="grading-", dir=parent))
