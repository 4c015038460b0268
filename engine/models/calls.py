"""Calls of a model as a run makes them: tried again with patience, each attempt in the ledger, dollars counted."""

import json
import math
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

import anyio

from fbench.engine.budgets import PricesCalls, price_at
from fbench.engine.errors import ContextExceeded, ModelRejected, ModelUnavailable, RunError
from fbench.engine.logs import get_logger
from fbench.engine.models.admission import Gate, Place, Spending, WaitNotice
from fbench.engine.models.answers import excerpt
from fbench.engine.models.estimate import estimate_reasoning, estimate_reply, estimate_request
from fbench.engine.records.ledger import Ledger, LedgerLine, LedgerTokens
from fbench.engine.records.transcript import utc_now
from fbench.engine.results import CostStatus
from fbench.engine.seams import AttemptFailed, Model, ModelReply, ModelRequest, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fbench.engine.models.limits import EndpointLimiter
    from fbench.engine.models.overlong import Overlong
    from fbench.engine.purse import Purse

_ADVICE: "Mapping[int, str]" = {
    429: "Lower the concurrency, or allow more waiting with --max-model-wait.",
}
_MOST_DOUBLINGS = 32

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter.

    Attributes:
        max_wait_s: patience for one call, seconds: failed attempts and the waits after them together. All of it is
            used, unless the server asks to wait for longer. None has no end, 0 never tries again.
        base_s: the longest first wait; each further one may be twice as long.
        cap_s: the longest wait of our own; a server's Retry-After may ask for more.
    """

    max_wait_s: float | None = 600.0
    base_s: float = 1.0
    cap_s: float = 60.0


NO_WAITING = RetryPolicy(max_wait_s=None, base_s=0.0, cap_s=0.0)
"""Of a replay: what was recorded decides how often a call is tried."""


@dataclass(frozen=True, slots=True)
class RetryNotice:
    """A failed attempt that is tried again in `wait_s` seconds."""

    turn: int
    try_: int
    error: str
    wait_s: float


@dataclass(frozen=True, slots=True)
class CompletedCall:
    """An answer with what it took. `usage` is estimated where the server sent none; `cost_usd` is None without a
    price; `latency_s` is that of the attempt that succeeded."""

    reply: ModelReply
    usage: Usage
    cost_usd: Decimal | None
    cost_status: CostStatus
    latency_s: float


@dataclass(frozen=True, slots=True)
class _Failure:
    """An attempt that failed, its words redacted."""

    words: str
    retryable: bool
    http_status: int | None
    retry_after_s: float | None
    overlong: "Overlong | None"
    final: RunError | None = None


class ModelCaller:
    """Calls one model for one purpose (`who`: the agent, or the judge of `check_id`).

    Args:
        ledger: gets a line for every attempt, also failed and cancelled ones.
        price: None where the model has none: its dollars are then unknown, unless it is free.
        limiter: the endpoint's; each attempt takes a slot of it.
        purse: dollars shared with other runs; each attempt at a priced model reserves its worst case there.
        waiting: entered while it waits, between attempts or to be sent, so that the wall clock can stand still.
        on_retry: told before each wait between attempts.
        on_wait: told while it waits to be sent, once that takes a second.
        on_waited: told after such a wait, however short.
        redact: applied to every error text before it is stored or raised.
        rng: where jitter comes from.
    """

    def __init__(
        self,
        model: Model,
        *,
        ledger: Ledger,
        price: PricesCalls | None = None,
        retry: RetryPolicy = RetryPolicy(),
        limiter: "EndpointLimiter | None" = None,
        purse: "Purse | None" = None,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
        on_retry: Callable[[RetryNotice], None] = lambda _: None,
        on_wait: Callable[[WaitNotice], None] = lambda _: None,
        on_waited: Callable[[WaitNotice], None] = lambda _: None,
        redact: Callable[[str], str] = str,
        who: Literal["agent", "judge"] = "agent",
        check_id: str | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._model = model
        self._ledger = ledger
        self._price = price
        self._retry = retry
        self._gate = Gate(
            model,
            limiter=limiter,
            spending=Spending(purse, price) if purse is not None and price is not None else None,
            max_wait_s=retry.max_wait_s,
            waiting=waiting,
            on_wait=on_wait,
            on_waited=on_waited,
        )
        self._waiting = waiting
        self._on_retry = on_retry
        self._redact = redact
        self._who: Literal["agent", "judge"] = who
        self._check_id = check_id
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret

    async def call(self, request: ModelRequest, *, turn: int, tries_before: int = 0) -> CompletedCall:
        """The model's answer to `request`; `tries_before` were made for this turn with another one.

        Raises:
            ModelUnavailable: no attempt succeeded within the patience, or none could be sent.
            ContextExceeded: the request is longer than the model's window.
            ModelRejected: the server refused in a way that asking again will not change.
            PurseEmpty: the purse does not pay for it.
        """
        begun = time.monotonic()
        for try_ in count(tries_before + 1):
            async with self._gate.admit(request, Place(turn, try_, begun)) as admission:
                outcome = await self._attempt(admission.request, turn, try_)
                if isinstance(outcome, CompletedCall):
                    admission.answered(outcome.usage, outcome.cost_usd)
                else:
                    admission.failed(outcome.http_status, outcome.retry_after_s)
            if isinstance(outcome, CompletedCall):
                return outcome
            if outcome.final is not None:
                raise outcome.final
            if outcome.overlong is not None:
                msg = f"{self._model.name} takes no conversation of this length: {outcome.words}"
                raise ContextExceeded(msg, outcome.overlong.window_tokens, tries=try_)
            if not outcome.retryable:
                msg = f"{self._model.name} refused the request for good: {outcome.words}"
                raise ModelRejected(msg)
            spent_s = time.monotonic() - begun
            left_s = math.inf if self._retry.max_wait_s is None else self._retry.max_wait_s - spent_s
            if left_s <= 0 or (outcome.retry_after_s or 0) > left_s:
                raise ModelUnavailable(self._unavailable(outcome, try_, spent_s, left_s))
            wait_s = min(self._wait_after(outcome, try_), left_s)
            self._on_retry(RetryNotice(turn, try_, outcome.words, round(wait_s, 3)))
            with self._waiting():
                await anyio.sleep(wait_s)
        raise AssertionError  # count() has no end

    async def _attempt(self, request: ModelRequest, turn: int, try_: int) -> CompletedCall | _Failure:
        """One attempt and its line in the ledger, whatever happens."""
        base: dict[str, Any] = {
            "turn": turn,
            "try": try_,
            "who": self._who,
            "check_id": self._check_id,
            "model": self._model.name,
            "started_at": utc_now(),
        }
        started = time.monotonic()
        try:
            reply = await self._model.complete(request)
        except AttemptFailed as failed:
            words = excerpt(str(failed), self._redact)
            self._write(base, started, http_status=failed.http_status, error=words)
            return _Failure(
                words, failed.retryable, failed.http_status, failed.retry_after_s, failed.overlong, failed.final
            )
        except BaseException as error:
            cancelled = isinstance(error, anyio.get_cancelled_exc_class())
            words = "cancelled" if cancelled else excerpt(f"{type(error).__name__}: {error}", self._redact)
            try:
                self._write(base, started, error=words)
            except OSError as unwritten:  # the cancellation or bug that is on its way matters more
                log.error("ledger.line_lost", model=self._model.name, turn=turn, error=str(unwritten))  # noqa: TRY400
            raise
        usage = reply.usage or _estimate_usage(request, reply)
        cost_usd, cost_status = self._cost(usage, base["started_at"], is_estimated=reply.usage is None)
        latency_s = self._write(
            base,
            started,
            http_status=reply.http_status,
            model_answered=None if reply.model_answered is None else self._redact(reply.model_answered),
            usage_raw=self._redact_json(reply.usage_raw),
            tokens=LedgerTokens.of(usage),
            cost_usd=cost_usd,
            cost_status=cost_status,
        )
        return CompletedCall(reply, usage, cost_usd, cost_status, latency_s)

    def _write(self, base: dict[str, Any], started: float, **facts: object) -> float:
        """Append the attempt's line; returns its latency, seconds."""
        latency_s = round(time.monotonic() - started, 6)
        self._ledger.append(LedgerLine.model_validate({**base, **facts, "latency_s": latency_s}))
        return latency_s

    def _redact_json(self, value: Any) -> Any:  # noqa: ANN401 - JSON as the server sent it
        """A hostile server may hand a secret back in any field."""
        text = json.dumps(value, ensure_ascii=False, default=str)
        redacted = self._redact(text)
        if redacted == text:
            return value
        try:
            return json.loads(redacted)
        except ValueError:
            return redacted

    def _cost(self, usage: Usage, started_at: str, *, is_estimated: bool) -> tuple[Decimal | None, CostStatus]:
        if self._model.is_free:
            return Decimal(0), "exact"
        if self._price is None:
            return None, "unknown"
        cost_usd = price_at(self._price, datetime.fromisoformat(started_at)).cost_usd(
            input=usage.input, cache_read=usage.cache_read, cache_write=usage.cache_write, output=usage.output
        )
        return cost_usd, "estimated" if is_estimated else "exact"

    def _wait_after(self, failure: _Failure, try_: int) -> float:
        """Seconds to wait: full jitter, but at least what the server asks for, plus up to a tenth, so that many
        callers told the same do not come back at the same moment."""
        longest_s = min(self._retry.cap_s, self._retry.base_s * 2 ** min(try_ - 1, _MOST_DOUBLINGS))
        wait_s = self._rng.uniform(0, longest_s)
        if failure.retry_after_s is not None:
            wait_s = max(wait_s, failure.retry_after_s * self._rng.uniform(1, 1.1))
        return wait_s

    def _unavailable(self, failure: _Failure, tries: int, spent_s: float, left_s: float) -> str:
        times = "1 try" if tries == 1 else f"{tries} tries"
        asked = ""
        if failure.retry_after_s is not None:
            asked = f" The server asks to wait {failure.retry_after_s:g} s."
        patience_s = self._retry.max_wait_s or 0.0
        ended = f" Of the {patience_s:g} s allowed {max(left_s, 0):.1f} s are left." if patience_s > 0 else ""
        advice = _ADVICE.get(failure.http_status or 0, "Check the server, or allow more waiting with --max-model-wait.")
        return (
            f"{self._model.name} gave no usable answer in {times} over {spent_s:.1f} s;"
            f" the last failure: {failure.words.rstrip('.')}.{asked}{ended} {advice}"
        )


def _estimate_usage(request: ModelRequest, reply: ModelReply) -> Usage:
    """By the rule over bytes, where the server counted nothing."""
    return Usage(input=estimate_request(request), output=estimate_reply(reply), reasoning=estimate_reasoning(reply))
