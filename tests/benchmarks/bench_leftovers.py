"""What is left of 100 runs of which every third is killed with SIGKILL, after one `fbench clean`."""

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import anyio
import anyio.to_thread
import pytest

from fbench.sandboxes.docker_engine import ContainerHost
from fbench.sandboxes.docker_sweep import RUN_LABEL, find_leftovers

if TYPE_CHECKING:
    from anyio.abc import Process

    from tests.benchmarks.conftest import MakeScript, MakeTask, Say

IMAGE = "fbench/base:1"
FBENCH = (sys.executable, "-P", "-c", "from fbench.engine.cli import main; main()")
# Runs that sweep nothing when they begin: what is left is left to `fbench clean`.
WITHOUT_SWEEP = (
    *FBENCH[:3],
    f"from fbench.sandboxes import docker_sweep; docker_sweep.START_PATIENCE_S = 0; {FBENCH[3]}",
)
RUNS = int(os.environ.get("FBENCH_BENCH_RUNS", "100"))
AT_ONCE = 10
KILL_EACH = 3
COMPOSE_EACH = 4
"""Every fourth run has a service, thus a network of its own, with a volume of its image's."""
FIRST_GUESS_S = 5.0
ANY_TIME_SHARE = 0.2
"""Of those that are killed: at any moment since their start. The others are killed once they have a folder, or most
would die while they still import, with nothing to leave behind."""
RUN_PATIENCE_S = 300.0
SETTLE_S = 2.0
"""What came into being after the sweep would be seen by then."""

Summary = Callable[[Sequence[float]], str]


@dataclass(slots=True)
class Tally:
    """How the runs ended; `died_in` counts the last event of those that were killed."""

    finished_s: dict[str, list[float]] = field(default_factory=lambda: {"docker": [], "compose": []})
    since_folder_s: dict[str, list[float]] = field(default_factory=lambda: {"docker": [], "compose": []})
    died_in: Counter[str] = field(default_factory=Counter)
    odd: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Kill:
    """When a run dies: after this share of a usual run's time since its folder was made, or since its start."""

    share: float
    has_folder: bool


@pytest.mark.parametrize("fbench", [FBENCH, WITHOUT_SWEEP], ids=["as it is", "no sweep at a start"])
async def test_one_clean_leaves_nothing_of_a_hundred_runs_of_which_every_third_was_killed(
    fbench: Sequence[str],
    host: ContainerHost,
    make_task: "MakeTask",
    make_script: "MakeScript",
    say: "Say",
    summary: Summary,
    tmp_path: Path,
) -> None:
    mark = f"bench_{uuid4().hex[:8]}"
    service = {
        "image": IMAGE,
        "command": "sleep 600",
        "healthcheck": {"command": "true", "interval_s": 0.3, "retries": 100},
    }
    tasks = {
        "docker": make_task(f"{mark}_d"),
        "compose": make_task(f"{mark}_c", environment={"image": IMAGE, "services": {"db": service}}),
    }
    model = make_script("sleep 0.5; setsid sleep 0.2 & true")
    (tmp_path / "tmp").mkdir()
    env = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    tally, limiter = Tally(), anyio.CapacityLimiter(AT_ONCE)
    chance = random.Random(mark)

    async def run(number: int) -> None:
        kind = "compose" if number % COMPOSE_EACH == 0 else "docker"
        runs_dir = tmp_path / "runs" / str(number)
        arguments = ("run", "--task", str(tasks[kind]), "--model", model, "--sandbox", "docker", "--quiet")
        async with limiter:
            kill = _Kill(chance.random(), chance.random() >= ANY_TIME_SHARE) if number % KILL_EACH == 0 else None
            await _run([*fbench, *arguments, "--runs-dir", str(runs_dir)], env, kill, kind, runs_dir, tally)

    began = time.monotonic()
    async with anyio.create_task_group() as group:
        for number in range(1, RUNS + 1):
            group.start_soon(run, number)
    say(f"{RUNS} runs, {AT_ONCE} at once, in {time.monotonic() - began:.0f} s")
    for kind, durations in tally.finished_s.items():
        if durations:
            say(f"{kind}, not killed: {summary(durations)}")
    say(f"killed: {tally.died_in.total()}, their last event: {dict(tally.died_in.most_common())}")
    say(f"left before the clean: {await _left(host, mark, tmp_path)}")
    began = time.monotonic()
    done = await anyio.to_thread.run_sync(
        lambda: subprocess.run([*FBENCH, "clean", "--json"], capture_output=True, text=True, env=env, check=False)
    )
    say(f"clean: exit code {done.returncode} in {time.monotonic() - began:.2f} s")
    after = await _left(host, mark, tmp_path)
    await anyio.sleep(SETTLE_S)
    settled = await _left(host, mark, tmp_path)
    say(f"left after it: {after}; {SETTLE_S:g} s later: {settled}")
    assert tally.odd == []
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["not_removed"] == {}
    assert (sum(after.values()), sum(settled.values())) == (0, 0)


