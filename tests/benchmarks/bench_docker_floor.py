"""What a trivial run in Docker costs beside the engine's own floor, and how long a sandbox takes to go."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from fbench.engine import Engine, RunOptions
from fbench.engine.events import Event, PhaseStarted, ToolFinished
from fbench.engine.owner import owner_identity
from fbench.engine.seams import ExecRequest, SandboxSpec
from fbench.sandboxes.docker import open_container_sandbox
from fbench.sandboxes.docker_engine import ContainerHost
from tests.benchmarks.peers.docker_floor import floor
from tests.benchmarks.peers.folders import IMAGE
from tests.benchmarks.peers.measure import Cost, Meter

if TYPE_CHECKING:
    from tests.benchmarks.conftest import MakeScript, MakeTask, Say

ROUNDS = 12
MOST_RATIO = 1.5
MOST_TEARDOWN_S = 0.3
EXECS = (1, 1)
"""The containers of a trivial run, the agent's and the check's, with one command in each."""

Summary = Callable[[Sequence[float]], str]


async def test_a_trivial_run_costs_at_most_one_and_a_half_of_the_floor(
    host: ContainerHost, make_task: "MakeTask", make_script: "MakeScript", say: "Say", summary: Summary, tmp_path: Path
) -> None:
    options = RunOptions(
        task=make_task("trivial"), model=make_script("true"), sandbox="docker", runs_dir=tmp_path / "runs"
    )
    floors: list[Cost] = []
    runs: list[Cost] = []
    teardowns: list[float] = []
    async with Engine(environ={}) as engine:

        async def run() -> Cost:
            times: dict[str, float] = {}

            def watch(event: Event) -> None:
                if isinstance(event, PhaseStarted | ToolFinished):
                    times[event.phase if isinstance(event, PhaseStarted) else "tool"] = time.perf_counter()

            meter = Meter()
            result = await engine.run(options, watch)
            cost = meter.read()
            assert (result.status, result.passed, result.tool_calls) == ("completed", True, 1), result
            teardowns.append(times["keeping"] - times["tool"])
            return cost

        await run()  # the one that warms the engine, sweeps, and loads what runs import
        await floor(host, EXECS)
        teardowns.clear()
        for round_ in range(ROUNDS):
            if round_ % 2:
                floors.append(await floor(host, EXECS))
                runs.append(await run())
            else:
                runs.append(await run())
                floors.append(await floor(host, EXECS))
    ratio = statistics.median(c.wall_s for c in runs) / statistics.median(c.wall_s for c in floors)
    pairs = [run.wall_s / bare.wall_s for run, bare in zip(runs, floors, strict=True)]
    say(f"floor: {summary([cost.wall_s for cost in floors])}, own CPU {summary([cost.cpu_s for cost in floors])}")
    say(f"run: {summary([cost.wall_s for cost in runs])}, own CPU {summary([cost.cpu_s for cost in runs])}")
    say(f"run / floor: {ratio:.2f} of the medians, {statistics.median(pairs):.2f} the median of the pairs")
    say(f"from a run's last tool call to its sandbox gone: {summary(teardowns)}")
    assert ratio <= MOST_RATIO


@pytest.mark.parametrize("left_running", [0, 20], ids=["nothing running", "20 jobs in the background"])
@pytest.mark.parametrize("has_supervisor", [True, False], ids=["supervisor", "no Python in the image"])
async def test_a_sandbox_is_gone_in_less_than_a_third_of_a_second(
    host: ContainerHost, say: "Say", summary: Summary, tmp_path: Path, has_supervisor: bool, left_running: int
) -> None:
    sandboxes: list[float] = []
    bare: list[float] = []
    jobs = f"for i in $(seq {left_running}); do setsid sleep 300 >/dev/null 2>&1 & done; true"
    for round_ in range(ROUNDS):
        root = tmp_path / str(round_)
        (root / "workspace").mkdir(parents=True)
        spec = SandboxSpec(run_id=f"bench-{uuid4().hex[:8]}", workspace=root / "workspace", scratch=root / "scratch")
        context = open_container_sandbox(host, spec, image=IMAGE, owner=owner_identity(), has_supervisor=has_supervisor)
        meter: Meter
        async with context as sandbox:
            async with sandbox.exec(ExecRequest(("bash", "-c", jobs))) as running:
                async for _ in running:
                    pass
                assert (await running.wait()).exit_code == 0
            meter = Meter()
        sandboxes.append(meter.read().wall_s)
        bare.append(await _bare_removal(host))
    say(f"sandbox gone: {summary(sandboxes)}; a bare forced delete: {summary(bare)}")
    assert statistics.median(sandboxes) < MOST_TEARDOWN_S


async def _bare_removal(host: ContainerHost) -> float:
    name = f"fbench-bench-{uuid4().hex[:12]}"
    config: dict[str, Any] = {
        "Image": IMAGE,
        "Cmd": ["sleep", "60"],
        "Labels": {"fbench.run": name, "fbench.owner": owner_identity()},
        "HostConfig": {"NetworkMode": "none"},
    }
    container = await host.client.containers.create(config, name=name)
    try:
        await container.start()
    finally:
        meter = Meter()
        await container.delete(force=True)
    return meter.read().wall_s
