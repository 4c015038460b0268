"""Everything decided about a run before it has a folder: what is wrong here is the user's to fix, and costs nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fbench.engine.errors import UsageError
from fbench.engine.options import RunOptions, resolve_manifest
from fbench.engine.own_parts import own_model_is_free
from fbench.engine.owner import owner_identity
from fbench.engine.registry import BUILT_IN, load, load_part
from fbench.engine.sandbox_kinds import SANDBOX_CHOICES
from fbench.engine.seams import SandboxSpec, SiteSpec, Tool
from fbench.engine.threads import in_thread

if TYPE_CHECKING:
    from fbench.engine.judge_plans import JudgePlan
    from fbench.engine.models.names import ModelSpec
    from fbench.pricing.table import PricedModel
    from fbench.tasks.loading import LoadedTask
    from fbench.tasks.manifest import TaskManifest


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run, decided.

    Attributes:
        manifest: the task's with the options on top.
        price: None for a free model and for one without a price; `has_cost` tells them apart.
        is_free: whether the model costs nothing by definition.
        has_cost: whether what the run costs can be known.
        judges: the model of each check that one judges, by the check's id.
        secrets: texts that must stand in no file of the run.
        warnings: for the user, each said once.
        unvalidated: why the task does not count as validated, None when it does.
    """

    options: RunOptions
    task: "LoadedTask"
    manifest: "TaskManifest"
    model: "ModelSpec"
    sandbox: str
    price: "PricedModel | None"
    is_free: bool
    has_cost: bool
    tools: Mapping[str, Tool]
    judges: Mapping[str, "JudgePlan"]
    secrets: tuple[str, ...]
    warnings: tuple[str, ...]
    unvalidated: str | None = None


async def make_plan(options: RunOptions, environ: Mapping[str, str]) -> RunPlan:
    """Read the task, settle every option, choose the sandbox.

    Raises:
        UsageError, TaskError, PricingError: the run cannot be made as asked; each owns its exit code.
    """
    from fbench.engine.config import Config, load_config  # noqa: PLC0415 - late: only a run needs them
    from fbench.engine.judge_plans import FAKE_JUDGE, plan_judges  # noqa: PLC0415
    from fbench.engine.models.access import make_spec  # noqa: PLC0415
    from fbench.engine.models.names import parse_model_name  # noqa: PLC0415
    from fbench.engine.models.settings import fit_settings  # noqa: PLC0415
    from fbench.engine.models.traffic import check_traffic  # noqa: PLC0415
    from fbench.pricing.table import FREE_PROVIDERS, load_prices  # noqa: PLC0415
    from fbench.tasks.find import find_task  # noqa: PLC0415
    from fbench.tasks.loading import load_task  # noqa: PLC0415
    from fbench.tasks.lock import why_unvalidated  # noqa: PLC0415

    check_traffic(options.record, options.replay)
    config = Config() if options.config is None else load_config(options.config)
    model_name = parse_model_name(options.model, config.providers)
    if model_name.full.startswith(FAKE_JUDGE):
        msg = f"{model_name.full} only judges: give it with --judge-model, and another model to do the work"
        raise UsageError(msg)
    folder = find_task(str(options.task))
    task = await in_thread(partial(load_task, folder), kind=folder.absolute())
    manifest = resolve_manifest(task.manifest, options)
    if unsupported := load_part("unsupported_checks")(manifest):
        msg = f"task {manifest.id!r}: this version of fbench cannot judge {', '.join(unsupported)}; take the checks out"
        raise UsageError(msg)
    load_part("check_rubrics")(task.folder, manifest)
    tools: dict[str, Tool] = {name: _made(load("tools", name)) for name in manifest.tools.allow}
    load("agents", manifest.tools.style)

    is_free = model_name.provider in FREE_PROVIDERS or own_model_is_free(model_name.full)
    user_prices = options.prices or (Path(environ["FBENCH_PRICES"]) if environ.get("FBENCH_PRICES") else None)
    prices = partial(load_prices, user_prices, is_kept=True)
    price = None if is_free else config.price_over(prices(), model_name.provider, model_name.name)
    judges = plan_judges(manifest, options, config, environ, prices)
    warnings = [
        *_check_cost_cap(options, manifest, has_price=is_free or price is not None),
        *_check_judge_cap(manifest, judges),
    ]

    sandbox, warning = await _choose_sandbox(options, manifest, model_is_fake=model_name.is_fake)
    if warning:
        warnings.append(warning)

    model = make_spec(
        options.model,
        config,
        environ,
        base_url=options.base_url,
        api_key=options.api_key.get_secret_value() if options.api_key else None,
        task=task,
        style=manifest.tools.style,
        runs_dir=options.runs_dir,
        is_replayed=options.replay is not None,
        likely_window=None if price is None else price.tariff.context_window,
    )
    if not is_free:
        manifest, unsent = fit_settings(manifest, model, options)
        warnings += unsent
    specs = (model, *(judge.spec for judge in judges.values()))
    return RunPlan(
        options=options,
        task=task,
        manifest=manifest,
        model=model,
        sandbox=sandbox,
        price=price,
        is_free=is_free,
        has_cost=is_free or price is not None,
        tools=tools,
        judges=judges,
        secrets=tuple(secret for spec in specs for secret in (spec.api_key, *spec.secrets) if secret),
        warnings=tuple(warnings),
        unvalidated=why_unvalidated(task.folder, task.task_hash),
    )


