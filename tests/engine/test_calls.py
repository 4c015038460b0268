"""Calls with patience: what is tried again, how long it waits, what the ledger says of it."""

import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from fbench.engine.errors import ModelRejected, ModelUnavailable
from fbench.engine.models.calls import CompletedCall, ModelCaller, RetryNotice, RetryPolicy
from fbench.engine.models.names import ModelSpec, open_model
from fbench.engine.records.ledger import Ledger, LedgerLine, read_ledger
from fbench.engine.seams import AttemptFailed, Message, ModelReply, ModelRequest, TokenEstimate, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.loopback.server import LoopbackServer

HELLO = ModelRequest(messages=[Message("user", "Hello")])
QUICK = RetryPolicy(max_wait_s=20.0, base_s=0.01, cap_s=0.05)


class OneDollarAToken:
    def cost_usd(self, *, input: int, cache_read: int, cache_write: int, output: int) -> Decimal:  # noqa: A002
        return Decimal(input + output) + Decimal(cache_read) / 10 + cache_write


class Played:
    """A model that does what the test says, attempt by attempt."""

    name = "played/model"
    is_free = False

    def __init__(self, *acts: Callable[[], Awaitable[ModelReply]]) -> None:
        self._acts = list(acts)

    def estimate(self, request: ModelRequest) -> TokenEstimate:
        return TokenEstimate(0)

    async def complete(self, request: ModelRequest) -> ModelReply:
        return await self._acts.pop(0)()


def answering(**facts: Any) -> Callable[[], Awaitable[ModelReply]]:
    async def act() -> ModelReply:
        return ModelReply(**{"content": "x" * 40, "usage": Usage(input=3, cache_read=10, output=2), **facts})

    return act


def failing(words: str = "busy", **facts: Any) -> Callable[[], Awaitable[ModelReply]]:
    async def act() -> ModelReply:
        raise AttemptFailed(words, **{"retryable": True, **facts})

    return act


class Desk:
    """A caller, its ledger, and what it told."""

    def __init__(self, path: Path, model: Any, **facts: Any) -> None:
        self.path = path
        self.ledger = Ledger(path)
        self.notices: list[RetryNotice] = []
        self.waits: list[float] = []
        facts.setdefault("retry", QUICK)
        self.caller = ModelCaller(
            model, ledger=self.ledger, on_retry=self.notices.append, waiting=self._waiting, **facts
        )

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.waits.append(time.monotonic() - begun)

    async def ask(self, request: ModelRequest = HELLO) -> CompletedCall:
        return await self.caller.call(request, turn=4)

    @property
    def lines(self) -> list[LedgerLine]:
        return list(read_ledger(self.path))


@asynccontextmanager
async def desk_at(server: "LoopbackServer", tmp_path: Path, **facts: Any) -> "AsyncIterator[Desk]":
    timeout_s = facts.pop("attempt_timeout_s", 10.0)
    async with open_model(ModelSpec("openai/m", server.url, attempt_timeout_s=timeout_s)) as model:
        desk = Desk(tmp_path / "ledger.jsonl", model, **facts)
        with desk.ledger:
            yield desk


async def test_an_answer_has_one_line_with_its_usage_and_dollars(tmp_path: Path) -> None:
    reply = answering(usage_raw={"prompt_tokens": 13}, model_answered="m-2", http_status=200)
    desk = Desk(tmp_path / "ledger.jsonl", Played(reply), price=OneDollarAToken())
    done = await desk.ask()
    assert (done.usage, done.cost_usd, done.cost_status) == (Usage(3, 10, 0, 2), Decimal(6), "exact")
    (line,) = desk.lines
    assert (line.seq, line.turn, line.try_, line.who, line.check_id) == (1, 4, 1, "agent", None)
    assert (line.model, line.model_answered, line.http_status, line.error) == ("played/model", "m-2", 200, None)
    assert (line.tokens.input, line.tokens.cache_read, line.tokens.output) == (3, 10, 2)
    assert (line.cost_usd, line.cost_status, line.usage_raw) == (Decimal(6), "exact", {"prompt_tokens": 13})
    assert desk.ledger.totals().tokens.total == 15
    desk.ledger.close()


