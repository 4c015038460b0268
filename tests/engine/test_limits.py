"""The limiter of an endpoint: how many calls at once, in which order, and what makes it wait."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest

from fbench.engine import Engine
from fbench.engine.models import limits
from fbench.engine.models.limits import EndpointLimiter, EndpointRates, Slot
from fbench.engine.models.names import ModelSpec


def taken(limiter: EndpointLimiter, count: int, tokens: int = 10) -> list[Slot]:
    slots = [limiter.take(tokens) for _ in range(count)]
    assert None not in slots
    return [slot for slot in slots if slot is not None]


@contextmanager
def minute_of(seconds: float, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(limits, "MINUTE_S", seconds)
    yield


async def test_as_many_calls_go_at_once_as_the_limit_says() -> None:
    limiter = EndpointLimiter()
    taken(limiter, int(limits.START_CONCURRENCY))
    assert limiter.take(1) is None
    assert "calls are in flight" in limiter.why_waiting()


async def test_the_limit_grows_while_the_server_answers_at_the_limit() -> None:
    limiter = EndpointLimiter()
    for _ in range(10):  # each round by half or more, until the first refusal
        slots = taken(limiter, int(limiter.concurrency))
        for slot in slots:
            slot.answered(10)
        for slot in slots:
            slot.release()
    assert limiter.concurrency == limits.MOST_CONCURRENCY


async def test_an_unused_limit_does_not_grow() -> None:
    limiter = EndpointLimiter()
    for _ in range(100):
        (slot,) = taken(limiter, 1)
        slot.answered(10)
        slot.release()
    assert limiter.concurrency == limits.START_CONCURRENCY


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_a_round_of_refusals_halves_the_limit_once(status: int) -> None:
    limiter = EndpointLimiter()
    slots = taken(limiter, 32)
    for slot in slots:
        slot.failed(status, None)
        slot.release()
    assert limiter.concurrency == 16
    later = taken(limiter, 8)
    later[0].failed(status, None)
    assert limiter.concurrency == 4  # half of what was in flight, not of a limit that nobody used


@pytest.mark.parametrize("status", [None, 400, 401, 500, 502])
async def test_other_failures_say_nothing_of_capacity(status: int | None) -> None:
    limiter = EndpointLimiter()
    (slot,) = taken(limiter, 1)
    slot.failed(status, 30.0)
    slot.release()
    assert limiter.concurrency == limits.START_CONCURRENCY
    assert limiter.take(1) is not None


async def test_the_limit_never_falls_below_one_and_grows_again() -> None:
    limiter = EndpointLimiter()
    for _ in range(10):
        (slot,) = taken(limiter, 1)
        slot.failed(429, None)
        slot.release()
    assert limiter.concurrency == 1.0
    for _ in range(10):
        for slot in taken(limiter, int(limiter.concurrency)):
            slot.answered(10)
            slot.release()
    assert limiter.concurrency > 2.0


async def test_a_pause_the_server_asks_for_holds_every_call() -> None:
    limiter = EndpointLimiter()
    (slot,) = taken(limiter, 1)
    slot.failed(429, 0.2)
    slot.release()
    started = time.monotonic()
    assert limiter.take(1) is None
    assert "asked for a pause" in limiter.why_waiting()

    async def call() -> None:
        (await limiter.wait(1)).release()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(call)
    assert time.monotonic() - started >= 0.2


async def test_a_pause_of_the_whole_endpoint_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LONGEST_PAUSE_S", 0.1)
    limiter = EndpointLimiter()
    (slot,) = taken(limiter, 1)
    slot.failed(429, 1e9)
    slot.release()
    with anyio.fail_after(30):
        await limiter.wait(1)


async def test_calls_go_in_the_order_they_came_and_a_cancelled_one_leaves_its_place() -> None:
    limiter = EndpointLimiter(EndpointRates(max_concurrency=1))
    (first,) = taken(limiter, 1)
    order: list[int] = []
    scopes = [anyio.CancelScope() for _ in range(4)]

    async def call(number: int) -> None:
        with scopes[number]:
            slot = await limiter.wait(1)
            order.append(number)
            slot.release()

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(call, number)
            await anyio.wait_all_tasks_blocked()
        assert limiter.waiting == 4
        scopes[1].cancel()
        await anyio.wait_all_tasks_blocked()
        first.release()
    assert order == [0, 2, 3]
    assert (limiter.in_flight, limiter.waiting) == (0, 0)


async def test_a_call_cancelled_as_it_is_let_through_gives_its_slot_back() -> None:
    limiter = EndpointLimiter(EndpointRates(max_concurrency=1))
    (first,) = taken(limiter, 1)
    scope = anyio.CancelScope()

    async def call() -> None:
        with scope:
            await limiter.wait(1)

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        first.release()
        scope.cancel()
    assert limiter.in_flight <= 1
    if scope.cancelled_caught:
        assert limiter.in_flight == 0


async def test_no_minute_holds_more_requests_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    with minute_of(0.3, monkeypatch):
        limiter = EndpointLimiter(EndpointRates(requests_per_minute=5))
        sent: list[float] = []

        async def call() -> None:
            slot = await limiter.wait(1)
            sent.append(slot.sent_at)
            slot.answered(1)
            slot.release()

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for _ in range(17):
                    group.start_soon(call)
    assert len(sent) == 17
    assert all(later - earlier >= 0.3 for earlier, later in zip(sent, sent[5:], strict=False))


async def test_no_minute_holds_more_tokens_than_allowed_as_far_as_they_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with minute_of(0.3, monkeypatch):
        limiter = EndpointLimiter(EndpointRates(tokens_per_minute=100))
        (cheap,) = taken(limiter, 1, tokens=90)
        assert limiter.take(20) is None
        assert "rate per minute" in limiter.why_waiting()
        cheap.answered(10)  # it took less than was reserved for it
        assert limiter.take(20) is not None
        started = time.monotonic()
        with anyio.fail_after(30):
            await limiter.wait(1000)  # larger than a whole minute: goes when nothing else does
        assert time.monotonic() - started >= 0.2


async def test_several_runs_with_different_rates_hold_the_smaller() -> None:
    limiter = EndpointLimiter(EndpointRates(max_concurrency=3).tightened(EndpointRates(max_concurrency=2)))
    taken(limiter, 2)
    assert limiter.take(1) is None


async def test_limiters_that_nobody_uses_are_let_go_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fbench.engine.engine.MOST_LIMITERS", 3)
    engine = Engine(environ={})
    specs = [ModelSpec("openai/m", "http://127.0.0.1:1/v1", f"key-{number}") for number in range(20)]
    first = engine._limiter(specs[0])
    slot = first.take(10)
    assert slot is not None
    for spec in specs[1:]:
        engine._limiter(spec)
    assert len(engine._limiters) <= 4
    assert engine._limiter(specs[0]) is first
    slot.release()
    for spec in specs[1:6]:
        engine._limiter(spec)
    assert engine._limiter(specs[0]) is not first
