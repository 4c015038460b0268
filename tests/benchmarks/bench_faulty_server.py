"""Two hundred runs, fifty at once, against a server that fails as real ones do: every run has a result that adds up."""

import json
import random
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
import yaml

from fbench.engine import Engine, RunOptions, RunResult
from fbench.engine.purse import Purse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.benchmarks.conftest import MakeTask, Say
    from tests.loopback.server import Exchange, LoopbackServer

RUNS = 200
AT_ONCE = 50
CALLS = 4
"""Tool calls of a run before it submits."""
FAULTS = 0.25
"""Of all answers."""
STORM_S = 3.0
"""Every ten seconds the server says 429 to everybody for so long."""
PRICES = {"input": 10, "output": 30}


def faulty(server: "LoopbackServer", seed: int, storms: bool) -> "Callable[[Exchange], Awaitable[None]]":
    dice = random.Random(seed)
    begun = time.monotonic()
    faults = (
        lambda: server.error(429, "slow down"),
        lambda: server.error(429, "slow down", retry_after="1"),
        lambda: server.error(503, "overloaded"),
        lambda: server.error(500),
        server.html,
        server.cut_json,
        server.cut_body,
        server.reset,
        lambda: server.reset(after=40),
        lambda: server.json({"error": {"message": "internal"}}),
        lambda: server.json({"choices": None}),
        lambda: server.raw(b""),
    )

    async def behave(exchange: "Exchange") -> None:
        if storms and (time.monotonic() - begun) % 10 < STORM_S:
            await server.error(429, "storm", retry_after="0.5")(exchange)
            return
        if dice.random() < FAULTS:
            await dice.choice(faults)()(exchange)
            return
        messages = exchange.request.json["messages"]
        answers = sum(message["role"] == "assistant" for message in messages)
        usage: dict[str, object] = {
            "prompt_tokens": 500 + dice.randrange(500),
            "completion_tokens": 10 + dice.randrange(90),
        }
        if dice.random() < 0.1:
            # Nonsense beside the counts.
            usage |= {"prompt_tokens_details": {"cached_tokens": 10**6}, "total_tokens": -1}
        if answers >= CALLS:
            await server.submit(usage=usage)(exchange)
        else:
            call = server.call("bash", {"command": "echo done > done.txt"}, call_id=f"call_{answers}")
            await server.say("", tool_calls=[call], usage=usage)(exchange)

    return behave


@pytest.mark.parametrize("capped", [False, True], ids=["all the money", "a tenth of the money"])
async def test_runs_against_faults(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path, say: "Say", capped: bool
) -> None:
    loopback.always(faulty(loopback, seed=7, storms=True))
    prices = tmp_path / "prices.yaml"
    prices.write_text(yaml.safe_dump({"models": {"openai/loopback-1": PRICES}}))
    options = RunOptions(
        task=make_task("faulty", model={"max_output_tokens": 100}),
        model="openai/loopback-1",
        sandbox="local",
        runs_dir=tmp_path / "runs",
        base_url=loopback.url,
        prices=prices,
    )
    purse = Purse(Decimal(RUNS * (CALLS + 1) * 9_000) / 1_000_000 / 10) if capped else None
    results: list[RunResult] = []
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def run(engine: Engine) -> None:
        async with limiter:
            results.append(await engine.run(options, purse=purse))

    started, cpu = time.monotonic(), time.process_time()
    async with Engine(environ={"OPENAI_API_KEY": "sk-bench"}) as engine, anyio.create_task_group() as group:
        for _ in range(RUNS):
            group.start_soon(run, engine)
    ends = Counter(f"{result.status} {result.kill_reason or result.end_reason}" for result in results)
    lines = [
        json.loads(line, parse_float=Decimal)
        for result in results
        for line in (options.runs_dir / result.run_id / "ledger.jsonl").read_text().splitlines()
    ]
    say(f"{RUNS} runs, {AT_ONCE} at once: {time.monotonic() - started:.0f} s, {time.process_time() - cpu:.0f} s CPU")
    answered = sum(line["error"] is None for line in lines)
    say(f"ends: {dict(ends)}; attempts: {len(lines)}, of which answered: {answered}")
    assert len(list(options.runs_dir.glob("*/result.json"))) == len(results) == RUNS
    assert len(lines) == len(loopback.requests)
    served = loopback.tokens_served()
    assert (sum(result.tokens.input for result in results), sum(result.tokens.output for result in results)) == served
    spent = Decimal(served[0] * 10 + served[1] * 30) / 1_000_000
    assert sum((line["cost_usd"] for line in lines), Decimal(0)) == spent
    if purse is None:
        assert ends == {"completed submitted": RUNS}
    else:
        say(f"purse ${purse.cap_usd}: spent ${spent}")
        assert purse.spent_usd == spent <= purse.cap_usd
        assert set(ends) <= {"completed submitted", "killed budget_exceeded:suite_cost"}