async def test_an_answer_without_usage_is_estimated_by_the_rule(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "ledger.jsonl", Played(answering(usage=None)), price=OneDollarAToken())
    done = await desk.ask(ModelRequest([Message("user", "y" * 41)]))
    assert done.usage == Usage(input=11 + 4, output=10)
    assert (done.cost_usd, done.cost_status) == (Decimal(25), "estimated")
    assert desk.lines[0].usage_raw is None
    desk.ledger.close()


async def test_a_model_without_a_price_has_unknown_cost_not_zero(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "ledger.jsonl", Played(answering()))
    done = await desk.ask()
    assert (done.cost_usd, done.cost_status) == (None, "unknown")
    assert desk.ledger.totals().cost_usd is None
    desk.ledger.close()


async def test_a_free_model_costs_exactly_nothing(tmp_path: Path) -> None:
    model = Played(answering())
    model.is_free = True
    desk = Desk(tmp_path / "ledger.jsonl", model)
    done = await desk.ask()
    assert (done.cost_usd, done.cost_status) == (Decimal(0), "exact")
    desk.ledger.close()


async def test_the_judge_has_lines_and_a_purse_of_its_own(tmp_path: Path) -> None:
    desk = Desk(
        tmp_path / "ledger.jsonl", Played(answering()), price=OneDollarAToken(), who="judge", check_id="quality"
    )
    await desk.ask()
    totals = desk.ledger.totals()
    assert (totals.cost_usd, totals.judge_cost_usd, totals.tokens.total) == (Decimal(0), Decimal(6), 0)
    assert desk.lines[0].check_id == "quality"
    desk.ledger.close()


async def test_what_the_ledger_counts_is_what_the_server_counted(loopback: "LoopbackServer", tmp_path: Path) -> None:
    usage = {"prompt_tokens": 101, "completion_tokens": 13, "prompt_tokens_details": {"cached_tokens": 60}}
    loopback.plan(
        loopback.error(429, "slow down"),
        loopback.error(500),
        loopback.html(),
        loopback.cut_json(),
        loopback.cut_body(),
        loopback.reset(after=30),
        loopback.say("one", usage=usage),
        loopback.raw(b""),
        loopback.json({"error": "overloaded"}),
        loopback.chunked(),
        loopback.submit(),
    )
    async with desk_at(loopback, tmp_path, price=OneDollarAToken()) as desk:
        for _ in range(3):
            await desk.ask()
        totals = desk.ledger.totals()
        lines = desk.lines
    assert (totals.tokens.input, totals.tokens.output) == loopback.tokens_served()
    assert totals.tokens.cached_input == 60
    assert len(lines) == len(loopback.requests) == 11
    assert [line.try_ for line in lines] == [1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 1]
    failed = [line for line in lines if line.error]
    assert len(failed) == 8
    assert all((line.cost_usd, line.cost_status, line.tokens.output) == (Decimal(0), "exact", 0) for line in failed)
    assert [line.http_status for line in failed] == [429, 500, 200, 200, None, None, 200, 200]
    assert len(desk.notices) == len(desk.waits) == 8


async def test_a_wait_is_at_least_what_the_server_asks_for(loopback: "LoopbackServer", tmp_path: Path) -> None:
    loopback.plan(loopback.error(429, retry_after="0.4"), loopback.error(503, retry_after_ms="300"))
    async with desk_at(loopback, tmp_path) as desk:
        await desk.ask()
    assert 0.4 <= desk.waits[0] < 2
    assert 0.3 <= desk.waits[1] < 2


