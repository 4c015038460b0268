"""How long after its deadline the last process of a run is gone."""

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import anyio
import anyio.to_thread
import pytest

from fbench.engine import Engine, RunOptions, RunResult
from fbench.engine.events import Event, PhaseStarted
from fbench.sandboxes import bubblewrap, docker
from tests.benchmarks.peers.sleepers import new_tag, open_sleepers, wait_for_all

if TYPE_CHECKING:
    from fbench.sandboxes.docker_engine import ContainerHost
    from tests.benchmarks.conftest import MakeScript, MakeTask, Say

ROUNDS = 10
WALL_TIME_S = 1.5
MOST_S = 0.5
SLEEPERS = 3
"""The shell's own child, one in a session of its own, a daemon that init has adopted."""
PATIENCE_S = 20.0

Kind = Literal["docker", "bubblewrap"]
Summary = Callable[[Sequence[float]], str]


class Everything(set[tuple[str, str]]):
    """Holds whatever is asked for."""

    def __contains__(self, item: object) -> bool:
        return True


@pytest.mark.parametrize("has_supervisor", [True, False], ids=["supervisor", "no Python in the image"])
async def test_half_a_second_after_the_deadline_nothing_of_the_tree_is_left_in_docker(
    monkeypatch: pytest.MonkeyPatch,
    has_supervisor: bool,
    host: "ContainerHost",
    make_task: "MakeTask",
    make_script: "MakeScript",
    say: "Say",
    summary: Summary,
    tmp_path: Path,
) -> None:
    assert host.address.socket is not None, "the processes must be this machine's to be watched"
    if not has_supervisor:
        monkeypatch.setattr(docker, "_without_supervisor", Everything())
    late = await _breaches("docker", make_task("slow"), make_script, tmp_path)
    how = "supervisor" if has_supervisor else "commands started by the engine"
    say(f"docker, {how}: from the deadline to the last process gone {summary(late)}")
    assert max(late) < MOST_S


async def test_half_a_second_after_the_deadline_nothing_of_the_tree_is_left_in_bubblewrap(
    make_task: "MakeTask", make_script: "MakeScript", say: "Say", summary: Summary, tmp_path: Path
) -> None:
    if (trouble := await bubblewrap.probe()) is not None:
        pytest.fail(f"nothing was measured: {trouble}")
    late = await _breaches("bubblewrap", make_task("slow"), make_script, tmp_path)
    say(f"bubblewrap: from the deadline to the last process gone {summary(late)}")
    assert max(late) < MOST_S


async def _breaches(kind: Kind, task: Path, make_script: "MakeScript", root: Path) -> list[float]:
    async with Engine(environ={}) as engine:
        return [await _breach(engine, kind, task, make_script, root / "runs") for _ in range(ROUNDS)]


async def _breach(engine: Engine, kind: Kind, task: Path, make_script: "MakeScript", runs_dir: Path) -> float:
    tag = new_tag()
    # As a user's own shell would start them: a child, a child that left the session, a daemon nobody is parent of.
    command = f"setsid sleep {tag} & ( (setsid sleep {tag} </dev/null >/dev/null 2>&1 &) & ); sleep {tag}"
    options = RunOptions(
        task=task, model=make_script(command), sandbox=kind, runs_dir=runs_dir, max_wall_time=WALL_TIME_S
    )
    began: list[float] = []
    ended: list[float] = []
    results: list[RunResult] = []
    has_begun = anyio.Event()

    def watch(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase == "acting":
            began.append(time.monotonic())
            has_begun.set()

    async def observe() -> None:
        with anyio.fail_after(PATIENCE_S):
            await has_begun.wait()
            # Late enough for all to be up, early enough to be before the deadline.
            await anyio.sleep(WALL_TIME_S * 0.6)
        fds = await anyio.to_thread.run_sync(open_sleepers, tag)
        try:
            assert len(fds) > SLEEPERS, "the shell and all its sleepers were to be seen"
            gone_at, left = await anyio.to_thread.run_sync(partial(wait_for_all, fds.values(), patience_s=PATIENCE_S))
            assert not left, f"{len(left)} processes outlived the deadline by {PATIENCE_S} s"
            ended.append(gone_at)
        finally:
            for fd in fds.values():
                os.close(fd)

    async def run() -> None:
        results.append(await engine.run(options, watch))

    async with anyio.create_task_group() as group:
        group.start_soon(observe)
        group.start_soon(run)
    (result,) = results
    assert (result.status, result.kill_reason) == ("killed", "budget_exceeded:wall_time"), result
    assert open_sleepers(tag) == {}
    return ended[0] - began[0] - WALL_TIME_S
