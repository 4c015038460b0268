"""What stands between a call and its being sent: a slot of the endpoint, dollars for its worst case, and patience.

Both are taken for each attempt and given back after it, so that a call which backs off holds up nobody. Waiting here
costs the call's patience and no wall time of the agent.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

import anyio

from fbench.engine.budgets import PricesCalls, affordable_output, most_cost, price_at
from fbench.engine.errors import ModelUnavailable
from fbench.engine.seams import Model, ModelRequest, TokenEstimate, Usage

if TYPE_CHECKING:
    from fbench.engine.models.limits import EndpointLimiter, Slot
    from fbench.engine.purse import Purse

NOTICE_AFTER_S = 1.0
"""A wait of this length is told while it lasts."""
SHORTEST_WAIT_S = 0.05
"""Of a wait that is written down; shorter ones are the loop's own."""

_PURSE_IS_HELD = "other calls of the suite hold what is left of its dollars"


class Place(NamedTuple):
    """Which attempt of which call it is, and when the call began (monotonic, seconds)."""

    turn: int
    try_: int
    begun: float


@dataclass(frozen=True, slots=True)
class WaitNotice:
    """A call that waits, or has waited, to be sent."""

    turn: int
    try_: int
    why: str
    waited_s: float


@dataclass(frozen=True, slots=True)
class Spending:
    """A purse shared with other runs, and what this model's calls cost."""

    purse: "Purse"
    price: PricesCalls


@dataclass(slots=True)
class Admission:
    """Leave to send `request`, which has as many output tokens as its dollars pay for."""

    request: ModelRequest
    slot: "Slot | None" = None
    cost_usd: Decimal = Decimal(0)

    def answered(self, usage: Usage, cost_usd: Decimal | None) -> None:
        """The attempt was answered."""
        self.cost_usd = cost_usd or Decimal(0)
        if self.slot is not None:
            self.slot.answered(usage.input + usage.cache_read + usage.cache_write + usage.output)

    def failed(self, http_status: int | None, retry_after_s: float | None) -> None:
        """The attempt came to nothing."""
        if self.slot is not None:
            self.slot.failed(http_status, retry_after_s)


class Gate:
    """Admits the calls of one model for one run; see ModelCaller for the arguments."""

    def __init__(
        self,
        model: Model,
        *,
        limiter: "EndpointLimiter | None",
        spending: Spending | None,
        max_wait_s: float | None,
        waiting: Callable[[], AbstractContextManager[None]],
        on_wait: Callable[[WaitNotice], None],
        on_waited: Callable[[WaitNotice], None],
    ) -> None:
        self._model = model
        self._limiter = limiter
        self._spending = spending
        self._max_wait_s = max_wait_s
        self._waiting = waiting
        self._on_wait = on_wait
        self._on_waited = on_waited

    @asynccontextmanager
    async def admit(self, request: ModelRequest, place: Place) -> AsyncIterator[Admission]:
        """Leave to make one attempt, while the context lasts.

        Raises:
            ModelUnavailable: it was not admitted within the patience.
            PurseEmpty: the purse does not pay for it.
        """
        admission = Admission(request)
        if self._limiter is None and self._spending is None:
            yield admission
            return
        estimate = self._model.estimate(request)
        try:
            if self._limiter is not None:
                admission.slot = await self._take_slot(self._limiter, estimate.input + request.max_output_tokens, place)
            if self._spending is None:
                yield admission
                return
            purse = self._spending.purse
            reserved_usd = await self._reserve(self._spending, estimate, admission, place)
            try:
                yield admission
            finally:
                await purse.settle(reserved_usd, admission.cost_usd)
        finally:
            if admission.slot is not None:
                admission.slot.release()

    async def _take_slot(self, limiter: "EndpointLimiter", tokens: int, place: Place) -> "Slot":
        if (slot := limiter.take(tokens)) is not None:
            return slot
        async with self._wait(place, limiter.why_waiting):
            return await limiter.wait(tokens)

    async def _reserve(
        self, spending: Spending, estimate: TokenEstimate, admission: Admission, place: Place
    ) -> Decimal:
        """Dollars for the worst case of the request, whose output is lowered to what they pay for."""
        price, request = price_at(spending.price, datetime.now(UTC)), admission.request
        input_tokens = estimate.input if estimate.input_at_most is None else estimate.input_at_most
        most_usd = most_cost(price, input_tokens, request.max_output_tokens)
        least_usd = most_cost(price, input_tokens, max(estimate.min_output, 1))
        async with self._wait(place, lambda: _PURSE_IS_HELD):
            reserved_usd = await spending.purse.reserve(most_usd, least_usd)
        if reserved_usd < most_usd:
            left_usd = reserved_usd - most_cost(price, input_tokens, 0)
            allowed = min(request.max_output_tokens, affordable_output(price, input_tokens, left_usd))
            admission.request = replace(request, max_output_tokens=allowed)
        return reserved_usd

    @asynccontextmanager
    async def _wait(self, place: Place, why: Callable[[], str]) -> AsyncIterator[None]:
        """What is waited for inside costs patience and no wall time."""
        started = time.monotonic()
        left_s = math.inf if self._max_wait_s is None else max(0.0, self._max_wait_s - (started - place.begun))
        reason = why()

        def tell(notice: Callable[[WaitNotice], None]) -> None:
            notice(WaitNotice(place.turn, place.try_, reason, round(time.monotonic() - started, 3)))

        telling = asyncio.get_running_loop().call_later(NOTICE_AFTER_S, tell, self._on_wait)
        try:
            with self._waiting(), anyio.move_on_after(left_s) as patience:
                yield
        finally:
            telling.cancel()
            if time.monotonic() - started >= SHORTEST_WAIT_S:
                tell(self._on_waited)
        if patience.cancelled_caught:
            msg = (
                f"{self._model.name} could not be asked within {self._max_wait_s:g} s: {why()}. Lower the concurrency, "
                f"or allow more waiting with --max-model-wait."
            )
            raise ModelUnavailable(msg)
