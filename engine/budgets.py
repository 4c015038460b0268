"""A budget is a cancel scope with a meter.

What runs inside `Budget.scope()` ends at the first breach, whatever it awaits: a model's answer, a command's output.
The reason is set once, before the scope is cancelled; whoever opened the scope reads `kill_reason`, never
`cancelled_caught`. A cap of N allows N: the breach is the request for one more, which is not carried out.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Literal, NoReturn, Protocol, runtime_checkable

import anyio

if TYPE_CHECKING:
    from fbench.engine.seams import TokenEstimate

MOST_OUTPUT = 10**9
"""Tokens no answer has."""

Cap = Literal["tokens", "tool_calls", "wall_time", "cost", "turns", "suite_cost"]


class PricesCalls(Protocol):
    """What a call costs, in dollars for disjoint token counts; `fbench.pricing.rates.Price` is one."""

    def cost_usd(self, *, input: int, cache_read: int, cache_write: int, output: int) -> Decimal: ...  # noqa: A002 - the contract's word


@runtime_checkable
class PricesByTime(PricesCalls, Protocol):
    """Prices that depend on when a call starts; `fbench.pricing.table.PricedModel` is one."""

    def price_at(self, moment: datetime) -> PricesCalls: ...


def price_at(price: PricesCalls, moment: datetime) -> PricesCalls:
    """What a call costs that starts at `moment` (aware)."""
    return price.price_at(moment) if isinstance(price, PricesByTime) else price


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """Caps of one run; None means none. `wall_time_s` counts from `Budget.scope()` on, pauses left out."""

    tokens: int | None = None
    tool_calls: int | None = None
    wall_time_s: float | None = None
    cost_usd: Decimal | None = None
    turns: int | None = None


class Budget:
    """The meter of one run and the scope a breach cancels. For one task at a time, on one event loop."""

    def __init__(self, limits: BudgetLimits, *, on_breach: Callable[[str], None] | None = None) -> None:
        self.limits = limits
        self.kill_reason: str | None = None
        self.tokens = 0
        self.cost_usd = Decimal(0)
        self.turns = 0
        self.tool_calls = 0
        self._on_breach = on_breach
        self._scope = anyio.CancelScope()
        self._timer: asyncio.TimerHandle | None = None
        self._used_s = 0.0
        self._running_since: float | None = None
        self._pauses = 0

    @contextmanager
    def scope(self) -> Iterator[None]:
        """What runs inside is cancelled at the first breach. The wall clock starts here; may be entered once."""
        with self._scope:
            self._resume_clock()
            try:
                yield
            finally:
                self._stop_clock()

    def breach(self, cap: Cap) -> None:
        """Record `budget_exceeded:<cap>` and cancel what runs in the scope; only the first breach counts."""
        if self.kill_reason is None:
            self.kill_reason = f"budget_exceeded:{cap}"
            self._scope.cancel(self.kill_reason)  # first: nothing that goes wrong in telling of it keeps the run going
            if self._on_breach is not None:
                self._on_breach(self.kill_reason)

    async def start_turn(self) -> None:
        """Ask for one more turn."""
        if self.limits.turns is not None and self.turns >= self.limits.turns:
            await self.end("turns")

    async def start_tool_call(self) -> None:
        """Ask for one more tool call and count it."""
        if self.limits.tool_calls is not None and self.tool_calls >= self.limits.tool_calls:
            await self.end("tool_calls")
        self.tool_calls += 1

    async def fit_model_call(self, estimate: "TokenEstimate", max_output_tokens: int, price: PricesCalls | None) -> int:
        """The output tokens the next call may take, at most `max_output_tokens`.

        A call whose estimated input and smallest useful output do not fit what is left of tokens or dollars is a
        breach and is not made.
        """
        allowed = max_output_tokens
        least = max(estimate.min_output, 0)
        if self.limits.tokens is not None:
            left = self.limits.tokens - self.tokens - estimate.input
            if left < least:
                await self.end("tokens")
            allowed = min(allowed, left)
        if self.limits.cost_usd is not None and price is not None:
            price = price_at(price, datetime.now(UTC))  # once: its parts must not fall on two sides of a change
            affordable = output_within(price, estimate.input, self.limits.cost_usd - self.cost_usd, least)
            if affordable is None:
                await self.end("cost")
            allowed = min(allowed, affordable)
        return max(allowed, 1)

    async def settle_model_call(self, tokens: int, cost_usd: Decimal | None) -> None:
        """Count an answer that has been paid for; one that took more than was left is a breach."""
        self.turns += 1
        self.tokens += tokens
        self.cost_usd += cost_usd or 0
        if self.limits.tokens is not None and self.tokens > self.limits.tokens:
            await self.end("tokens")
        if self.limits.cost_usd is not None and self.cost_usd > self.limits.cost_usd:
            await self.end("cost")

    def remaining_s(self) -> float | None:
        """Seconds of wall time left, never negative; None without such a cap."""
        return None if self.limits.wall_time_s is None else max(0.0, self.limits.wall_time_s - self.used_s())

    def used_s(self) -> float:
        """Seconds of wall time used so far, pauses left out."""
        running = 0.0 if self._running_since is None else time.monotonic() - self._running_since
        return self._used_s + running

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the wall clock while the run waits for somebody else: a slot, a server that asked for patience."""
        self._pauses += 1
        self._stop_clock()
        try:
            yield
        finally:
            self._pauses -= 1
            if self._pauses == 0:
                self._resume_clock()

    async def end(self, cap: Cap) -> NoReturn:
        """Record a breach and wait for its cancellation, which comes at once."""
        self.breach(cap)
        await anyio.sleep_forever()
        raise AssertionError  # the scope has been cancelled: the line above never returns

    def _resume_clock(self) -> None:
        self._running_since = time.monotonic()
        if (left := self.remaining_s()) is not None:
            self._timer = asyncio.get_running_loop().call_later(left, self.breach, "wall_time")

    def _stop_clock(self) -> None:
        self._used_s = self.used_s()
        self._running_since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def affordable_output(price: PricesCalls, input_tokens: int, left_usd: Decimal) -> int:
    """How many output tokens `left_usd` pay for, its input being paid; a free output has no end but MOST_OUTPUT."""
    # Beside its own input: a long one may raise the price of the output too.
    per_token = (call_cost(price, input_tokens, 1_000_000) - call_cost(price, input_tokens, 0)) / 1_000_000
    if per_token <= 0:
        return MOST_OUTPUT
    return min(MOST_OUTPUT, int((left_usd / per_token).to_integral_value(ROUND_FLOOR)))


def output_within(price: PricesCalls, input_tokens: int, left_usd: Decimal, least: int) -> int | None:
    """How many output tokens `left_usd` pay for beside the input; None where those are fewer than `least`."""
    left_usd -= most_cost(price, input_tokens, 0)
    affordable = affordable_output(price, input_tokens, left_usd)
    return None if left_usd < 0 or affordable < least else affordable


def call_cost(price: PricesCalls, input_tokens: int, output_tokens: int) -> Decimal:
    """Dollars of a call with no cached input."""
    return price.cost_usd(input=input_tokens, cache_read=0, cache_write=0, output=output_tokens)


def most_cost(price: PricesCalls, input_tokens: int, output_tokens: int) -> Decimal:
    """Dollars of a call whose input may all be new to the provider's cache, which some charge more for."""
    written = price.cost_usd(input=0, cache_read=0, cache_write=input_tokens, output=output_tokens)
    return max(call_cost(price, input_tokens, output_tokens), written)
