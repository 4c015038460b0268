"""What a suite run would do and cost, for `--dry-run`: its runs, its images, expected and worst-case dollars."""

from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbench.engine.errors import UsageError
from fbench.engine.records.index import query_runs
from fbench.suites.summary import say_dollars, sum_if_known

if TYPE_CHECKING:
    from fbench.engine.plan import RunPlan
    from fbench.suites.planning import PreparedSuite

_MILLION = 1_000_000


async def forecast(prepared: "PreparedSuite", runs_dir: Path) -> dict[str, Any]:
    """The plan as a document. Dollars are None where nothing tells them: `expected` goes by the mean of earlier runs of
    the same task and model in `runs_dir`, `worst_case` by the caps of each run and of the suite."""
    plan = prepared.plan
    means = await _mean_costs(runs_dir)
    rows: list[dict[str, Any]] = []
    for cell in plan.cells:
        run = prepared.runs[cell.task_id, cell.model]
        costs_nothing = run.is_free and all(judge.is_free for judge in run.judges.values())
        expected = 0.0 if costs_nothing else means.get((cell.task_id, cell.model))
        worst = worst_case_usd(run)
        rows.append(
            {
                **cell.model_dump(include={"task_id", "model", "attempt", "seed"}),
                "sandbox": run.sandbox,
                "images": images_of(run),
                "expected_usd": expected,
                "worst_case_usd": None if worst is None else float(worst),
            }
        )
    worst_total = sum_if_known(row["worst_case_usd"] for row in rows)
    cap = None if plan.max_suite_cost is None else float(plan.max_suite_cost)
    if cap is not None:
        worst_total = cap if worst_total is None else min(cap, worst_total)
    return {
        "suite": plan.suite,
        "models": list(plan.models),
        "shard": plan.shard,
        "concurrency": plan.concurrency,
        "runs": rows,
        "images": sorted({image for row in rows for image in row["images"]}),
        "max_suite_cost_usd": cap,
        "expected_usd": sum_if_known(row["expected_usd"] for row in rows),
        "worst_case_usd": worst_total,
        "warnings": list(prepared.warnings),
    }


def images_of(run: "RunPlan") -> list[str]:
    """The images a run needs: none outside of containers, `build:FOLDER` where the task brings a Dockerfile."""
    if run.sandbox not in {"docker", "compose"}:
        return []
    environment = run.manifest.environment
    parts: list[Any] = [environment, *environment.services.values()]
    return [
        run.options.image_map.get(part.image, part.image) if part.image else f"build:{run.manifest.id}/{part.build}"
        for part in parts
    ]


def worst_case_usd(run: "RunPlan") -> Decimal | None:
    """The most a run can cost by its caps: on dollars, or on tokens at the dearest rate; None without such a cap."""
    judges_usd = _judges_worst_case_usd(run)
    if run.is_free or judges_usd is None:
        return judges_usd
    budget = run.manifest.budget
    bounds = [budget.cost_usd] if budget.cost_usd is not None and run.price is not None else []
    if budget.tokens is not None and run.price is not None:
        price = run.price.price
        rates = [
            rate
            for tier in (price, *price.long_context)
            for rate in (tier.input, tier.cached_input, tier.cache_write, tier.output)
            if rate is not None
        ]
        bounds.append(budget.tokens * max(rates) / _MILLION)
    return min(bounds) + judges_usd if bounds else None


def _judges_worst_case_usd(run: "RunPlan") -> Decimal | None:
    """The most that the judges of a run can cost: their purse, which only those with a price keep to."""
    paid = [judge for judge in run.judges.values() if not judge.is_free]
    if not paid:
        return Decimal(0)
    return run.manifest.budget.judge_cost_usd if all(judge.has_cost for judge in paid) else None


def words_of(document: Mapping[str, Any]) -> str:
    """The same for a reader."""
    rows = [
        (row["task_id"], row["model"], f"#{row['attempt']}", row["sandbox"], say_dollars(row["worst_case_usd"]))
        for row in document["runs"]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    shard = f", part {document['shard']}" if document["shard"] else ""
    lines += [
        f"suite       {document['suite']}{shard}: {len(rows)} runs, {document['concurrency']} at once",
        f"images      {', '.join(document['images']) or 'none'}",
        f"expected    {say_dollars(document['expected_usd'])}"
        + (" (not every task and model has run here before)" if document["expected_usd"] is None else ""),
        f"worst case  {say_dollars(document['worst_case_usd'])}"
        + (" (not every run has a cap on dollars or tokens and a price)" if document["worst_case_usd"] is None else ""),
        *(f"warning     {warning}" for warning in document["warnings"]),
    ]
    return "\n".join(lines)


async def _mean_costs(runs_dir: Path) -> dict[tuple[str, str], float]:
    """What runs that reached a verdict cost on average, by task and model; none without a usable index."""
    costs: dict[tuple[str, str], list[float]] = defaultdict(list)
    try:
        runs = await query_runs(runs_dir)
    except UsageError:
        return {}
    for run in runs:
        if run.status in {"completed", "killed"} and run.cost_usd is not None and run.task_id and run.model:
            costs[run.task_id, run.model].append(run.cost_usd + (run.judge_cost_usd or 0.0))
    return {key: sum(values) / len(values) for key, values in costs.items()}
