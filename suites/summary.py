"""What `fbench suite run` prints at its end: one document, and the same in words."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fbench.engine.results import RunResult, TokenCounts
from fbench.suites.figures import mean_score
from fbench.suites.outcomes import SuiteOutcome

_STATUSES = ("completed", "killed", "error", "cancelled")


def summarise(outcome: SuiteOutcome, artifacts: Sequence[Path]) -> dict[str, Any]:
    """The document of a suite run. Sums of dollars are over every run that was made, replaced and cut off ones too,
    and None where one of them is not known; `avg_score` is the report's mean score."""
    results = list(outcome.results.values())
    scored = sum(result.score is not None for result in results)
    passed = sum(result.passed is True for result in results)
    every = [*results, *outcome.earlier]
    counts = {status: sum(result.status == status for result in results) for status in _STATUSES}
    planned = len(outcome.planned)
    return {
        "suite_run_id": outcome.suite_run_id,
        "suite": outcome.suite,
        "models": list(outcome.models),
        "totals": {"planned": planned, **counts, "not_run": planned - len(results), "passed": passed},
        "avg_score": mean_score(outcome),
        "pass_rate": passed / scored if scored else None,
        "cost_usd": sum_if_known([*(result.cost_usd for result in every), outcome.lost_cost_usd]),
        "judge_cost_usd": sum_if_known(result.judge_cost_usd for result in every),
        "lost_cost_usd": outcome.lost_cost_usd,
        "max_suite_cost_usd": outcome.max_cost_usd,
        "tokens": sum((result.tokens for result in every), TokenCounts()).model_dump(),
        "duration_s": round(sum(result.duration_s for result in every), 3),
        "started_at": outcome.started_at,
        "finished_at": outcome.finished_at,
        "runs": [_run(outcome, result) for result in results],
        "artifacts": {path.stem if path.suffix == ".json" else path.name: str(path) for path in artifacts},
    }


def words_of(summary: dict[str, Any]) -> str:
    """The same for a reader."""
    totals = summary["totals"]
    rows = [
        (run["task"], run["model"], f"#{run['attempt']}", _word(run), say_dollars(run["cost_usd"]), run["run_id"])
        for run in summary["runs"]
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(6)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    ended = ", ".join(f"{totals[status]} {status}" for status in _STATUSES if totals[status])
    left = f", {totals['not_run']} not run" if totals["not_run"] else ""
    score = "none" if summary["avg_score"] is None else f"{summary['avg_score']:.4g}"
    cap = "" if summary["max_suite_cost_usd"] is None else f" of ${summary['max_suite_cost_usd']:g}"
    judge = f", the judge {say_dollars(summary['judge_cost_usd'])}" if summary["judge_cost_usd"] != 0 else ""
    lines += [
        f"suite    {summary['suite']}  {summary['suite_run_id']}",
        f"runs     {totals['planned']} planned: {ended or '0 ended'}{left}; {totals['passed']} passed",
        f"score    {score} on average",
        f"cost     {say_dollars(summary['cost_usd'])}{cap}{judge}, {summary['tokens']['total']} tokens",
    ]
    lines += [f"wrote    {path}" for path in summary["artifacts"].values()]
    return "\n".join(lines)


def _run(outcome: SuiteOutcome, result: RunResult) -> dict[str, Any]:
    return {
        "run_id": result.run_id,
        "task": result.task_id,
        "model": result.model,
        "attempt": result.attempt,
        "status": result.status,
        "passed": result.passed,
        "score": result.score,
        "cost_usd": result.cost_usd,
        "error": None if result.error is None else result.error.model_dump(),
        "folder": str(outcome.folders[result.run_id]),
    }


def _word(run: dict[str, Any]) -> str:
    if run["error"] is not None:
        return f"error {run['error']['kind']}"
    if run["score"] is None:
        return str(run["status"])
    return f"{'passed' if run['passed'] else 'failed'} {run['score']:.3g}"


def say_dollars(amount: float | None) -> str:
    """Dollars as they are, six digits that count."""
    return "unknown" if amount is None else f"${amount:.6g}"


def sum_if_known(amounts: Iterable[float | None]) -> float | None:
    """The sum of dollars; None as soon as one of them is not known."""
    total = 0.0
    for amount in amounts:
        if amount is None:
            return None
        total += amount
    return round(total, 9)
