"""A run's prices: each call costs what is in effect when it starts, and the run stores what it used."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fbench.engine import Engine, RunOptions
from fbench.engine.budgets import Budget, BudgetLimits
from fbench.engine.models.calls import ModelCaller
from fbench.engine.plan import make_plan
from fbench.engine.record import RunRecord
from fbench.engine.records.ledger import Ledger
from fbench.engine.seams import Message, ModelReply, ModelRequest, TokenEstimate, Usage
from fbench.pricing.table import PricedModel, load_prices

if TYPE_CHECKING:
    from tests.engine.conftest import MakeTask
    from tests.loopback.server import LoopbackServer


def priced(tmp_path: Path, entries: Any) -> PricedModel:
    path = tmp_path / "prices.yaml"
    path.write_text(yaml.safe_dump({"models": {"openai/m": entries}}))
    return load_prices(path).models["openai/m"]


@pytest.fixture
def changes_today(tmp_path: Path) -> PricedModel:
    """1 a million for input until yesterday, 5 since, 9 from tomorrow on."""
    today = datetime.now(UTC).date()
    entries = [
        {"input": 1, "output": 0},
        {"from": str(today - timedelta(days=1)), "input": 5, "output": 0},
        {"from": str(today + timedelta(days=2)), "input": 9, "output": 0},
    ]
    return priced(tmp_path, entries)


class Answering:
    """A model whose every answer takes a million tokens of input."""

    name = "openai/m"
    is_free = False

    def estimate(self, request: ModelRequest) -> TokenEstimate:
        return TokenEstimate(0)

    async def complete(self, request: ModelRequest) -> ModelReply:
        return ModelReply("ok", usage=Usage(input=1_000_000))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        yield ledger


async def cost_of_a_call(ledger: Ledger, price: PricedModel) -> Decimal | None:
    done = await ModelCaller(Answering(), ledger=ledger, price=price).call(ModelRequest([Message("user", "?")]), turn=1)
    return done.cost_usd


async def test_a_call_costs_what_is_in_effect_when_it_starts(ledger: Ledger, changes_today: PricedModel) -> None:
    assert await cost_of_a_call(ledger, changes_today) == 5


async def test_a_call_is_priced_by_its_start_and_not_by_its_answer(
    ledger: Ledger, changes_today: PricedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fbench.engine.models.calls.utc_now", lambda: "2024-01-01T23:59:59.999Z")
    assert await cost_of_a_call(ledger, changes_today) == 1


async def test_a_call_in_a_window_of_the_day_pays_that_windows_price(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = [{"utc": "01:00-04:00", "input": 7, "output": 0}]
    price = priced(tmp_path, {"input": 2, "output": 0, "hours": hours})
    costs = []
    for clock in ("00:59:59.999", "01:00:00.000", "04:00:00.000"):
        monkeypatch.setattr("fbench.engine.models.calls.utc_now", lambda clock=clock: f"2026-05-01T{clock}Z")
        costs.append(await cost_of_a_call(ledger, price))
    assert costs == [2, 7, 2]


async def test_a_cap_of_dollars_is_held_by_the_price_of_now(changes_today: PricedModel) -> None:
    budget = Budget(BudgetLimits(cost_usd=Decimal(4)))
    with budget.scope():
        await budget.fit_model_call(TokenEstimate(1_000_000), 10, changes_today)
    assert budget.kill_reason == "budget_exceeded:cost"


def rates_events(folder: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (folder / "transcript.jsonl").read_text().splitlines()]
    return [event for event in events if event["type"] == "rates_used"]


async def test_a_run_stores_the_rates_it_used_once_with_their_file_and_date(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    prices = tmp_path / "mine.yaml"
    prices.write_text(
        "source: my contract\nretrieved: 2026-11-01\nmodels: {openai/loopback-1: {input: 10, output: 30}}\n"
    )
    loopback.plan(loopback.say("Done."))
    options = {
        "task": make_task(),
        "model": "openai/loopback-1",
        "sandbox": "local",
        "runs_dir": tmp_path / "runs",
        "base_url": loopback.url,
        "prices": prices,
    }
    async with Engine(environ={}) as engine:
        result = await engine.run(RunOptions.model_validate(options))
    (event,) = rates_events(tmp_path / "runs" / result.run_id)
    assert (event["seq"], event["model"]) == (2, "openai/loopback-1")
    assert (event["rates"]["input"], event["rates"]["output"], event["rates"]["cached_input"]) == ("10", "30", None)
    assert (event["currency"], event["unit"], event["tariff"]) == ("USD", "per 1M tokens", None)
    source = event["source"]
    assert (source["kind"], source["file"]) == ("user", str(prices))
    assert (source["source"], source["retrieved"]) == ("my contract", "2026-11-01")


async def test_a_free_model_uses_no_rates(make_task: "MakeTask", tmp_path: Path) -> None:
    options = {"task": make_task(), "model": "fake/nop", "sandbox": "local", "runs_dir": tmp_path / "runs"}
    async with Engine(environ={}) as engine:
        result = await engine.run(RunOptions.model_validate(options))
    assert rates_events(tmp_path / "runs" / result.run_id) == []


async def test_the_rates_of_a_second_model_are_stored_once_too(make_task: "MakeTask", tmp_path: Path) -> None:
    options = {"task": make_task(), "model": "openai/gpt-4o", "sandbox": "local", "runs_dir": tmp_path / "runs"}
    plan = await make_plan(RunOptions.model_validate(options), {})
    judge = load_prices().models["anthropic/claude-opus-5"]
    with RunRecord(plan, lambda _: None) as record:
        await record.start()
        for _ in range(3):
            record.rates_used(judge)
    assert [event["model"] for event in rates_events(record.folder.path)] == [
        "openai/gpt-4o",
        "anthropic/claude-opus-5",
    ]
