"""A run as a stream of events, inside a service of one's own."""

import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from fbench.engine import Engine, RunOptions
from fbench.engine.errors import UsageError
from fbench.engine.events import (
    CheckFinished,
    ModelAnswered,
    OutputDropped,
    RunFinished,
    RunStarted,
    ToolFinished,
    ToolOutput,
    ToolStarted,
    TurnStarted,
)
from fbench.engine.records.reading import read_result
from fbench.engine.streaming import MOST_OUTPUT_BYTES, RunStream

if TYPE_CHECKING:
    from fbench.engine.events import Event, Watcher
    from tests.engine.conftest import MakeScript, MakeTask


def bash(command: str) -> dict[str, Any]:
    return {"tool_calls": [{"name": "bash", "arguments": {"command": command}}]}


@pytest.fixture
def options(make_task: "MakeTask", tmp_path: Path) -> RunOptions:
    return RunOptions(task=make_task(), model="fake/oracle", sandbox="local", runs_dir=tmp_path / "runs")


async def test_events_come_as_they_happen_and_end_with_the_result(options: RunOptions) -> None:
    async with Engine(environ={}) as engine, engine.stream(options) as run:
        events = [event async for event in run]
        result = await run.wait()
    assert isinstance(events[0], RunStarted)
    kinds = [type(event) for event in events]
    for before, after in [(TurnStarted, ModelAnswered), (ModelAnswered, ToolStarted), (ToolFinished, CheckFinished)]:
        assert kinds.index(before) < kinds.index(after)
    assert isinstance(events[-1], RunFinished)
    assert events[-1].result == result == run.result
    assert result.score == 1


async def test_a_loop_over_the_stream_itself_reads_all_of_it_or_cancels_where_it_is_left(
    options: RunOptions, make_script: "MakeScript"
) -> None:
    slow = options.model_copy(update={"model": make_script([bash("sleep 300")])})
    folder = Path()
    async with Engine(environ={}) as engine:
        events = [event async for event in engine.stream(options)]
        async for event in engine.stream(slow):
            if isinstance(event, RunStarted):
                folder = event.folder
            if isinstance(event, ToolStarted):
                break
        with pytest.raises(UsageError, match="nobody"):
            [event async for event in engine.stream(options.model_copy(update={"model": "nobody/x"}))]
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunFinished)
    assert events[-1].result.score == 1
    result = read_result(folder)
    assert result is not None
    assert (result.status, result.score) == ("cancelled", None)


async def test_output_is_seen_while_the_command_runs(options: RunOptions, make_script: "MakeScript") -> None:
    folder = Path()
    model = make_script([bash("echo early; while [ ! -e go ]; do sleep 0.01; done; touch done.txt"), {"content": "ok"}])
    async with Engine(environ={}) as engine, engine.stream(options.model_copy(update={"model": model})) as run:
        async for event in run:
            if isinstance(event, RunStarted):
                folder = event.folder
            if isinstance(event, ToolOutput):
                assert event.data == b"early\n"
                break
        assert read_result(folder) is None
        assert run.result is None
    # Left in the middle: the run was cancelled, and has cleaned up.
    result = read_result(folder)
    assert result is not None
    assert (result.status, result.score) == ("cancelled", None)


async def test_a_slow_reader_slows_nothing_and_is_told_what_it_missed(
    options: RunOptions, make_script: "MakeScript"
) -> None:
    model = make_script([bash("head -c 8000000 /dev/zero | tr '\\0' x; touch done.txt"), {"content": "ok"}])
    async with Engine(environ={}) as engine, engine.stream(options.model_copy(update={"model": model})) as run:
        result = await run.wait()  # nothing was read so far
        events = [event async for event in run]
    shown = sum(len(event.data) for event in events if isinstance(event, ToolOutput))
    dropped = sum(event.dropped_bytes for event in events if isinstance(event, OutputDropped))
    assert shown <= MOST_OUTPUT_BYTES
    assert shown + dropped == 8_000_000
    assert sum(isinstance(event, OutputDropped) for event in events) == 1
    assert isinstance(events[-1], RunFinished)
    assert result.score == 1


