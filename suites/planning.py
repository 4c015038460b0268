"""From a suite's manifest and the command line to a plan; whatever is wrong is found here, before anything is spent."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from pydantic import ValidationError

from fbench.engine.errors import UsageError
from fbench.engine.models.addresses import secrets_in
from fbench.engine.models.names import open_model, split_model_name
from fbench.engine.models.replay import load_recording
from fbench.engine.options import RunOptions
from fbench.engine.plan import RunPlan, make_plan, require_price
from fbench.engine.records.transcript import utc_now
from fbench.engine.version import own_version
from fbench.pricing.errors import PricingError
from fbench.suites.capacity import default_concurrency
from fbench.suites.manifest import AskedOfModels, LoadedSuite, Override, RunBudget, SuiteManifest
from fbench.suites.plan import Cell, PlannedTask, SuitePlan, digest_of, make_suite_run_id, parse_shard
from fbench.suites.selecting import select_tasks
from fbench.tasks.errors import TaskError

if TYPE_CHECKING:
    from fbench.tasks.loading import LoadedTask

_BUDGET_OPTIONS: Mapping[str, str] = {
    "tokens": "max_tokens",
    "tool_calls": "max_tool_calls",
    "wall_time_s": "max_wall_time",
    "cost_usd": "max_cost",
    "turns": "max_turns",
}
_FILE_OPTIONS = ("config", "prices", "record", "replay")
_WRITTEN = frozenset({"record", "replay"})
"""Options whose files say nothing about the settings: one is written, the other may lie elsewhere for each part."""

_OF_A_CELL = {"task", "model", "attempt", "suite_run_id", "runs_dir", "api_key", "judge_api_key"}


@dataclass(frozen=True, slots=True)
class SuiteRequest:
    """What the command line asks of a suite. `options` are those of RunOptions that were given; `max_suite_cost` may
    be "none"."""

    options: Mapping[str, Any]
    models: Sequence[str] = ()
    attempts: int | None = None
    concurrency: int | None = None
    max_suite_cost: Any = None
    shard: str | None = None


@dataclass(frozen=True, slots=True)
class PreparedSuite:
    """A plan, and how each (task, model) of it will run. `warnings` are said once."""

    plan: SuitePlan
    runs: Mapping[tuple[str, str], RunPlan]
    warnings: tuple[str, ...]


async def prepare_suite(suite: LoadedSuite, request: SuiteRequest, environ: Mapping[str, str]) -> PreparedSuite:
    """Decide everything about a suite run. Nothing is written, no model is asked.

    Raises:
        UsageError: it cannot be run as asked; all that is wrong with its tasks and models is listed.
    """
    manifest = suite.manifest
    tasks = await anyio.to_thread.run_sync(select_tasks, suite)
    models = tuple(dict.fromkeys(model.strip() for model in (request.models or manifest.models)))
    if not models:
        msg = f"the suite {manifest.id!r} names no models: say --model M, which may be repeated"
        raise UsageError(msg)
    options = {task.manifest.id: _options_of(manifest, task.manifest.id, request.options) for task in tasks}
    planned = tuple(_planned(task, options[task.manifest.id]) for task in tasks)
    cells = tuple(_cells(manifest, tasks, models, request))
    runs_dir = Path(request.options.get("runs_dir") or RunOptions.model_fields["runs_dir"].default)
    files = await anyio.to_thread.run_sync(_digests, _files_of(suite, models, options.values()))
    cap = request.max_suite_cost if request.max_suite_cost is not None else manifest.budget.suite_cost_usd
    plan = SuitePlan(
        suite_run_id=make_suite_run_id(manifest.id),
        suite=manifest.id,
        title=manifest.title,
        suite_file=str(suite.path.resolve()),
        fbench_version=own_version(),
        created_at=utc_now(),
        models=models,
        attempts=max(cell.attempt for cell in cells),
        tasks=planned,
        cells=cells,
        files=files,
        settings_digest=_settings_digest(planned, cells, files),
        max_suite_cost=None if cap in {None, "none"} else Decimal(str(cap)),
        concurrency=request.concurrency or manifest.concurrency or 1,
    )
    runs = await check_runs(plan, plan.cells, runs_dir, environ)
    if request.concurrency is None and manifest.concurrency is None:
        manifests = [run.manifest for run in runs.values()]
        plan = plan.model_copy(update={"concurrency": default_concurrency(manifests)})
    if request.shard is not None:
        plan = _part(plan, request.shard)
    warnings = tuple(dict.fromkeys(said for run in runs.values() for said in run.warnings))
    return PreparedSuite(plan, runs, warnings)


async def check_runs(
    plan: SuitePlan, cells: Iterable[Cell], runs_dir: Path, environ: Mapping[str, str]
) -> Mapping[tuple[str, str], RunPlan]:
    """How each (task, model) of these cells of a plan will run here.

    Raises:
        UsageError: some cannot run; each reason is said once, with the task and model it was first met at.
    """
    runs: dict[tuple[str, str], RunPlan] = {}
    problems: dict[str, str] = {}
    opened: set[tuple[str, ...]] = set()
    replayed: set[Path] = set()
    for cell in {(cell.task_id, cell.model): cell for cell in cells}.values():
        try:
            run = await make_plan(plan.options(cell, runs_dir), environ)
            if plan.max_suite_cost is not None:
                require_price(run, "the suite's cap on dollars")
            if run.options.replay is None:
                await _try_to_open(run, opened)
            elif run.options.replay not in replayed:
                replayed.add(run.options.replay)
                await anyio.to_thread.run_sync(load_recording, run.options.replay)
        except (UsageError, TaskError, PricingError) as error:
            problems.setdefault(str(error), f"{cell.task_id} with {cell.model}: {error}")
        else:
            runs[cell.task_id, cell.model] = run
    if problems:
        raise UsageError("\n".join(problems.values()))
    return runs


async def _try_to_open(run: RunPlan, opened: set[tuple[str, ...]]) -> None:
    """Open and close a run's models: a missing key or a broken script is found, and nothing is sent. A server's model
    is opened once; what a fake plays may depend on the task."""
    agent = (run.model, run.is_free)
    for spec, is_free in (agent, *((judge.spec, judge.is_free) for judge in run.judges.values())):
        key = (spec.full_name, run.manifest.id if is_free else spec.base_url or "")
        if key not in opened:
            opened.add(key)
            async with open_model(spec):
                pass


def _options_of(manifest: SuiteManifest, task_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a task's runs as JSON: those given, the suite's for this task, the suite's for all."""
    override = manifest.overrides.get(task_id, Override())
    options: dict[str, Any] = {}
    for sandbox, budget, model in (
        (manifest.sandbox, manifest.budget, manifest.model),
        (override.sandbox, override.budget, override.model),
    ):
        options |= _stated({"sandbox": sandbox}) | _from_budget(budget) | _from_model(model)
    options |= given
    for name in _FILE_OPTIONS:
        if options.get(name) is not None:
            options[name] = Path(options[name]).absolute()
    for name in ("base_url", "judge_base_url"):
        if secrets_in(options.get(name)):
            msg = (
                f"--{name.replace('_', '-')} holds a password, and a suite's plan is stored: name the server in "
                f"fbench.toml and take the password from a variable, or say it in OPENAI_BASE_URL"
            )
            raise UsageError(msg)
    try:
        checked = RunOptions.model_validate({**options, "task": task_id, "model": "fake/nop"})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        msg = f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}; see `fbench suite run --help`"
        raise UsageError(msg) from error
    return checked.model_dump(mode="json", exclude_unset=True, exclude={*_OF_A_CELL, "seed"}) | (
        {"seed": "none"} if checked.seed == "none" else {}
    )


