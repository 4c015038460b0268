"""What a validation of a task is made of, and the rules that tell a good task from one at fault. Nothing runs here."""

from collections.abc import Iterator, Sequence
from typing import Literal

from fbench.engine.results import CheckResult, ErrorInfo, Record, RunStatus
from fbench.tasks.manifest import TaskManifest

RUBRIC = "llm_rubric"
RUBRIC_MARGIN = 0.2
"""By how much a rubric must put the reference solution above everything else: one step of a scale of five. A judge that
is asked twice about the same work moves by less than that, so what is closer is luck."""

_ROUNDING = 1e-9
"""0.9 - 0.7 is a step of 0.2 too."""
_DETAIL_CHARS = 200

Part = Literal["untouched", "solution", "exploit"]
Outcome = Literal["valid", "faulty", "undetermined"]


class ValidationRun(Record):
    """One run of a validation.

    Attributes:
        name: of an exploit its path in the task's folder; of the others empty.
        script_exit_code: of the solution or the exploit, None for an untouched workspace and for one that was cut off.
    """

    part: Part
    name: str = ""
    run_id: str
    status: RunStatus
    kill_reason: str | None
    error: ErrorInfo | None
    passed: bool | None
    score: float | None
    checks: tuple[CheckResult, ...]
    script_exit_code: int | None
    sandbox: str | None
    isolated: bool | None
    task_hash: str

    def check(self, check_id: str) -> CheckResult | None:
        """The result of one check."""
        return next((check for check in self.checks if check.id == check_id), None)

    @property
    def title(self) -> str:
        """What was run, in words."""
        return {"untouched": "the untouched workspace", "solution": "the solution", "exploit": self.name}[self.part]


class LockOutcome(Record):
    """What became of `task.lock`: `why_not` says why it was not written."""

    path: str
    is_written: bool
    why_not: str | None = None


class Validation(Record):
    """The outcome for one task.

    Attributes:
        outcome: `undetermined` when a run ended in an error of the infrastructure, or could not begin.
        faults: what is wrong with the task.
        warnings: what its author should look at; they change no outcome.
        rubrics: how each rubric told the solution apart.
        troubles: why the outcome is undetermined.
        exit_code: the contract's, for this task alone.
    """

    task_id: str
    folder: str
    task_hash: str
    outcome: Outcome
    faults: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    rubrics: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()
    runs: tuple[ValidationRun, ...] = ()
    lock: LockOutcome | None = None
    exit_code: int


def find_troubles(task_hash: str, runs: Sequence[ValidationRun]) -> Iterator[str]:
    """Why the runs say nothing about the task."""
    errors: dict[str, list[str]] = {}
    for run in runs:
        if run.error is not None:
            errors.setdefault(f"{run.error.kind}: {run.error.message}", []).append(run.title)
    for error, titles in errors.items():  # what one run meets, most meet
        yield f"{', '.join(dict.fromkeys(titles)) if len(titles) < len(runs) else 'every run'}: {error}"
    for run in runs:
        if run.error is not None:
            continue
        if run.task_hash != task_hash:
            yield f"{run.title}: the task was changed while it was validated"
        # An exploit may be made to upset a judge; then it gains nothing, which is all that is asked of it.
        elif run.part != "exploit":
            for check in _unjudged(run):
                yield f"{run.title}: the judge could not evaluate {check.id!r}: {_shorten(check.detail)}"


def find_faults(manifest: TaskManifest, runs: Sequence[ValidationRun]) -> Iterator[str]:
    """What is wrong with the task. Runs without a score are passed over: they are no fault of it."""
    judged = [run for run in runs if run.score is not None]
    untouched = next((run for run in judged if run.part == "untouched"), None)
    if untouched is not None and untouched.passed:
        yield f"doing nothing passes: an untouched workspace scores {untouched.score:g}"
    yield from _faults_of_solution(manifest, judged)
    for run in judged:
        if run.part != "exploit":
            continue
        if run.passed:
            yield f"{run.name} passes, with a score of {run.score:g}{_scored_by(run)}"
        elif untouched is not None and (run.score or 0.0) > (untouched.score or 0.0):
            yield f"{run.name} scores {run.score:g}, an untouched workspace only {untouched.score:g}{_scored_by(run)}"
    for rubric in _rubrics(manifest):
        yield from _faults_of_rubric(rubric, judged)