@pytest.mark.parametrize("calls", [["one"], ["one", "other"]], ids=["one call", "two at once"])
async def test_output_in_tiny_pieces_that_nobody_reads_takes_little_memory(calls: list[str]) -> None:
    stream = RunStream()
    pieces = 60_000

    async def run(watch: "Watcher") -> Any:
        for _ in range(pieces):
            for call in calls:
                watch(ToolOutput(call, bytes(bytearray(3))))
        return None

    tracemalloc.start()
    try:
        async with anyio.create_task_group() as group:
            await group.start(stream.drive, run)
        assert tracemalloc.get_traced_memory()[0] < 2 * MOST_OUTPUT_BYTES
    finally:
        tracemalloc.stop()
    events = [event async for event in stream]
    for call in calls:
        shown = [event for event in events if isinstance(event, ToolOutput) and event.tool_call_id == call]
        [dropped] = (event for event in events if isinstance(event, OutputDropped) and event.tool_call_id == call)
        assert 3 * len(shown) + dropped.dropped_bytes == 3 * pieces


async def test_a_reader_that_detaches_leaves_the_run_to_its_end(options: RunOptions) -> None:
    async with Engine(environ={}) as engine:
        async with engine.stream(options, on_leave="detach") as run:
            pass
        assert run.result is None
    assert run.result is not None  # closing the engine has waited for it
    assert run.result.score == 1
    assert [row.run_id for row in await rows_of(options.runs_dir)] == [run.result.run_id]


async def rows_of(runs_dir: Path) -> Any:
    from fbench.engine.records.index import query_runs

    return await query_runs(runs_dir, status="completed")


async def test_an_error_of_the_caller_cancels_what_it_had_detached(
    options: RunOptions, make_script: "MakeScript"
) -> None:
    model = make_script([bash("sleep 600")])

    async def fail() -> None:
        async with Engine(environ={}) as engine:
            async with engine.stream(options.model_copy(update={"model": model}), on_leave="detach"):
                pass
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    [folder] = (path for path in options.runs_dir.iterdir() if path.is_dir())
    result = read_result(folder)
    assert result is not None
    assert result.status == "cancelled"


async def test_a_cancelled_reader_cancels_the_run_and_sees_its_own_cancellation(
    options: RunOptions, make_script: "MakeScript"
) -> None:
    model = make_script([bash("sleep 600")])
    seen: list[Event] = []
    streams: list[RunStream] = []
    async with Engine(environ={}) as engine:
        started = time.monotonic()
        with anyio.CancelScope() as scope:
            async with engine.stream(options.model_copy(update={"model": model})) as run:
                streams.append(run)
                async for event in run:
                    seen.append(event)
                    if isinstance(event, ToolStarted):
                        scope.cancel()
        assert scope.cancelled_caught
        assert time.monotonic() - started < 300
        assert streams[0].result is None
    assert isinstance(seen[0], RunStarted)
    result = read_result(seen[0].folder)
    assert result is not None
    assert result.status == "cancelled"


async def test_cancelling_by_hand_ends_the_stream_with_the_cancelled_result(
    options: RunOptions, make_script: "MakeScript"
) -> None:
    model = make_script([bash("sleep 600")])
    async with Engine(environ={}) as engine, engine.stream(options.model_copy(update={"model": model})) as run:
        last = None
        async for event in run:
            if isinstance(event, ToolStarted):
                run.cancel()
            last = event
        assert isinstance(last, RunFinished)
        assert last.result.status == "cancelled"
        with pytest.raises(RuntimeError, match="cancelled"):
            await run.wait()


async def test_what_cannot_run_is_raised_on_entering_and_the_engine_goes_on(options: RunOptions) -> None:
    async with Engine(environ={}) as engine:
        with pytest.raises(UsageError, match="unknown provider"):
            async with engine.stream(options.model_copy(update={"model": "nobody/x"})):
                pytest.fail("there is no run")
        async with engine.stream(options) as run:
            assert (await run.wait()).score == 1


async def test_fifty_streams_at_once_each_have_their_own_events(options: RunOptions) -> None:
    ended: list[str] = []

    async def watch(engine: Engine) -> None:
        async with engine.stream(options) as run:
            ids = {event.run_id for event in [event async for event in run] if isinstance(event, RunStarted)}
            result = await run.wait()
            assert ids == {result.run_id}
            ended.append(result.run_id)

    async with Engine(environ={}) as engine, anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(watch, engine)
    assert len(set(ended)) == 50