def _from_budget(budget: RunBudget) -> dict[str, Any]:
    return _stated({option: getattr(budget, name) for name, option in _BUDGET_OPTIONS.items()})


def _from_model(model: AskedOfModels) -> dict[str, Any]:
    return _stated(dict(model))


def _stated(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _planned(task: "LoadedTask", options: Mapping[str, Any]) -> PlannedTask:
    manifest = task.manifest
    return PlannedTask(
        task_id=manifest.id,
        title=manifest.title,
        difficulty=manifest.difficulty,
        domain=manifest.domain,
        tags=manifest.tags,
        folder=str(task.folder),
        task_hash=task.task_hash,
        options=options,
    )


def _cells(
    manifest: SuiteManifest, tasks: Sequence["LoadedTask"], models: Sequence[str], request: SuiteRequest
) -> Iterable[Cell]:
    """Every run, in the plan's order: by task, model, attempt."""
    position = 0
    for task in tasks:
        override = manifest.overrides.get(task.manifest.id, Override())
        attempts = request.attempts or override.attempts or manifest.attempts or 1
        seeds = (request.options.get("seed"), override.model.seed, manifest.model.seed, task.manifest.model.seed)
        first: Any = next((seed for seed in seeds if seed is not None), None)
        for model in models:
            for attempt in range(1, attempts + 1):
                # A repeat under the same seed would be the same draw again.
                seed = None if first is None or first == "none" else int(first) + attempt - 1
                yield Cell(position=position, task_id=task.manifest.id, model=model, attempt=attempt, seed=seed)
                position += 1


def _part(plan: SuitePlan, shard: str) -> SuitePlan:
    """Every N-th planned run."""
    part, count = parse_shard(shard)
    cells = tuple(cell for cell in plan.cells if cell.position % count == part - 1)
    if not cells:
        msg = f"--shard {shard}: the suite has {len(plan.cells)} runs, so this part holds none; take fewer parts"
        raise UsageError(msg)
    return plan.model_copy(update={"cells": cells, "shard": f"{part}/{count}"})


def _files_of(suite: LoadedSuite, models: Sequence[str], options: Collection[Mapping[str, Any]]) -> list[Path]:
    """The files that the settings are made of: the suite's, price files, fbench.toml, scripts of fakes."""
    named = {Path(task[name]) for task in options for name in _FILE_OPTIONS if name not in _WRITTEN and name in task}
    for model in (*models, *(task["judge_model"] for task in options if "judge_model" in task)):
        provider, name = split_model_name(model)
        if provider == "fake" and ":" in name:
            named.add(Path(name.partition(":")[2]).absolute())
    return [suite.path.resolve(), *sorted(named)]


def digest_file(path: Path) -> str | None:
    """The digest of a file's bytes, None where it cannot be read. Blocking."""
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError:
        return None


def _digests(paths: Sequence[Path]) -> dict[str, str]:
    return {str(path): digest for path in paths if (digest := digest_file(path)) is not None}


def _settings_digest(tasks: Sequence[PlannedTask], cells: Sequence[Cell], files: Mapping[str, str]) -> str:
    """The same for all parts of a suite, on whatever machine: files count by what they hold, not by where they lie."""
    described = [
        {
            "task": task.task_id,
            "hash": task.task_hash,
            "options": {name: value for name, value in task.options.items() if name not in _FILE_OPTIONS},
        }
        for task in tasks
    ]
    runs = [[cell.task_id, cell.model, cell.attempt, cell.seed] for cell in cells]
    return digest_of({"tasks": described, "cells": runs, "files": sorted(files.values())})