def find_doubts(manifest: TaskManifest, runs: Sequence[ValidationRun]) -> Iterator[str]:
    """What is no fault and worth a look, as far as the runs show it."""
    if not manifest.exploits:
        yield "the task has no `exploits`: nobody has tried to cheat it"
    for run in runs:
        if run.part == "untouched" and (run.score or 0.0) > 0.0 and not run.passed:
            yield f"an untouched workspace scores {run.score:g}; make what is essential a gating check"
        if run.script_exit_code not in {None, 0} and (run.part == "exploit" or run.passed):
            yield f"{run.title} ended with exit code {run.script_exit_code}; does it do all that it should?"
        if run.part == "exploit" and run.status == "killed":
            yield f"{run.name} was stopped ({run.kill_reason}) before it had done all that it should"
        if run.part == "exploit":
            for check in _unjudged(run):
                yield f"{run.name}: the judge could not evaluate {check.id!r}, which scores 0: {_shorten(check.detail)}"
    if any(run.isolated is False for run in runs):
        yield "the runs were not isolated: exploits could read the grader, and the solution this machine"


def describe_rubrics(manifest: TaskManifest, runs: Sequence[ValidationRun]) -> Iterator[str]:
    """What each rubric gave each kind of work, one line a rubric."""
    for rubric in _rubrics(manifest):
        told = [f"{run.title} {_as_given(check)}" for run in runs if (check := run.check(rubric)) is not None]
        yield f"{rubric}: {'; '.join(told)}"


def _faults_of_solution(manifest: TaskManifest, judged: Sequence[ValidationRun]) -> Iterator[str]:
    if manifest.solution is None:
        yield "the task has no `solution`: nothing shows that it can be solved"
        return
    runs = [run for run in judged if run.part == "solution"]
    failed = [run for run in runs if not (run.passed and run.status == "completed") and not _unjudged(run)]
    if failed:
        times = f"passes only {len(runs) - len(failed)} of {len(runs)} times" if len(runs) > 1 else "does not pass"
        whys = dict.fromkeys(_why_failed(run) for run in failed)
        yield f"the solution {times}: {'; or '.join(whys)}"


def _why_failed(run: ValidationRun) -> str:
    parts = []
    if run.status == "killed":
        parts.append(f"it needs more than the task's budget ({run.kill_reason})")
    if run.script_exit_code not in {None, 0}:
        parts.append(f"its script ended with exit code {run.script_exit_code}")
    parts += [
        f"{check.id} {check.status}" + (f" ({_shorten(check.detail)})" if check.detail else "")
        for check in run.checks
        if check.status in {"failed", "error"}
    ]
    return ", ".join(parts) or f"it scores {run.score:g}"


def _faults_of_rubric(rubric: str, judged: Sequence[ValidationRun]) -> Iterator[str]:
    """Each kind of work that a rubric does not tell from the solution, also where other checks do."""
    results = [(run, check) for run in judged if (check := run.check(rubric)) is not None]
    good = [check.score for run, check in results if run.part == "solution" and check.status in {"passed", "failed"}]
    if not good:
        return
    least = min(good)
    for run, check in results:
        if run.part == "solution" or check.status in {"skipped", "error"}:
            continue
        if least - check.score < RUBRIC_MARGIN - _ROUNDING:
            yield (
                f"the rubric {rubric!r} does not tell {run.title} from the solution: {check.score:g} and {least:g}, "
                f"where at least {RUBRIC_MARGIN:g} must lie between"
            )


def _rubrics(manifest: TaskManifest) -> list[str]:
    return [check.id for check in manifest.grader.checks if check.type == RUBRIC]


def _unjudged(run: ValidationRun) -> list[CheckResult]:
    """The rubrics that could not be evaluated."""
    return [check for check in run.checks if check.type == RUBRIC and check.status == "error"]


def _scored_by(run: ValidationRun) -> str:
    scored = [check.id for check in run.checks if check.score > 0 and check.weight > 0]
    return f" (from {', '.join(scored)})" if scored else ""


def _as_given(check: CheckResult) -> str:
    if check.status == "skipped":
        return f"not asked, {check.detail}"
    return f"not judged, {_shorten(check.detail)}" if check.status == "error" else f"{check.score:g}"


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _DETAIL_CHARS else f"{line[:_DETAIL_CHARS]}…"
