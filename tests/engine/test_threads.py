"""Blocking work off the loop: one short job at a time, the oldest run's first, and what is done on the loop itself."""

import asyncio
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from fbench.engine import threads
from fbench.engine.threads import Once, in_thread, run_to_its_end, wait_for_disk, younger_than_all


@pytest.fixture(autouse=True)
def unknown_kinds() -> Iterator[None]:
    threads._usual_s.clear()
    yield
    threads._usual_s.clear()


async def test_short_jobs_come_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "SHORT_S", 30.0)
    lock = threading.Lock()
    at_once: list[bool] = []

    def job() -> None:
        at_once.append(not lock.acquire(blocking=False))
        time.sleep(0.01)
        lock.release()

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(in_thread, job)
    assert at_once == [False] * 10


async def come_through(release: threading.Event) -> None:
    """That a job is done while those begun before it wait for `release`, which they get afterwards."""
    await anyio.lowlevel.checkpoint()
    try:
        with anyio.fail_after(10):
            assert await in_thread(lambda: "came through") == "came through"
    finally:
        release.set()


async def test_a_long_job_is_not_waited_for() -> None:
    release = threading.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(in_thread, lambda: release.wait(30))
        await come_through(release)


async def test_what_began_first_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "SHORT_S", 30.0)
    done: list[str] = []
    release = threading.Event()
    ready = 0

    async def run(name: str, gate: anyio.Event) -> None:
        nonlocal ready
        with younger_than_all():
            ready += 1
            await gate.wait()
            for step in range(2):
                await in_thread(partial(done.append, f"{name}{step}"))

    gates = [anyio.Event(), anyio.Event(), anyio.Event()]
    async with anyio.create_task_group() as group:
        for name, gate in zip("abc", gates, strict=True):
            group.start_soon(run, name, gate)
        while ready < 3:
            await anyio.lowlevel.checkpoint()
        group.start_soon(in_thread, lambda: release.wait(30))
        await anyio.lowlevel.checkpoint()
        for gate in reversed(gates):
            gate.set()
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        release.set()
    assert done == ["a0", "a1", "b0", "b1", "c0", "c1"]


async def test_a_cancelled_one_gives_its_turn_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "SHORT_S", 30.0)
    release = threading.Event()
    done: list[str] = []
    async with anyio.create_task_group() as group:
        group.start_soon(in_thread, lambda: release.wait(30))
        await anyio.lowlevel.checkpoint()
        waiting = anyio.CancelScope()

        async def give_up() -> None:
            with waiting:
                await in_thread(lambda: done.append("the cancelled one"))

        group.start_soon(give_up)
        group.start_soon(in_thread, lambda: done.append("the next"))
        await anyio.wait_all_tasks_blocked()
        waiting.cancel()
        release.set()
    assert done == ["the next"]
    with anyio.fail_after(10):
        assert await in_thread(lambda: "free again") == "free again"


async def test_what_a_job_raises_comes_out_and_the_next_is_let_in() -> None:
    def fail() -> None:
        raise OSError(28, "no space")

    for kind in (None, "a kind", "a kind", "a kind"):
        with pytest.raises(OSError, match="no space"):
            await in_thread(fail, kind=kind)
    with anyio.fail_after(10):
        assert await in_thread(lambda: 7) == 7


async def test_a_kind_that_takes_no_time_is_done_on_the_loop() -> None:
    here = threading.get_ident()
    threads._usual_s["quick"] = threads.INLINE_S / 2
    assert await in_thread(threading.get_ident, kind="quick") == here
    assert await in_thread(threading.get_ident) != here
    assert await in_thread(threading.get_ident, kind="never seen") != here


async def test_what_is_known_to_be_little_is_done_on_the_loop() -> None:
    here = threading.get_ident()
    assert await in_thread(threading.get_ident, is_little=True) == here
    assert await in_thread(threading.get_ident) != here


async def test_who_waits_for_the_disk_keeps_nobody_from_the_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "SHORT_S", 30.0)
    release = threading.Event()
    async with anyio.create_task_group() as group:
        for _ in range(threads.DISK_WAITERS + 1):
            group.start_soon(wait_for_disk, lambda: release.wait(30))
        await come_through(release)


async def test_a_job_for_all_is_done_once_and_tried_again_after_a_failure() -> None:
    done: list[int] = []
    failures = [OSError(28, "no space")]

    def job() -> None:
        time.sleep(0.01)
        if failures:
            raise failures.pop()
        done.append(threading.get_ident())

    once = Once(job)
    with pytest.raises(OSError, match="no space"):
        await once.done()
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(once.done)
    await once.done()
    assert len(done) == 1


async def test_a_kind_becomes_slow_and_leaves_the_loop() -> None:
    here = threading.get_ident()
    threads._usual_s["disk"] = threads.INLINE_S / 2

    def slow() -> int:
        time.sleep(threads.INLINE_S * 10)
        return threading.get_ident()

    assert await in_thread(slow, kind="disk") == here
    assert await in_thread(slow, kind="disk") != here


async def test_the_loop_turns_between_jobs_that_are_done_on_it() -> None:
    threads._usual_s["quick"] = 0.0
    turns = 0
    seen: list[int] = []

    def count() -> None:
        nonlocal turns
        turns += 1
        if len(seen) < 20:
            loop.call_soon(count)

    loop = asyncio.get_running_loop()
    loop.call_soon(count)
    async with anyio.create_task_group() as group:
        for _ in range(20):

            async def job() -> None:
                await in_thread(lambda: seen.append(turns), kind="quick")

            group.start_soon(job)
    assert len(set(seen)) == 20, seen


async def test_a_cancelled_caller_gets_what_was_made(tmp_path: Path) -> None:
    release = threading.Event()
    made: list[str] = []

    def make() -> str:
        release.wait(30)
        return "made"

    async with anyio.create_task_group() as group:

        async def caller() -> None:
            made.append(await run_to_its_end(make))
            await anyio.sleep_forever()

        group.start_soon(caller)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
        release.set()
    assert made == ["made"]
