"""How much of one endpoint an Engine uses at once: adaptive concurrency, pauses the server asks for, rates per minute.

One limiter serves all runs that call the same address with the same key. Calls are let through in the order they
came. How many may be in flight grows while the server answers and is halved when it says that it has had enough
(additive increase, multiplicative decrease, as TCP does it: Chiu and Jain 1989), at most once for the calls of one
round, since those were sent before the first refusal was known.
"""

import asyncio
import math
import time
from collections import deque
from dataclasses import dataclass, fields

import anyio

REFUSALS = frozenset({429, 503, 529})
"""Statuses that say "too much at once": too many requests, unavailable, and Anthropic's "overloaded"."""
START_CONCURRENCY = 256.0
"""Calls in flight before anything is known of the server; doubled each round until the first refusal. As many as people
run at once: who asks for 200 runs means it, a server that minds says so at the first round, and with a lower start all
that do not mind would be waited for round by round."""
MOST_CONCURRENCY = 1000
"""Calls in flight at most: no server is known that answers more of one client at once."""
LONGEST_PAUSE_S = 60.0
"""Of the whole endpoint for one Retry-After; the call that was told waits as long as it was told."""
MINUTE_S = 60.5
"""Half a second more than the server's minute, since calls do not arrive at even distances."""


@dataclass(frozen=True, slots=True)
class EndpointRates:
    """What an endpoint is known to allow; None is unknown. Tokens are input and output together."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None

    def tightened(self, other: "EndpointRates") -> "EndpointRates":
        """The smaller of each.

        >>> EndpointRates(60, None, 8).tightened(EndpointRates(30, 1000, None))
        EndpointRates(requests_per_minute=30, tokens_per_minute=1000, max_concurrency=8)
        """
        pairs = ((getattr(self, item.name), getattr(other, item.name)) for item in fields(EndpointRates))
        return EndpointRates(*(min((value for value in pair if value is not None), default=None) for pair in pairs))


class Slot:
    """Leave to make one call. Give it back with `release`, whatever became of the call."""

    __slots__ = ("_limiter", "_released", "granted", "is_counted", "sent_at", "tokens")

    def __init__(self, limiter: "EndpointLimiter", tokens: int) -> None:
        self.tokens = tokens
        self.granted = anyio.Event()
        self.sent_at = 0.0
        self.is_counted = False
        self._limiter = limiter
        self._released = False

    def answered(self, tokens: int) -> None:
        """The call was answered and took so many tokens."""
        self._limiter._answered(self, tokens)  # noqa: SLF001 - two halves of one thing

    def failed(self, http_status: int | None, retry_after_s: float | None) -> None:
        """The call came to nothing."""
        self._limiter._failed(self, http_status, retry_after_s)  # noqa: SLF001 - see answered

    def release(self) -> None:
        """Make room for the next; twice is fine."""
        if not self._released:
            self._released = True
            self._limiter._release()  # noqa: SLF001 - see answered


class EndpointLimiter:
    """See the module. For one event loop.

    Attributes:
        concurrency: how many calls may be in flight now.
        in_flight: how many are.
    """

    def __init__(self, rates: EndpointRates = EndpointRates()) -> None:
        self.rates = rates
        self.concurrency = START_CONCURRENCY
        self.in_flight = 0
        self._queue: deque[Slot] = deque()
        self._minute: deque[Slot] = deque()
        self._minute_tokens = 0
        self._is_probing = True
        self._decreased_at = -math.inf
        self._paused_until = -math.inf
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_in_use(self) -> bool:
        """Whether a call is in flight or waits, counts for its minute, or the server has asked for a pause."""
        now = time.monotonic()
        is_counting = bool(self._minute) and self._minute[-1].sent_at > now - MINUTE_S
        return bool(self.in_flight or self._queue) or is_counting or self._paused_until > now

    @property
    def waiting(self) -> int:
        """How many calls wait for a slot."""
        return len(self._queue)

    def take(self, tokens: int) -> Slot | None:
        """A slot for a call of about so many tokens, None when it has to be waited for."""
        if self._queue or self._blocked_s(tokens, time.monotonic()) > 0:
            return None
        slot = Slot(self, tokens)
        self._grant(slot)
        return slot

    async def wait(self, tokens: int) -> Slot:
        """A slot, once it is this call's turn. A cancelled caller holds none."""
        slot = Slot(self, tokens)
        self._queue.append(slot)
        self._let_through()
        try:
            await slot.granted.wait()
        except BaseException:
            if slot.granted.is_set():
                slot.release()
            else:
                self._queue.remove(slot)
                self._let_through()  # whoever stood behind may need less
            raise
        return slot

    def why_waiting(self) -> str:
        """What the next call in line waits for, in words."""
        now = time.monotonic()
        if self._paused_until > now:
            return f"the server asked for a pause of {self._paused_until - now:.0f} s more"
        if self.in_flight >= self._most():
            return f"{self.in_flight} calls are in flight, which is all the server takes at once"
        return "the rate per minute is used up"

    # ---------------------------------------------------------------------------------------------- for the slots

    def _answered(self, slot: Slot, tokens: int) -> None:
        if slot.is_counted:
            self._minute_tokens += tokens - slot.tokens
        slot.tokens = tokens
        if not self._queue and self.in_flight * 2 < self._most():
            return  # so far from the limit an answer says nothing of it
        step = 1.0 if self._is_probing else 1.0 / self.concurrency
        self.concurrency = min(self.concurrency + step, float(MOST_CONCURRENCY))

    def _failed(self, slot: Slot, http_status: int | None, retry_after_s: float | None) -> None:
        if http_status not in REFUSALS:
            return
        now = time.monotonic()
        if slot.sent_at >= self._decreased_at:
            # What was in flight is what was too much, however high the limit stood.
            self.concurrency = max(1.0, min(self.concurrency, float(self.in_flight)) / 2)
            self._decreased_at, self._is_probing = now, False
        if retry_after_s is not None:
            self._paused_until = max(self._paused_until, now + min(retry_after_s, LONGEST_PAUSE_S))

    def _release(self) -> None:
        self.in_flight -= 1
        self._let_through()

    # -------------------------------------------------------------------------------------------------- internals

    def _most(self) -> int:
        allowed = int(self.concurrency)
        return allowed if self.rates.max_concurrency is None else min(allowed, self.rates.max_concurrency)

    def _let_through(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue:
            blocked_s = self._blocked_s(self._queue[0].tokens, time.monotonic())
            if blocked_s > 0:
                if blocked_s < math.inf:
                    self._timer = asyncio.get_running_loop().call_later(blocked_s, self._let_through)
                return
            self._grant(self._queue.popleft())

    def _grant(self, slot: Slot) -> None:
        slot.sent_at = time.monotonic()
        self.in_flight += 1
        if self.rates.requests_per_minute is not None or self.rates.tokens_per_minute is not None:
            self._minute.append(slot)
            self._minute_tokens += slot.tokens
            slot.is_counted = True
        slot.granted.set()

    def _blocked_s(self, tokens: int, now: float) -> float:
        """Seconds until a call may go as far as the clock decides; infinity while only a release can help."""
        if self.in_flight >= self._most():
            return math.inf
        return max(self._paused_until - now, self._rates_blocked_s(tokens, now))

    def _rates_blocked_s(self, tokens: int, now: float) -> float:
        while self._minute and self._minute[0].sent_at <= now - MINUTE_S:
            oldest = self._minute.popleft()
            oldest.is_counted = False
            self._minute_tokens -= oldest.tokens
        calls, taken, wait_s = len(self._minute), self._minute_tokens, 0.0
        for slot in self._minute:
            if self._fits(calls, taken + tokens):
                break
            calls, taken, wait_s = calls - 1, taken - slot.tokens, slot.sent_at + MINUTE_S - now
        return wait_s

    def _fits(self, calls: int, tokens: int) -> bool:
        """Whether one call may follow `calls` of the last minute, all of them taking `tokens` together. One that is
        larger than a minute's tokens goes alone."""
        rates = self.rates
        return calls == 0 or (
            (rates.requests_per_minute is None or calls < rates.requests_per_minute)
            and (rates.tokens_per_minute is None or tokens <= rates.tokens_per_minute)
        )