async def test_a_server_that_asks_for_too_long_a_wait_ends_the_call_at_once(
    loopback: "LoopbackServer", tmp_path: Path
) -> None:
    loopback.always(loopback.error(429, "come back tomorrow", retry_after="86400"))
    begun = time.monotonic()
    async with desk_at(loopback, tmp_path) as desk:
        with pytest.raises(ModelUnavailable, match="asks to wait 86400 s"):
            await desk.ask()
    assert time.monotonic() - begun < 5
    assert len(loopback.requests) == 1


async def test_a_storm_of_errors_ends_when_patience_does(loopback: "LoopbackServer", tmp_path: Path) -> None:
    loopback.always(loopback.error(500, "kaput"))
    begun = time.monotonic()
    async with desk_at(loopback, tmp_path, retry=RetryPolicy(max_wait_s=0.5, base_s=0.05, cap_s=0.1)) as desk:
        with pytest.raises(ModelUnavailable) as caught:
            await desk.ask()
        tries = len(desk.lines)
    assert time.monotonic() - begun < 3
    assert tries == len(loopback.requests) > 2
    text = str(caught.value)
    assert f"openai/m gave no usable answer in {tries} tries" in text
    assert "HTTP 500" in text
    assert "kaput" in text
    assert "--max-model-wait" in text


async def test_all_the_patience_is_used_before_a_call_is_given_up(tmp_path: Path) -> None:
    acts = [failing(), answering()]
    long_waits = RetryPolicy(max_wait_s=0.3, base_s=1000.0, cap_s=1000.0)
    desk = Desk(tmp_path / "ledger.jsonl", Played(*acts), retry=long_waits, rng=random.Random(1))
    done = await desk.caller.call(HELLO, turn=1)
    assert done.reply.content
    assert desk.waits == [pytest.approx(0.3, abs=0.2)]


async def test_failed_attempts_use_up_patience_like_waits(loopback: "LoopbackServer", tmp_path: Path) -> None:
    loopback.always(loopback.silence(30))
    async with desk_at(
        loopback, tmp_path, attempt_timeout_s=0.3, retry=RetryPolicy(max_wait_s=0.7, base_s=0.001)
    ) as desk:
        with pytest.raises(ModelUnavailable, match=r"no whole answer within 0\.3 s"):
            await desk.ask()
        assert 2 <= len(desk.lines) <= 3


async def test_no_patience_means_no_second_try(loopback: "LoopbackServer", tmp_path: Path) -> None:
    loopback.always(loopback.error(503))
    async with desk_at(loopback, tmp_path, retry=RetryPolicy(max_wait_s=0)) as desk:
        with pytest.raises(ModelUnavailable, match=r"in 1 try "):
            await desk.ask()
    assert len(loopback.requests) == 1


async def test_endless_patience_goes_on(loopback: "LoopbackServer", tmp_path: Path) -> None:
    loopback.plan(*[loopback.error(500)] * 30)
    async with desk_at(loopback, tmp_path, retry=RetryPolicy(max_wait_s=None, base_s=0.001, cap_s=0.002)) as desk:
        done = await desk.ask()
    assert done.reply.content == "Hello."
    assert len(loopback.requests) == 31


async def test_a_refusal_for_good_is_told_in_the_servers_words(loopback: "LoopbackServer", tmp_path: Path) -> None:
    loopback.always(loopback.error(401, "Incorrect API key provided"))
    async with desk_at(loopback, tmp_path) as desk:
        with pytest.raises(ModelRejected, match=r"openai/m .*HTTP 401.*Incorrect API key provided.*OPENAI_API_KEY"):
            await desk.ask()
        assert [line.http_status for line in desk.lines] == [401]
    assert len(loopback.requests) == 1


