"""1,000 runs of fake models at once in one process: is any lost, how much memory does it take, what blocks the loop?

`FBENCH_BENCH_RUNS` and `FBENCH_BENCH_CONCURRENCY` change the size.
"""

import asyncio
import os
import resource
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import yaml

from fbench.engine import Engine
from fbench.suites.attempts import assess, find_runs
from fbench.suites.fan_out import FanOut
from fbench.suites.live import SuiteView
from fbench.suites.manifest import load_suite
from fbench.suites.plan import write_plan
from fbench.suites.planning import SuiteRequest, prepare_suite

if TYPE_CHECKING:
    from tests.benchmarks.conftest import MakeScript, MakeTask, Say

RUNS = int(os.environ.get("FBENCH_BENCH_RUNS", "1000"))
CONCURRENCY = int(os.environ.get("FBENCH_BENCH_CONCURRENCY", "100"))
BLOCKED_S = 0.1
"""A stretch in which the loop gets to nothing else; longer ones are counted and named."""

_LOOK_S = 0.01


@dataclass
class LoopWatch:
    """Stretches longer than BLOCKED_S in one turn of the loop: wall seconds, CPU seconds, and where the loop stood."""

    blocked: list[tuple[float, float]] = field(default_factory=list)
    where: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0
    longest_cpu_s: float = 0.0


@contextmanager
def watched_loop(watch: LoopWatch) -> Iterator[None]:
    """Times every callback of the running loop, and looks from a thread at what a long one does."""
    began: list[float] = [0.0]
    main = threading.get_ident()
    stop = threading.Event()
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began[0], cpu = time.perf_counter(), time.thread_time()
        try:
            run(handle)
        finally:
            took, took_cpu = time.perf_counter() - began[0], time.thread_time() - cpu
            began[0] = 0.0
            watch.longest_s, watch.longest_cpu_s = max(watch.longest_s, took), max(watch.longest_cpu_s, took_cpu)
            if took > BLOCKED_S:
                watch.blocked.append((took, took_cpu))

    def look() -> None:
        seen = 0.0
        while not stop.wait(_LOOK_S):
            since = began[0]
            if since and since != seen and time.perf_counter() - since > BLOCKED_S / 2:
                seen = since
                frames = traceback.extract_stack(sys._current_frames()[main])
                ours = [frame for frame in frames if "/asyncio/" not in frame.filename][-4:]
                watch.where[" < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(ours))] += 1

    asyncio.Handle._run = timed  # type: ignore[method-assign, assignment]
    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        asyncio.Handle._run = run  # type: ignore[method-assign]


async def test_a_thousand_runs_in_one_process(
    make_task: "MakeTask", make_script: "MakeScript", tmp_path: Path, say: "Say"
) -> None:
    grader = {"checks": [{"id": "done", "type": "file_present", "path": "done.txt"}]}
    tasks = [make_task(f"task_{number}", grader=grader) for number in range(10)]
    call = {"tool_calls": [{"name": "submit", "arguments": {}}], "latency_s": 1.0}
    script = tmp_path / "slow.yaml"
    script.write_text(yaml.safe_dump({"turns": [call]}))
    path = tmp_path / "suite.yaml"
    manifest = {"id": "scale", "tasks": ["./tasks/*"], "models": [f"fake/script:{script}"], "sandbox": "local"}
    path.write_text(yaml.safe_dump(manifest))
    runs_dir = tmp_path / "runs"
    request = SuiteRequest({"runs_dir": runs_dir}, attempts=RUNS // len(tasks), concurrency=CONCURRENCY)
    plan = (await prepare_suite(load_suite(path), request, {})).plan
    await anyio.to_thread.run_sync(write_plan, runs_dir, plan)

    watch = LoopWatch()
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (tmp_path / "shown.txt").open("w") as stream:
        view = SuiteView(len(plan.cells), stream=stream)
        view._screen.is_live = True  # drawn as in a terminal
        began, cpu = time.monotonic(), time.process_time()
        async with Engine(environ={}) as engine, anyio.create_task_group() as group:
            group.start_soon(view.tick)
            with watched_loop(watch):
                await FanOut(engine, plan, runs_dir, None, 0, view).run(plan.cells, CONCURRENCY)
            group.cancel_scope.cancel()
    took_s, cpu_s = time.monotonic() - began, time.process_time() - cpu
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    standing = await anyio.to_thread.run_sync(lambda: assess(plan, find_runs(runs_dir, plan.suite_run_ids)))
    assert len(standing.final) == len(plan.cells) == RUNS
    assert not standing.earlier
    say(f"{RUNS} runs, {CONCURRENCY} at once: {took_s:.1f} s, {cpu_s:.1f} s of CPU, {RUNS / took_s:.1f} runs/s")
    say(f"memory at most {peak_kib / 1024:.0f} MiB, before {before_kib / 1024:.0f} MiB")
    say(
        f"longest turn of the loop {watch.longest_s * 1000:.0f} ms ({watch.longest_cpu_s * 1000:.0f} ms of CPU); "
        f"{len(watch.blocked)} above {BLOCKED_S * 1000:.0f} ms"
    )
    for took, took_cpu in sorted(watch.blocked, reverse=True)[:5]:
        say(f"  {took * 1000:.0f} ms, of it {took_cpu * 1000:.0f} ms of CPU")
    for where, count in watch.where.most_common(12):
        say(f"  {count} x {where}")
