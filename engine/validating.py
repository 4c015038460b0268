"""Validates a task by running it: untouched, solved, cheated; ordinary runs of fake models through `Engine.run`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from fbench.engine.errors import FbenchError
from fbench.engine.events import Event, ToolFinished
from fbench.engine.models.fake import can_play_scripts
from fbench.engine.models.names import EXPLOIT_PREFIX, ORACLE
from fbench.engine.options import RunOptions
from fbench.engine.validation import (
    LockOutcome,
    Outcome,
    Part,
    Validation,
    ValidationRun,
    describe_rubrics,
    find_doubts,
    find_faults,
    find_troubles,
)
from fbench.engine.version import own_version
from fbench.pricing.errors import PricingError
from fbench.tasks.errors import TaskError
from fbench.tasks.folder_rules import exploit_files
from fbench.tasks.hashing import LOCK_NAME
from fbench.tasks.lock import TaskLock, write_lock
from fbench.tasks.review import review_task

if TYPE_CHECKING:
    from fbench.engine.engine import Engine
    from fbench.engine.results import RunResult
    from fbench.tasks.loading import LoadedTask

DEFAULT_CONCURRENCY = 2
"""Runs of a task at a time: more would disturb each other on a laptop, and a solution has the task's wall time only."""

EXIT_FAULTY = 1
EXIT_ERROR = 3


@dataclass(frozen=True, slots=True)
class ValidationOptions:
    """How to validate: `repeat` is how often the solution must pass; the rest is as in RunOptions."""

    runs_dir: Path
    repeat: int = 1
    concurrency: int = DEFAULT_CONCURRENCY
    sandbox: str = "auto"
    image_map: Mapping[str, str] = field(default_factory=dict)
    config: Path | None = None
    judge_model: str | None = None
    judge_base_url: str | None = None
    no_judge_cache: bool = False
    writes_lock: bool = True


@dataclass(frozen=True, slots=True)
class _Planned:
    part: Part
    model: str
    name: str = ""
    attempt: int = 1


async def validate_task(
    engine: "Engine",
    task: "LoadedTask",
    options: ValidationOptions,
    on_run: Callable[[str, ValidationRun], None] = lambda _task_id, _run: None,
) -> Validation:
    """Run a task untouched, with its solution and with each exploit, and say what comes of it. `on_run` is told the
    task's id and each run when it has ended. An outcome that is certain is written into the task's `task.lock`.

    What stands in the way (no such sandbox, no price for the judge) is an outcome too: `undetermined`.
    """
    manifest = task.manifest
    warnings = await anyio.to_thread.run_sync(review_task, task)
    runs: list[ValidationRun] = []
    troubles: list[str] = []
    exit_code = 0
    try:
        runs = await _run_all(engine, task, options, partial(on_run, manifest.id))
    except (FbenchError, TaskError, PricingError) as error:
        troubles.append(str(error))
        exit_code = error.exit_code
    troubles += find_troubles(task.task_hash, runs)
    faults = [*_faults_of_tools(task), *find_faults(manifest, runs)] if runs else []
    outcome: Outcome = "undetermined" if troubles else "faulty" if faults else "valid"
    validation = Validation(
        task_id=manifest.id,
        folder=str(task.folder),
        task_hash=task.task_hash,
        outcome=outcome,
        faults=tuple(faults),
        warnings=(*warnings, *find_doubts(manifest, runs)),
        rubrics=tuple(describe_rubrics(manifest, runs)),
        troubles=tuple(troubles),
        runs=tuple(runs),
        exit_code=exit_code or (EXIT_ERROR if troubles else EXIT_FAULTY if faults else 0),
    )
    lock = await anyio.to_thread.run_sync(_write_lock, task, validation, options)
    return validation.model_copy(update={"lock": lock})


