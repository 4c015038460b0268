"""A purse that many runs spend from at once."""

import random
from decimal import Decimal

import anyio
import pytest

from fbench.engine.purse import Purse, PurseEmpty


@pytest.mark.parametrize("seed", range(20))
async def test_fifty_spenders_at_once_never_pass_the_cap(seed: int) -> None:
    purse = Purse(Decimal(10))
    dice = random.Random(seed)
    ended = 0

    async def spend(number: int) -> None:
        nonlocal ended
        mine = random.Random(f"{seed}-{number}")
        while True:
            most_usd = Decimal(mine.randint(1, 100)) / 100
            try:
                reserved_usd = await purse.reserve(most_usd, Decimal("0.01"))
            except PurseEmpty:
                ended += 1
                return
            assert purse.spent_usd + purse.reserved_usd <= purse.cap_usd
            assert 0 < reserved_usd <= most_usd
            try:
                await anyio.sleep(mine.choice([0, 0.001]))
            finally:
                await purse.settle(reserved_usd, reserved_usd * mine.randint(0, 100) / 100)

    async with anyio.create_task_group() as group:
        for number in dice.sample(range(50), 50):
            group.start_soon(spend, number)
    assert ended == 50
    assert purse.reserved_usd == 0
    assert purse.cap_usd - Decimal("0.01") < purse.spent_usd <= purse.cap_usd


async def test_a_call_that_does_not_fit_waits_for_what_others_give_back() -> None:
    purse = Purse(Decimal(1))
    held = await purse.reserve(Decimal("0.9"), Decimal("0.1"))
    got: list[Decimal] = []

    async def wait() -> None:
        got.append(await purse.reserve(Decimal("0.5"), Decimal("0.1")))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert got == []
        await purse.settle(held, Decimal("0.2"))
    assert got == [Decimal("0.5")]


async def test_the_last_call_gets_what_is_left() -> None:
    purse = Purse(Decimal(1), spent_usd=Decimal("0.7"))
    assert await purse.reserve(Decimal("0.5"), Decimal("0.1")) == Decimal("0.3")


async def test_what_does_not_pay_for_the_least_is_refused_at_once_even_while_others_hold_some() -> None:
    purse = Purse(Decimal(1), spent_usd=Decimal("0.7"))
    await purse.reserve(Decimal("0.2"), Decimal("0.1"))
    with pytest.raises(PurseEmpty, match="too little"):
        await purse.reserve(Decimal("0.5"), Decimal("0.4"))


async def test_a_cancelled_wait_holds_nothing() -> None:
    purse = Purse(Decimal(1))
    held = await purse.reserve(Decimal(1), Decimal(1))
    with anyio.move_on_after(0.01):
        await purse.reserve(Decimal(1), Decimal("0.5"))
    await purse.settle(held, Decimal(0))
    assert purse.reserved_usd == purse.spent_usd == 0


async def test_a_call_that_cost_more_than_was_reserved_counts_in_full() -> None:
    purse = Purse(Decimal(1))
    await purse.settle(await purse.reserve(Decimal("0.1"), Decimal("0.1")), Decimal(3))
    with pytest.raises(PurseEmpty):
        await purse.reserve(Decimal("0.1"), Decimal("0.01"))