async def test_a_cancelled_call_has_a_line_and_the_cancellation_goes_on(
    loopback: "LoopbackServer", tmp_path: Path
) -> None:
    loopback.plan(loopback.silence(30))
    async with desk_at(loopback, tmp_path) as desk:
        with anyio.move_on_after(0.3) as scope:
            await desk.ask()
        assert scope.cancelled_caught
        (line,) = desk.lines
        assert line.error == "cancelled"
        assert line.latency_s >= 0.2
        assert (line.tokens.output, line.cost_usd) == (0, Decimal(0))
        await anyio.lowlevel.checkpoint()  # the loop's next turn closes it
        assert loopback.wait_for(lambda: loopback.open_connections == 0)


async def test_a_cancellation_goes_on_even_when_its_line_cannot_be_written(tmp_path: Path) -> None:
    async def hang() -> ModelReply:
        await anyio.sleep_forever()
        raise AssertionError

    class FullDisk(Ledger):
        def append(self, line: LedgerLine) -> LedgerLine:
            raise OSError(28, "No space left on device")

    with FullDisk(tmp_path / "ledger.jsonl") as ledger:
        caller = ModelCaller(Played(hang), ledger=ledger)
        with anyio.move_on_after(0.05) as scope:
            await caller.call(HELLO, turn=1)
    assert scope.cancelled_caught


async def test_a_wait_can_be_cancelled(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "ledger.jsonl", Played(failing(retry_after_s=15.0)))
    begun = time.monotonic()
    with anyio.move_on_after(0.1) as scope, desk.ledger:
        await desk.ask()
    assert scope.cancelled_caught
    assert time.monotonic() - begun < 5
    assert len(desk.lines) == 1


async def test_a_fault_in_a_model_has_a_line_and_goes_on(tmp_path: Path) -> None:
    async def crash() -> ModelReply:
        raise ZeroDivisionError

    desk = Desk(tmp_path / "ledger.jsonl", Played(crash))
    with desk.ledger, pytest.raises(ZeroDivisionError):
        await desk.ask()
    assert desk.lines[0].error == "ZeroDivisionError:"


async def test_secrets_are_redacted_wherever_an_error_is_told(tmp_path: Path) -> None:
    desk = Desk(
        tmp_path / "ledger.jsonl",
        Played(failing("the key hunter2 is busy"), failing("hunter2 is bad", retryable=False)),
        redact=lambda text: text.replace("hunter2", "***"),
    )
    with desk.ledger, pytest.raises(ModelRejected) as caught:
        await desk.ask()
    told = [str(caught.value), *(notice.error for notice in desk.notices), (tmp_path / "ledger.jsonl").read_text()]
    assert all("***" in text and "hunter2" not in text for text in told)


async def test_a_secret_a_server_hands_back_is_not_in_the_ledger(tmp_path: Path) -> None:
    reply = answering(model_answered="hunter2", usage_raw={"hunter2": ["x hunter2"], "cost": 0.5})
    desk = Desk(tmp_path / "ledger.jsonl", Played(reply), redact=lambda text: text.replace("hunter2", "***"))
    with desk.ledger:
        await desk.ask()
    (line,) = desk.lines
    assert line.model_answered == "***"
    assert line.usage_raw == {"***": ["x ***"], "cost": 0.5}


async def test_notices_name_turn_try_error_and_wait(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "ledger.jsonl", Played(failing("a"), failing("b"), answering()), rng=random.Random(1))
    with desk.ledger:
        await desk.ask()
    assert [(notice.turn, notice.try_, notice.error) for notice in desk.notices] == [(4, 1, "a"), (4, 2, "b")]
    assert all(0 <= notice.wait_s <= 0.05 for notice in desk.notices)


async def test_waits_grow_and_stay_under_their_cap(tmp_path: Path) -> None:
    class Longest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    policy = RetryPolicy(max_wait_s=None, base_s=0.001, cap_s=0.005)
    desk = Desk(tmp_path / "ledger.jsonl", Played(*[failing()] * 6, answering()), retry=policy, rng=Longest())
    with desk.ledger:
        await desk.ask()
    assert [notice.wait_s for notice in desk.notices] == [0.001, 0.002, 0.004, 0.005, 0.005, 0.005]
