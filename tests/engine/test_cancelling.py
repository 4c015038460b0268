"""A caller that is cancelled as asyncio does it, at whatever moment: its run ends, says so and leaves nothing."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from fbench.engine import Engine, RunOptions
from fbench.engine.events import Event, PhaseStarted, RunStarted
from fbench.engine.records.reading import read_result
from fbench.engine.scratch import scratch_root

if TYPE_CHECKING:
    from tests.engine.conftest import MakeScript, MakeTask

PATIENCE_S = 60.0


@pytest.fixture
def options(make_task: "MakeTask", tmp_path: Path) -> RunOptions:
    return RunOptions(task=make_task(), model="fake/oracle", sandbox="local", runs_dir=tmp_path / "runs")


def folders(options: RunOptions) -> list[Path]:
    return [path for path in options.runs_dir.glob("*") if path.is_dir()]


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_a_task_cancelled_while_it_cleans_up_cleans_up(options: RunOptions, make_script: "MakeScript") -> None:
    """Each `cancel` of asyncio goes through one shield of anyio."""
    command = {"tool_calls": [{"name": "bash", "arguments": {"command": "sleep 600"}}]}
    slow = options.model_copy(update={"model": make_script([command])})
    started = asyncio.Event()

    def watch(event: Event) -> None:
        if type(event).__name__ == "ToolStarted":
            started.set()

    descriptors = open_descriptors()
    async with Engine(environ={}) as engine:
        task = asyncio.create_task(engine.run(slow, watch))
        await started.wait()
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=0.001)
    assert task.cancelled()
    [folder] = folders(options)
    result = read_result(folder)
    assert result is not None
    assert result.status == "cancelled"
    assert not (scratch_root() / folder.name).exists()
    assert open_descriptors() <= descriptors


async def test_a_reader_cancelled_again_while_it_leaves_still_waits_for_the_end(
    options: RunOptions, make_script: "MakeScript"
) -> None:
    command = {"tool_calls": [{"name": "bash", "arguments": {"command": "sleep 600"}}]}
    slow = options.model_copy(update={"model": make_script([command])})
    started = asyncio.Event()

    async def read(engine: Engine) -> None:
        async with engine.stream(slow) as run:
            async for event in run:
                if type(event).__name__ == "ToolStarted":
                    started.set()

    async with Engine(environ={}) as engine:
        task = asyncio.create_task(read(engine))
        await started.wait()
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        assert task.cancelled()
        [result] = (read_result(folder) for folder in folders(options))
        assert result is not None
        assert result.status == "cancelled"


async def test_one_cancelled_in_its_last_moments_ends(options: RunOptions) -> None:
    """A cancellation that met the closing of a sandbox left its supervisor listened to for ever."""
    for phase in ("acting", "keeping", "judging"):
        reached = asyncio.Event()

        def watch(event: Event, phase: str = phase, reached: asyncio.Event = reached) -> None:
            if isinstance(event, PhaseStarted) and event.phase == phase:
                reached.set()

        async with Engine(environ={}) as engine:
            task = asyncio.create_task(engine.run(options, watch))
            await reached.wait()
            while not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=0.001)
    results = [read_result(folder) for folder in folders(options)]
    assert [result and result.status for result in results] == ["cancelled"] * 3


async def test_one_cancelled_while_the_index_opens_ends_and_the_next_goes_on(options: RunOptions) -> None:
    async with Engine(environ={}) as engine:
        task = asyncio.create_task(engine.run(options))
        while not any("_keep_index" in other.get_name() for other in asyncio.all_tasks()):
            await anyio.lowlevel.checkpoint()
        task.cancel()
        await asyncio.wait({task}, timeout=PATIENCE_S)
        assert task.cancelled()
        with anyio.fail_after(PATIENCE_S):
            assert (await engine.run(options)).score == 1


async def test_whatever_has_a_folder_has_a_result(options: RunOptions) -> None:
    async with Engine(environ={}) as engine:
        await engine.run(options)
        for turns in range(40):
            events: list[Event] = []
            task = asyncio.create_task(engine.run(options, events.append))
            while len(folders(options)) == turns + 1 and not task.done():
                await anyio.lowlevel.checkpoint()
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            task.cancel()
            with anyio.fail_after(PATIENCE_S):
                await asyncio.wait({task})
            assert all(event.folder in folders(options) for event in events if isinstance(event, RunStarted))
    results = [read_result(folder) for folder in folders(options)]
    assert len(results) == 41
    assert all(result is not None and result.status in {"cancelled", "completed"} for result in results), results