def plan_runs(task: "LoadedTask", repeat: int) -> list[_Planned]:
    """The runs that validate a task, the untouched one first."""
    planned = [_Planned("untouched", "fake/nop")]
    if can_play_scripts(task.manifest.tools):
        if task.manifest.solution is not None:
            planned += [_Planned("solution", ORACLE, attempt=attempt) for attempt in range(1, repeat + 1)]
        names = [
            path.relative_to(task.folder).as_posix() for path in exploit_files(task.folder, task.manifest.exploits)
        ]
        planned += [_Planned("exploit", f"{EXPLOIT_PREFIX}{name}", name) for name in names]
    return planned


async def _run_all(
    engine: "Engine", task: "LoadedTask", options: ValidationOptions, on_run: Callable[[ValidationRun], None]
) -> list[ValidationRun]:
    """Every run, in the order planned. Raises what a run is refused with; the others are then cancelled."""
    planned = plan_runs(task, options.repeat)
    done: dict[int, ValidationRun] = {}
    refusals: list[FbenchError | TaskError | PricingError] = []
    limiter = anyio.CapacityLimiter(options.concurrency)

    async def run_one(place: int) -> None:
        try:
            async with limiter:
                done[place] = await _run(engine, task, planned[place], options)
                on_run(done[place])
        except (FbenchError, TaskError, PricingError) as error:  # carried out of the group, which would wrap it
            refusals.append(error)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for place in range(len(planned)):
            group.start_soon(run_one, place)
    if refusals:
        raise refusals[0]
    return [done[place] for place in range(len(planned))]


async def _run(engine: "Engine", task: "LoadedTask", planned: _Planned, options: ValidationOptions) -> ValidationRun:
    exit_codes: list[int | None] = []

    def watch(event: Event) -> None:
        if isinstance(event, ToolFinished):
            exit_codes.append(event.exit_code)

    result = await engine.run(
        RunOptions(
            task=task.folder,
            model=planned.model,
            sandbox=options.sandbox,
            runs_dir=options.runs_dir,
            image_map=options.image_map,
            config=options.config,
            judge_model=options.judge_model,
            judge_base_url=options.judge_base_url,
            no_judge_cache=options.no_judge_cache,
            attempt=planned.attempt,
        ),
        watch,
    )
    return _told(planned, result, exit_codes[0] if exit_codes else None)


def _told(planned: _Planned, result: "RunResult", exit_code: int | None) -> ValidationRun:
    return ValidationRun(
        part=planned.part,
        name=planned.name,
        run_id=result.run_id,
        status=result.status,
        kill_reason=result.kill_reason,
        error=result.error,
        passed=result.passed,
        score=result.score,
        checks=result.checks,
        script_exit_code=exit_code,
        sandbox=result.sandbox,
        isolated=result.isolated,
        task_hash=result.task_hash,
    )


def _faults_of_tools(task: "LoadedTask") -> list[str]:
    if can_play_scripts(task.manifest.tools):
        return []
    return ["`tools.allow` has neither bash nor python, through which the solution and the exploits are run"]


def _write_lock(task: "LoadedTask", validation: Validation, options: ValidationOptions) -> LockOutcome:
    """Store an outcome that is certain."""
    path = str(task.folder / LOCK_NAME)
    if not options.writes_lock:
        return LockOutcome(path=path, is_written=False, why_not="not asked for")
    untouched = next((run for run in validation.runs if run.part == "untouched"), None)
    if validation.outcome == "undetermined" or untouched is None or untouched.score is None:
        return LockOutcome(path=path, is_written=False, why_not="the outcome is not certain")
    solved = [run for run in validation.runs if run.part == "solution"]
    lock = TaskLock(
        task_hash=task.task_hash,
        is_valid=validation.outcome == "valid",
        faults=validation.faults,
        untouched_score=untouched.score,
        solution_passed=sum(run.passed is True and run.status == "completed" for run in solved),
        solution_runs=len(solved),
        exploit_scores={run.name: run.score or 0.0 for run in validation.runs if run.part == "exploit"},
        sandbox=untouched.sandbox or "",
        fbench_version=own_version(),
        validated_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    try:
        write_lock(task.folder, lock)
    except OSError as error:
        return LockOutcome(path=path, is_written=False, why_not=error.strerror or str(error))
    return LockOutcome(path=path, is_written=True)
