"""A thousand runs under way at the same moment, and ten thousand one after the other: what grows, and how much is it?

`FBENCH_BENCH_AT_ONCE` and `FBENCH_BENCH_SOAK` change the sizes.
"""

import asyncio
import gc
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
import yaml

from fbench.engine import Engine, RunOptions

if TYPE_CHECKING:
    from fbench.engine import RunResult
    from fbench.engine.events import Event
    from tests.benchmarks.conftest import MakeTask, Say

AT_ONCE = int(os.environ.get("FBENCH_BENCH_AT_ONCE", "1000"))
TURNS = 20
MOST_MIB = 400
SOAK = int(os.environ.get("FBENCH_BENCH_SOAK", "10000"))
SOAK_AT_ONCE = 50
SAMPLES = 10
"""Looks at the process, evenly over the soak; the first is left out, for what runs import and cache fills by then."""
SPARE_THREADS = 5
"""anyio keeps up to 40 for what blocks (copying, comparing, fsync), and some beside for grading; how many there are at
one moment is chance."""
MOST_GROWTH_MIB = 8
"""Over all that follows: of memory that is held for each run, a kilobyte would make ten."""


@dataclass(frozen=True)
class Held:
    """What the process holds at one moment; memory is what is resident and its own or shared by share (PSS)."""

    mib: float
    files: int
    tasks: int
    threads: int
    children: int


def look() -> Held:
    gc.collect()
    return Held(
        memory_mib(Path("/proc/self")),
        len(list(Path("/proc/self/fd").iterdir())),
        len(asyncio.all_tasks()),
        threading.active_count(),
        len(children()),
    )


def memory_mib(process: Path) -> float:
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def children() -> list[Path]:
    lists = Path("/proc/self/task").glob("*/children")
    return [Path("/proc", pid) for each in lists for pid in each.read_text().split()]


def script_of(tmp_path: Path, turns: int, latency_s: float) -> str:
    """Looks at a file in every turn but the last; no process is started for that."""
    view = {"tool_calls": [{"name": "text_editor", "arguments": {"command": "view", "path": "readme.txt"}}]}
    usage = {"input": 1000, "output": 50}
    looking = {**view, "content": "I look at it. " * 10, "latency_s": latency_s, "usage": usage}
    path = tmp_path / f"script-{turns}.yaml"
    path.write_text(yaml.safe_dump({"turns": [looking] * (turns - 1) + [{"tool_calls": [{"name": "submit"}]}]}))
    return f"fake/script:{path}"


@pytest.fixture
def task(make_task: "MakeTask") -> Path:
    return make_task("soak", grader={"checks": [{"id": "there", "type": "file_present", "path": "readme.txt"}]})


async def test_a_thousand_runs_at_the_same_moment(task: Path, tmp_path: Path, say: "Say") -> None:
    model = script_of(tmp_path, TURNS, latency_s=6.0)
    options = RunOptions(task=task, model=model, sandbox="local", runs_dir=tmp_path / "runs", max_tokens="none")
    most: dict[str, float] = {"own": 0, "sandboxes": 0, "at once": 0}
    results: list[RunResult] = []
    acting = 0

    def watch(event: "Event") -> None:
        nonlocal acting
        acting += {"acting": 1, "keeping": -1}.get(getattr(event, "phase", ""), 0)
        most["at once"] = max(most["at once"], acting)

    async def sample() -> None:
        while True:
            await anyio.sleep(1)
            own = memory_mib(Path("/proc/self"))
            most["own"] = max(most["own"], own)
            if acting > AT_ONCE * 0.9 and not most["sandboxes"]:
                most["sandboxes"] = sum(map(memory_mib, children()))

    async def run(engine: Engine) -> None:
        results.append(await engine.run(options, watch))

    before, began, cpu = look(), time.monotonic(), time.process_time()
    async with Engine(environ={}) as engine, anyio.create_task_group() as outer:
        outer.start_soon(sample)
        async with anyio.create_task_group() as group:
            for _ in range(AT_ONCE):
                group.start_soon(run, engine)
        outer.cancel_scope.cancel()
    took_s, cpu_s = time.monotonic() - began, time.process_time() - cpu
    say(f"{AT_ONCE} runs of {TURNS} turns: {took_s:.0f} s, {cpu_s:.0f} s of CPU; {most['at once']} acted at once")
    say(
        f"memory at most {most['own']:.0f} MiB, {before.mib:.0f} before; all sandboxes' processes besides: "
        f"{most['sandboxes']:.0f} MiB"
    )
    assert Counter((result.status, result.score, result.turns) for result in results) == {
        ("completed", 1.0, TURNS): AT_ONCE
    }
    assert most["own"] < MOST_MIB


async def test_ten_thousand_runs_leave_the_process_as_it_was(task: Path, tmp_path: Path, say: "Say") -> None:
    options = RunOptions(
        task=task, model=script_of(tmp_path, 3, latency_s=0.0), sandbox="local", runs_dir=tmp_path / "runs"
    )
    ends: Counter[tuple[str, float | None]] = Counter()
    began = time.monotonic()
    async with Engine(environ={}) as engine:

        async def some(count: int) -> None:
            for _ in range(count):
                result = await engine.run(options)
                ends[result.status, result.score] += 1

        held: list[Held] = []
        for _ in range(SAMPLES):
            async with anyio.create_task_group() as group:
                for _ in range(SOAK_AT_ONCE):
                    group.start_soon(some, SOAK // SAMPLES // SOAK_AT_ONCE)
            held.append(look())
            say(f"{sum(ends.values()):6} runs, {time.monotonic() - began:5.0f} s: {held[-1]}")
    assert ends == {("completed", 1.0): SOAK}
    first, *rest = held
    assert max(each.mib for each in rest) - first.mib < MOST_GROWTH_MIB
    assert {each.files for each in rest} == {first.files}
    assert {each.tasks for each in rest} == {first.tasks}
    early, late = held[: SAMPLES // 2], held[SAMPLES // 2 :]
    assert max(each.threads for each in late) <= max(each.threads for each in early) + SPARE_THREADS
    assert {each.children for each in rest} == {first.children}
