"""`outcome_of`: a suite run's outcome from a few words, as running a suite would leave it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fbench.engine.results import RunResult, TokenCounts
from fbench.suites.outcomes import PlannedRun, SuiteOutcome, TaskFacts

OutcomeOf = Callable[..., SuiteOutcome]
RUNS = Path("runs")


def make_result(task: str, model: str, attempt: int, word: Any, suite_run_id: str, try_: int = 1) -> RunResult:
    """A result by a word: a score (1 passes), `error`, `cancelled`, or changes to a passed result."""
    changes: Mapping[str, Any]
    if isinstance(word, Mapping):
        changes = word
    elif word == "error":
        error = {"kind": "model_unavailable", "message": "no answer"}
        changes = {"status": "error", "end_reason": None, "passed": None, "score": None, "error": error}
    elif word == "cancelled":
        changes = {"status": "cancelled", "end_reason": None, "passed": None, "score": None}
    else:
        changes = {"score": float(word), "passed": word == 1}
    slug = "".join(letter if letter.isalnum() else "_" for letter in model.lower())
    facts = {
        "run_id": f"2026-05-13T20-40-21Z__{task}__{slug}__{attempt:02x}{try_:02x}",
        "task_id": task,
        "model": model,
        "attempt": attempt,
        "suite_run_id": suite_run_id,
        "status": "completed",
        "end_reason": "submitted",
        "passed": True,
        "score": 1.0,
        "tokens": TokenCounts(input=900, output=100, total=1000),
        "cost_usd": 0.01,
        "isolated": True,
        "started_at": "2026-05-13T20:40:21Z",
        "finished_at": "2026-05-13T20:40:31Z",
        "duration_s": 10.0,
        "sandbox": "docker",
        "fbench_version": "0.1.0",
        "task_hash": f"hash of {task}",
    }
    return RunResult.model_validate({**facts, **changes})


@pytest.fixture
def outcome_of() -> OutcomeOf:
    """`outcome_of({model: {task: [word of each attempt, None for no run]}}, ...)`; see `make_result` for the words.

    `tasks` maps a task to (difficulty, domain), `earlier` lists (model, task, word); other keywords are SuiteOutcome's.
    """

    def make(
        runs: Mapping[str, Mapping[str, Sequence[Any]]],
        *,
        tasks: Mapping[str, tuple[str, str]] | None = None,
        titles: Mapping[str, str] | None = None,
        earlier: Sequence[tuple[str, str, Any]] = (),
        suite_run_id: str = "2026-05-13T20-40-00Z__suite__nightly__a3f0",
        **more: Any,
    ) -> SuiteOutcome:
        names = list(dict.fromkeys(task for by_task in runs.values() for task in by_task))
        attempts = max((len(words) for by_task in runs.values() for words in by_task.values()), default=1)
        planned, results = [], {}
        for task in names:
            for model, by_task in runs.items():
                for attempt in range(1, attempts + 1):
                    planned.append(PlannedRun(task, model, attempt))
                    words = by_task.get(task, ())
                    word = words[attempt - 1] if attempt <= len(words) else None
                    if word is not None:
                        results[planned[-1]] = make_result(task, model, attempt, word, suite_run_id)
        replaced = tuple(make_result(task, model, 1, word, suite_run_id, try_=2) for model, task, word in earlier)
        facts = {
            "suite": "nightly",
            "tasks": tuple(
                TaskFacts(
                    name, (titles or {}).get(name, f"Title of {name}"), *(tasks or {}).get(name, ("easy", "testing"))
                )
                for name in names
            ),
            "models": tuple(runs),
            "attempts": attempts,
            "planned": tuple(planned),
            "results": results,
            "earlier": replaced,
            "folders": {result.run_id: RUNS / result.run_id for result in (*results.values(), *replaced)},
            "started_at": "2026-05-13T20:40:00Z",
            "finished_at": "2026-05-13T21:40:00Z" if len(results) == len(planned) else None,
        }
        return SuiteOutcome(suite_run_id=suite_run_id, **{**facts, **more})

    return make


@pytest.fixture
def realistic(outcome_of: OutcomeOf) -> SuiteOutcome:
    """12 tasks, 3 models, 4 attempts, with kills, errors, partial scores, an unknown price and an earlier try."""
    kinds = [("easy", "data_engineering"), ("medium", "modelling"), ("hard", "serving"), ("easy", "modelling")]
    tasks = {f"task_{number:02}": kinds[number % 4] for number in range(12)}
    killed = {
        "status": "killed",
        "end_reason": None,
        "kill_reason": "budget_exceeded:tokens",
        "passed": False,
        "score": 0.25,
    }
    strong: dict[str, list[Any]] = {task: [1, 1, 1, 0.5 if number % 3 == 0 else 1] for number, task in enumerate(tasks)}
    middle = {task: [1, 0, 0.5, 1 if number % 2 else killed] for number, task in enumerate(tasks)}
    unpriced = {"cost_usd": None, "cost_status": "unknown", "passed": False, "score": 0.0}
    weak: dict[str, list[Any]] = {task: [0, 0.25, 1 if number == 4 else 0, 0] for number, task in enumerate(tasks)}
    strong["task_05"] = [1, 1, "error", 1]
    strong["task_06"] = [{"cost_usd": 0.5, "judge_cost_usd": 0.02, "cost_status": "estimated"}, 1, 1, 1]
    weak["task_07"] = [unpriced, 0, 0, 0]
    return outcome_of(
        {"openai/strong": strong, "openai/middle": middle, "local/weak": weak},
        tasks=tasks,
        earlier=[("openai/strong", "task_00", {"status": "cancelled", "passed": None, "score": None, "cost_usd": 0.3})],
        max_cost_usd=25.0,
    )
