"""How long the index takes to answer on 100,000 runs: each kind of question that `fbench runs` asks, opened anew.

Bar: 50 ms each, held against the median CPU time, which other work on the machine leaves alone; wall time is printed
beside it. See docs/benchmarks.md.
"""

import contextlib
import random
import sqlite3
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fbench.engine.records.index import finished_statements, query_runs
from fbench.engine.records.index_schema import INDEX, connect
from fbench.engine.results import ErrorInfo, RunResult, TokenCounts

RUNS = 100_000
REPEATS = 15
BAR_S = 0.050
SHOWN = 51
"""What `fbench runs` asks for by default: 50, and one to know of more."""

SUITE_RUN = "2026-03-01T00-00-00Z__suite__nightly__0005"

QUESTIONS: dict[str, dict[str, Any]] = {
    "newest": {},
    "newest 1,000": {"limit": 1000},
    "oldest": {"ascending": True},
    "a task": {"task": "task_07"},
    "a model": {"model": "openai/model_3"},
    "a task and a model": {"task": "task_07", "model": "openai/model_3"},
    "an unknown task": {"task": "none"},
    "a suite run": {"suite": SUITE_RUN},
    "a suite's name": {"suite": "nightly"},
    "errors": {"status": "error"},
    "unfinished": {"status": "unfinished"},
    "passed": {"passed": True},
    "failed of a model": {"passed": False, "model": "openai/model_3"},
    "since a day": {"since": "2026-06-20T00:00:00"},
    "since the first": {"since": "2025-01-01T00:00:00"},
    "since a day, of a task": {"since": "2026-06-20T00:00:00", "task": "task_07"},
    "since a day, by cost": {"since": "2026-06-20T00:00:00", "sort": "cost"},
    "since the first, by cost": {"since": "2025-01-01T00:00:00", "sort": "cost"},
    "passed of a task since a day": {"passed": True, "task": "task_07", "since": "2026-06-20T00:00:00"},
    **{f"by {sort}": {"sort": sort} for sort in ("score", "cost", "duration", "tokens")},
    **{f"by {sort}, lowest": {"sort": sort, "ascending": True} for sort in ("score", "cost", "duration", "tokens")},
    "a task, by cost": {"task": "task_07", "sort": "cost"},
    "a model, by score": {"model": "openai/model_3", "sort": "score"},
    "a model, by duration, lowest": {"model": "openai/model_3", "sort": "duration", "ascending": True},
    "a suite's name, by cost": {"suite": "nightly", "sort": "cost"},
    "a suite run, by tokens": {"suite": SUITE_RUN, "sort": "tokens"},
    "passed, by cost": {"passed": True, "sort": "cost"},
    "errors, by duration": {"status": "error", "sort": "duration"},
    "completed, by tokens": {"status": "completed", "sort": "tokens"},
}


async def test_each_question_on_100_000_runs(tmp_path: Path, say: Callable[[str], None]) -> None:
    await _fill(tmp_path)
    size = (tmp_path / INDEX).stat().st_size / 2**20
    say(f"{RUNS} runs, {size:.0f} MiB, SQLite {sqlite3.sqlite_version}; median (least to most) of {REPEATS}")
    slow = {}
    for name, filters in QUESTIONS.items():
        times: list[float] = []
        spent: list[float] = []
        rows = 0
        for _ in range(REPEATS):
            began, cpu = time.perf_counter(), time.process_time()
            rows = len(await query_runs(tmp_path, **{"limit": SHOWN, **filters}))
            times.append(time.perf_counter() - began)
            spent.append(time.process_time() - cpu)
        say(f"{name:<30}{_words(times)}, CPU {_words(spent)}, {rows} rows")
        if statistics.median(spent) > BAR_S:
            slow[name] = statistics.median(spent)
    assert slow == {}


async def _fill(runs_dir: Path) -> None:
    """Rows as runs write them: 50 tasks, 5 models, suites of 1,000 runs every other thousand."""
    chance = random.Random(1)
    async with connect(runs_dir / INDEX):
        pass  # makes the schema
    with contextlib.closing(sqlite3.connect(runs_dir / INDEX, isolation_level=None)) as connection:
        connection.execute("begin immediate")
        for number in range(RUNS):
            for sql, values in finished_statements(_result(number, chance), f"run_{number}"):
                connection.execute(sql, values)
        connection.execute("commit")


def _result(number: int, chance: random.Random) -> RunResult:
    minute = number * 2.5
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(1_767_225_600 + minute * 60))
    is_error = chance.random() < 0.02
    score = None if is_error else chance.choice((0.0, 0.25, 0.5, 1.0, 1.0))
    batch = number // 1000
    suite = ("nightly", "weekly")[batch % 4 // 2] if batch % 2 else None
    suite_run_id = None if suite is None else f"2026-03-01T00-00-00Z__suite__{suite}__{batch:04}"
    return RunResult(
        run_id=f"{stamp.replace(':', '-')}Z__task_{number % 50:02}__openai_model_{number % 5}__{number:06x}",
        task_id=f"task_{number % 50:02}",
        model=f"openai/model_{number // 7 % 5}",
        suite_run_id=suite_run_id,
        status="error" if is_error else "completed",
        error=ErrorInfo(kind="model_unavailable", message="no answer") if is_error else None,
        passed=None if score is None else score == 1,
        score=score,
        tokens=TokenCounts(input=chance.randrange(90_000), total=chance.randrange(90_000)),
        cost_usd=None if chance.random() < 0.05 else chance.random(),
        started_at=f"{stamp}.000Z",
        finished_at=f"{stamp}.900Z",
        duration_s=chance.expovariate(1 / 120),
        fbench_version="0.1.0",
        task_hash="0" * 64,
        sandbox="docker",
    )


def _words(times: Sequence[float]) -> str:
    low, middle, high = (1000 * value for value in (min(times), statistics.median(times), max(times)))
    return f"{middle:6.1f} ms ({low:.1f} to {high:.1f})"