def sandbox_spec(plan: RunPlan, run_id: str, scratch: Path) -> SandboxSpec:
    """The agent's sandbox of a run, its files under `scratch`. Only an oracle's shows the reference solution, only that
    of a fake which plays an exploit the exploits."""
    from fbench.engine.models.names import EXPLOIT_PREFIX, ORACLE  # noqa: PLC0415 - beside their only use
    from fbench.engine.seams import Limits, Mount  # noqa: PLC0415

    environment = plan.manifest.environment
    mounts: tuple[Mount, ...] = ()
    if plan.model.full_name == ORACLE and plan.manifest.solution is not None:
        mounts = (Mount("solution", plan.task.folder / Path(plan.manifest.solution).parts[0]),)
    elif plan.model.full_name.startswith(EXPLOIT_PREFIX):
        mounts = (Mount("exploits", plan.task.folder / "exploits"),)
    return SandboxSpec(
        run_id=run_id,
        workspace=scratch / "workspace",
        scratch=scratch / "sandbox",
        workdir=environment.workdir,
        env=environment.env,
        limits=Limits(
            cpus=environment.resources.cpus,
            memory_bytes=environment.resources.memory,
            pids=environment.resources.pids,
            disk_bytes=environment.resources.disk,
        ),
        mounts=mounts,
        hidden=(plan.task.folder, plan.options.runs_dir.absolute()),
    )


def site_spec(plan: RunPlan, run_id: str, scratch: Path) -> SiteSpec:
    """What all sandboxes of a run share."""
    return SiteSpec(
        run_id=run_id,
        owner=owner_identity(),
        task_folder=plan.task.folder,
        environment=plan.manifest.environment,
        scratch=scratch / "site",
        image_map=dict(plan.options.image_map),
    )


def require_price(plan: RunPlan, cap: str) -> None:
    """Raises UsageError where a cap on dollars cannot be held, since the model has no price."""
    if not plan.has_cost:
        raise UsageError(_no_price(plan.options.model, cap))
    for judge in plan.judges.values():
        if not judge.has_cost:
            raise UsageError(_no_price(f"the judge {judge.spec.full_name}", cap))


async def _choose_sandbox(
    options: RunOptions, manifest: "TaskManifest", *, model_is_fake: bool
) -> tuple[str, str | None]:
    """The kind of sandbox, and what the user has to know of the choice. One that is not ours is taken as asked for."""
    if options.sandbox in SANDBOX_CHOICES:
        choice = await load_part("choose_sandbox")(
            options.sandbox, manifest.environment, model_is_fake=model_is_fake, image_map=options.image_map
        )
        return choice.kind, choice.warning
    if options.sandbox in BUILT_IN["sandboxes"]:
        msg = f"--sandbox {options.sandbox} cannot be asked for: docker becomes it where a task has services"
        raise UsageError(msg)
    load("sandboxes", options.sandbox)
    return options.sandbox, None


def _made(tool: "Tool | type[Tool]") -> Tool:
    return tool() if isinstance(tool, type) else tool


def _no_price(model: str, cap: str) -> str:
    return (
        f"{cap} cannot be held: {model} has no price. Give one with --prices FILE, "
        f"or leave the cap out (`fbench pricing show` lists the known models)"
    )


def _check_cost_cap(options: RunOptions, manifest: "TaskManifest", *, has_price: bool) -> tuple[str, ...]:
    """A dollar cap needs a price. One the user asks for now is refused; one of the manifest is only not enforced."""
    if has_price or manifest.budget.cost_usd is None:
        return ()
    if options.max_cost not in {None, "none"}:
        raise UsageError(_no_price(options.model, "--max-cost"))
    warning = (
        f"{options.model} has no price: the manifest's cap of ${manifest.budget.cost_usd} is not enforced and "
        f"the run's cost stays unknown; give a price with --prices FILE"
    )
    return (warning,)


def _check_judge_cap(manifest: "TaskManifest", judges: Mapping[str, "JudgePlan"]) -> tuple[str, ...]:
    """The judge's purse stands only in a manifest: without a price it is not enforced, and that is said once."""
    cap_usd = manifest.budget.judge_cost_usd
    unpriced = sorted({judge.spec.full_name for judge in judges.values() if not judge.has_cost})
    if cap_usd is None or not unpriced:
        return ()
    return (f"{', '.join(unpriced)} has no price: the judge's purse of ${cap_usd} is not enforced",)
