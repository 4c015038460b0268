"""A budget is a cancel scope with a meter."""

import time
from decimal import Decimal

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbench.engine.budgets import Budget, BudgetLimits
from fbench.engine.seams import TokenEstimate

UNUSABLY_LONG_S = 60.0


class DearerWhenLong:
    """$10 a million tokens, $40 for a call whose input is longer than 100."""

    def cost_usd(self, *, input: int, cache_read: int, cache_write: int, output: int) -> Decimal:  # noqa: A002
        rate = 40 if input + cache_read + cache_write > 100 else 10
        return Decimal(input + cache_read + cache_write + output) * rate / 1_000_000


class TenPerMillion:
    """$10 a million tokens, in and out."""

    def cost_usd(self, *, input: int, cache_read: int, cache_write: int, output: int) -> Decimal:  # noqa: A002
        return Decimal(input + cache_read + cache_write + output) * 10 / 1_000_000


async def test_a_wall_time_breach_ends_what_is_awaited() -> None:
    budget = Budget(BudgetLimits(wall_time_s=0.05))
    started = time.monotonic()
    with budget.scope():
        await anyio.sleep(UNUSABLY_LONG_S)
    assert budget.kill_reason == "budget_exceeded:wall_time"
    assert time.monotonic() - started < UNUSABLY_LONG_S / 2


async def test_a_breach_that_cannot_be_told_still_ends_what_is_awaited() -> None:
    def refuse(_reason: str) -> None:
        raise OSError(28, "No space left on device")

    budget = Budget(BudgetLimits(turns=0), on_breach=refuse)
    with pytest.raises(OSError, match="No space"), budget.scope():
        await budget.start_turn()
    budget = Budget(BudgetLimits(), on_breach=refuse)
    with budget.scope():
        with pytest.raises(OSError, match="No space"):
            budget.breach("suite_cost")
        await anyio.sleep(UNUSABLY_LONG_S)
        pytest.fail("the breach did not end what ran in the scope")


async def test_a_pause_does_not_use_wall_time() -> None:
    budget = Budget(BudgetLimits(wall_time_s=0.2))
    with budget.scope():
        with budget.paused():
            await anyio.sleep(0.4)
        remaining = budget.remaining_s()
    assert budget.kill_reason is None
    assert remaining is not None
    assert remaining > 0.05


async def test_the_clock_goes_on_after_a_pause() -> None:
    budget = Budget(BudgetLimits(wall_time_s=0.1))
    with budget.scope():
        with budget.paused(), budget.paused():
            await anyio.sleep(0.01)
        await anyio.sleep(UNUSABLY_LONG_S)
    assert budget.kill_reason == "budget_exceeded:wall_time"


async def test_a_cap_of_n_allows_n_tool_calls() -> None:
    budget = Budget(BudgetLimits(tool_calls=2))
    with budget.scope():
        await budget.start_tool_call()
        await budget.start_tool_call()
        assert budget.kill_reason is None
        await budget.start_tool_call()
        pytest.fail("the third call must not be made")
    assert budget.kill_reason == "budget_exceeded:tool_calls"
    assert budget.tool_calls == 2


async def test_a_cap_of_n_allows_n_turns() -> None:
    budget = Budget(BudgetLimits(turns=1))
    with budget.scope():
        await budget.start_turn()
        await budget.settle_model_call(10, None)
        await budget.start_turn()
        pytest.fail("the second turn must not begin")
    assert budget.kill_reason == "budget_exceeded:turns"


async def test_output_is_lowered_to_the_tokens_left() -> None:
    budget = Budget(BudgetLimits(tokens=100))
    with budget.scope():
        assert await budget.fit_model_call(TokenEstimate(40), 4096, None) == 60
    assert budget.kill_reason is None


async def test_a_call_that_cannot_fit_the_tokens_left_is_not_made() -> None:
    budget = Budget(BudgetLimits(tokens=100))
    with budget.scope():
        await budget.settle_model_call(70, None)
        await budget.fit_model_call(TokenEstimate(30), 4096, None)
        pytest.fail("no token is left for an answer")
    assert budget.kill_reason == "budget_exceeded:tokens"


async def test_exactly_the_cap_is_allowed() -> None:
    budget = Budget(BudgetLimits(tokens=100, cost_usd=Decimal("0.001")))
    with budget.scope():
        await budget.settle_model_call(100, Decimal("0.001"))
    assert budget.kill_reason is None


async def test_an_answer_that_took_more_than_was_left_is_a_breach() -> None:
    budget = Budget(BudgetLimits(tokens=100))
    with budget.scope():
        await budget.settle_model_call(101, None)
        pytest.fail("the run must end here")
    assert budget.kill_reason == "budget_exceeded:tokens"
    assert budget.tokens == 101


async def test_output_is_lowered_to_the_dollars_left() -> None:
    budget = Budget(BudgetLimits(cost_usd=Decimal("0.01")))  # 1,000 tokens
    with budget.scope():
        assert await budget.fit_model_call(TokenEstimate(400), 4096, TenPerMillion()) == 600
        await budget.fit_model_call(TokenEstimate(1000), 4096, TenPerMillion())
        pytest.fail("no dollar is left for an answer")
    assert budget.kill_reason == "budget_exceeded:cost"


async def test_output_beside_a_long_input_is_priced_as_such() -> None:
    budget = Budget(BudgetLimits(cost_usd=Decimal("0.01")))  # 250 tokens, if the input is long
    with budget.scope():
        assert await budget.fit_model_call(TokenEstimate(150), 4096, DearerWhenLong()) == 100
    assert budget.kill_reason is None


async def test_the_first_breach_is_the_recorded_one() -> None:
    told: list[str] = []
    budget = Budget(BudgetLimits(), on_breach=told.append)
    with budget.scope():
        budget.breach("cost")
        budget.breach("wall_time")
        await anyio.sleep(UNUSABLY_LONG_S)
    assert budget.kill_reason == "budget_exceeded:cost"
    assert told == ["budget_exceeded:cost"]


async def test_a_cancelled_caller_is_no_breach() -> None:
    budget = Budget(BudgetLimits(wall_time_s=UNUSABLY_LONG_S))
    with anyio.CancelScope() as outer, budget.scope():
        outer.cancel()
        await anyio.sleep(UNUSABLY_LONG_S)
    assert budget.kill_reason is None
    assert outer.cancelled_caught


async def test_two_budgets_in_one_loop_do_not_meet() -> None:
    short, long = Budget(BudgetLimits(wall_time_s=0.05)), Budget(BudgetLimits(wall_time_s=UNUSABLY_LONG_S))

    async def spend(budget: Budget, seconds: float) -> None:
        with budget.scope():
            await anyio.sleep(seconds)

    async with anyio.create_task_group() as group:
        group.start_soon(spend, short, UNUSABLY_LONG_S)
        group.start_soon(spend, long, 0.2)
    assert short.kill_reason == "budget_exceeded:wall_time"
    assert long.kill_reason is None


@given(
    cap=st.integers(0, 5000),
    calls=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=20),
)
def test_a_model_that_keeps_to_its_estimate_never_passes_the_cap(cap: int, calls: list[tuple[int, int]]) -> None:
    async def spend() -> int:
        budget = Budget(BudgetLimits(tokens=cap))
        with budget.scope():
            for input_tokens, wanted in calls:
                allowed = await budget.fit_model_call(TokenEstimate(input_tokens), 4096, None)
                await budget.settle_model_call(input_tokens + min(wanted, allowed), None)
        return budget.tokens

    assert anyio.run(spend) <= cap
