"""Runs that share an endpoint and a purse, against a real server on loopback."""

import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import yaml

from fbench.engine import Engine, RunOptions, RunResult
from fbench.engine.errors import UsageError
from fbench.engine.events import Event, ModelAwaited, RunFinished
from fbench.engine.purse import Purse

if TYPE_CHECKING:
    from tests.engine.conftest import MakeTask
    from tests.loopback.server import LoopbackServer

KEY = "sk-shared-0123456789"
USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
CALL_USD = Decimal("0.025")
"""1,000 tokens at 10 and 500 at 30 dollars a million."""


@pytest.fixture
def options(loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path) -> RunOptions:
    prices = tmp_path / "prices.yaml"
    prices.write_text(yaml.safe_dump({"models": {"openai/loopback-1": {"input": 10, "output": 30}}}))
    return RunOptions(
        task=make_task(model={"max_output_tokens": 500}, budget={"wall_time_s": 60}),
        model="openai/loopback-1",
        sandbox="local",
        runs_dir=tmp_path / "runs",
        base_url=loopback.url,
        prices=prices,
    )


def transcript_of(options: RunOptions, result: RunResult) -> list[dict[str, Any]]:
    path = options.runs_dir / result.run_id / "transcript.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_pause_the_server_asks_one_run_for_holds_the_others_without_costing_them_wall_time(
    loopback: "LoopbackServer", options: RunOptions
) -> None:
    loopback.plan(loopback.error(429, "slow down", retry_after="3"))
    loopback.always(loopback.submit())
    hurried = options.model_copy(update={"max_wall_time": 2.0})
    events: list[Event] = []
    results: list[RunResult] = []

    async def run(engine: Engine) -> None:
        results.append(await engine.run(hurried, events.append))

    async with Engine(environ={"OPENAI_API_KEY": KEY}) as engine, anyio.create_task_group() as group:
        group.start_soon(run, engine)
        assert await anyio.to_thread.run_sync(lambda: loopback.wait_for(lambda: len(loopback.requests) == 1))
        await anyio.sleep(0.3)
        group.start_soon(run, engine)
    assert [(result.status, result.kill_reason) for result in results] == [("completed", None)] * 2
    assert len(loopback.requests) == 3
    waits = [line for result in results for line in transcript_of(options, result) if line["type"] == "model_wait"]
    assert any("asked for a pause" in line["why"] and line["wait_s"] > 1 for line in waits)
    assert any(isinstance(event, ModelAwaited) for event in events)
    assert all(event.model_wait_s > 1 for event in events if isinstance(event, RunFinished))


async def test_a_call_that_is_not_let_through_within_the_patience_ends_in_an_error(
    loopback: "LoopbackServer", options: RunOptions
) -> None:
    loopback.plan(loopback.error(429, "slow down", retry_after="50"))
    loopback.always(loopback.submit())
    impatient = options.model_copy(update={"max_model_wait": 1.0})
    async with Engine(environ={"OPENAI_API_KEY": KEY}) as engine:
        results = [await engine.run(impatient) for _ in range(2)]
    for result in results:
        assert result.error is not None
        assert (result.status, result.error.kind, result.score) == ("error", "model_unavailable", None)
    assert "could not be asked within 1 s" in ((results[1].error and results[1].error.message) or "")
    assert len(loopback.requests) == 1


async def test_fifty_runs_at_once_never_spend_more_than_their_purse(
    loopback: "LoopbackServer", options: RunOptions
) -> None:
    call = loopback.call("bash", {"command": "echo done > done.txt"})
    loopback.always(loopback.say("", tool_calls=[call], usage=USAGE))
    purse = Purse(CALL_USD * 70)
    results: list[RunResult] = []

    async def run(engine: Engine) -> None:
        results.append(await engine.run(options, purse=purse))

    async with Engine(environ={"OPENAI_API_KEY": KEY}) as engine, anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(run, engine)
    assert {(result.status, result.kill_reason) for result in results} == {("killed", "budget_exceeded:suite_cost")}
    spent = sum(Decimal(str(result.cost_usd)) for result in results)
    assert spent == purse.spent_usd == CALL_USD * sum(result.turns for result in results)
    assert len(loopback.requests) == sum(result.turns for result in results)
    assert spent <= purse.cap_usd
    assert purse.reserved_usd == 0
    # The worst case of a call is dearer than the call; less than two of them may stay unspent.
    assert spent > purse.cap_usd - Decimal("0.15")
    assert all(result.passed == (result.turns > 0) for result in results)


async def test_a_call_gets_as_many_output_tokens_as_the_purse_pays_for(
    loopback: "LoopbackServer", options: RunOptions
) -> None:
    loopback.always(loopback.submit())
    async with Engine(environ={"OPENAI_API_KEY": KEY}) as engine:
        await engine.run(options)
        whole = loopback.requests[0].json["max_tokens"]
        bytes_sent = len(json.dumps([loopback.requests[0].json[key] for key in ("messages", "tools")]))
        await engine.run(options, purse=Purse(Decimal(bytes_sent * 10 + 200 * 30) / 1_000_000))
    assert whole == 500
    assert 0 < loopback.requests[1].json["max_tokens"] < 500


async def test_a_purse_with_an_unpriced_model_is_refused(options: RunOptions) -> None:
    unpriced = options.model_copy(update={"model": "openai/nobody-knows"})
    async with Engine(environ={"OPENAI_API_KEY": KEY}) as engine:
        with pytest.raises(UsageError, match="openai/nobody-knows has no price"):
            await engine.run(unpriced, purse=Purse(Decimal(1)))
    assert not options.runs_dir.exists()