async def _run(
    command: Sequence[str], env: dict[str, str], kill: _Kill | None, kind: str, runs_dir: Path, tally: Tally
) -> None:
    """One `fbench run`, killed unless it ends before or is not to be killed."""
    began = time.monotonic()
    async with await anyio.open_process(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        folder_at = began
        with anyio.fail_after(RUN_PATIENCE_S):
            if kill is None or kill.has_folder:
                folder_at = await _folder_made(runs_dir, process)
            if kill is not None:
                known = (tally.since_folder_s if kill.has_folder else tally.finished_s)[kind]
                await anyio.sleep(kill.share * statistics.median(known or [FIRST_GUESS_S]))
                with suppress(ProcessLookupError):
                    process.kill()
            assert process.stderr is not None
            said = b"".join([piece async for piece in process.stderr]).decode(errors="replace")
            code = await process.wait()
    if kill is not None:
        tally.died_in[_last_event(runs_dir) if code < 0 else "it had ended"] += 1
    elif code == 0:
        tally.finished_s[kind].append(time.monotonic() - began)
        tally.since_folder_s[kind].append(time.monotonic() - folder_at)
    else:
        tally.odd.append(f"{kind} run ended with {code}: {said[-500:]}")


async def _folder_made(runs_dir: Path, process: "Process") -> float:
    """The moment at which the run has its folder, or has ended without."""
    while not _run_folders(runs_dir) and process.returncode is None:  # noqa: ASYNC110 - another process makes it
        await anyio.sleep(0.02)
    return time.monotonic()


def _run_folders(runs_dir: Path) -> list[Path]:
    return list(runs_dir.glob("*/transcript.jsonl"))


def _last_event(runs_dir: Path) -> str:
    """The type of the last whole line of a run's transcript."""
    last = "before the run's folder"
    for transcript in _run_folders(runs_dir):
        last = "before the first event"
        for line in transcript.read_bytes().splitlines():
            with suppress(ValueError):
                last = str(json.loads(line)["type"])
    return last


async def _left(host: ContainerHost, mark: str, root: Path) -> dict[str, int]:
    """How much there is of the runs whose ids hold `mark`, by kind; processes are those that name `root`."""
    things = await find_leftovers(host.client, lambda labels: mark in labels.get(RUN_LABEL, ""))
    counts = Counter(item.kind for item in things)
    return {
        "containers": counts["container"],
        "networks": counts["network"],
        "volumes": counts["volume"],
        "folders": len(_scratch_folders(root)),
        "processes": len(_processes(root)),
    }


def _scratch_folders(root: Path) -> list[Path]:
    return list((root / "tmp").glob("fbench-*/*"))


def _processes(root: Path) -> list[str]:
    """Pids of the processes that name `root` in their command line."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(root).encode() in file.read_bytes():
                found.append(file.parent.name)
    return found
