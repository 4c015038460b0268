"""Whole runs against an OpenAI-compatible server that misbehaves: each ends with a result that tells the truth."""

import json
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fbench.engine import Engine, RunOptions, RunResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.conftest import MakeTask
    from tests.loopback.server import Behaviour, LoopbackServer

KEY = "sk-loopback-secret-0123456789"
SHORT_PATIENCE_S = 4.0


async def run(loopback: "LoopbackServer", task: Path, tmp_path: Path, **options: Any) -> tuple[RunResult, Path]:
    """A run of the server's model in the local sandbox, with prices, and its folder."""
    prices = tmp_path / "prices.yaml"
    prices.write_text(yaml.safe_dump({"models": {"openai/loopback-1": {"input": 10, "output": 30}}}))
    given = {
        "task": task,
        "model": "openai/loopback-1",
        "sandbox": "local",
        "runs_dir": tmp_path / "runs",
        "base_url": loopback.url,
        "prices": prices,
        **options,
    }
    async with Engine(environ={"OPENAI_API_KEY": KEY}) as engine:
        result = await engine.run(RunOptions.model_validate(given))
    folder = tmp_path / "runs" / result.run_id
    assert RunResult.model_validate_json((folder / "result.json").read_text()) == result
    for path in folder.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    return result, folder


def ledger_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]


async def test_the_ledger_adds_up_to_what_the_server_saw(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    loopback.plan(
        loopback.error(429, "slow down", retry_after="0"),
        loopback.say("", tool_calls=[loopback.call("bash", {"command": "echo hi > done.txt"})]),
        loopback.html(),
        loopback.cut_json(),
        loopback.reset(),
        loopback.say(
            "",
            tool_calls=[loopback.call("bash", {"command": "cat done.txt"}, call_id="")],
            usage={
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "prompt_tokens_details": {"cached_tokens": 40},
                "completion_tokens_details": {"reasoning_tokens": 5},
            },
        ),
        loopback.json({"error": {"message": "internal"}}),
        loopback.submit(),
    )
    result, folder = await run(loopback, make_task(), tmp_path)
    assert (result.status, result.end_reason, result.passed, result.turns) == ("completed", "submitted", True, 3)
    lines = ledger_of(folder)
    assert len(lines) == len(loopback.requests) == 8
    prompt, completion = loopback.tokens_served()
    assert (result.tokens.input, result.tokens.output) == (prompt, completion)
    assert (result.tokens.cached_input, result.tokens.reasoning) == (40, 5)
    spent = sum(Decimal(str(line["cost_usd"])) for line in lines)
    assert spent == Decimal(prompt * 10 + completion * 30) / 1_000_000
    assert result.cost_usd == pytest.approx(float(spent))
    retries = [line for line in (folder / "transcript.jsonl").read_text().splitlines() if '"model_retry"' in line]
    assert len(retries) == 5


BAD: "dict[str, Callable[[LoopbackServer], Behaviour]]" = {
    "500": lambda server: server.error(500),
    "429": lambda server: server.error(429),
    "429 for an hour": lambda server: server.error(429, retry_after="3600"),
    "html": lambda server: server.html(),
    "cut json": lambda server: server.cut_json(),
    "cut body": lambda server: server.cut_body(),
    "reset": lambda server: server.reset(),
    "reset in the body": lambda server: server.reset(after=30),
    "no choices": lambda server: server.json({"id": "x", "choices": []}),
    "null choices": lambda server: server.json({"id": "x", "choices": None, "error": {"message": "no"}}),
    "empty": lambda server: server.raw(b""),
    "no http": lambda server: server.no_http(),
}


@pytest.mark.parametrize("bad", BAD)
async def test_a_server_that_only_fails_ends_in_an_error_and_no_score(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path, bad: str
) -> None:
    loopback.always(BAD[bad](loopback))
    result, folder = await run(loopback, make_task(), tmp_path, max_model_wait=1.0)
    assert result.error is not None
    assert (result.status, result.error.kind) == ("error", "model_unavailable")
    assert (result.score, result.passed, result.turns, result.tokens.total) == (None, None, 0, 0)
    assert len(ledger_of(folder)) == len(loopback.requests) >= 1


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_refusal_for_good_is_not_tried_again(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path, status: int
) -> None:
    loopback.always(loopback.error(status, f"no, because of {KEY}"))
    result, _ = await run(loopback, make_task(), tmp_path)
    assert result.error is not None
    assert (result.status, result.error.kind) == ("error", "model_rejected")
    assert len(loopback.requests) == 1


async def test_arguments_as_an_object_and_missing_usage_are_met(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    call = {"type": "function", "function": {"name": "bash", "arguments": {"command": "echo hi > done.txt"}}}
    loopback.plan(loopback.say(None, tool_calls=[call], usage=None), loopback.submit())
    result, folder = await run(loopback, make_task(), tmp_path)
    assert (result.passed, result.tool_calls, result.cost_status) == (True, 1, "estimated")
    first = ledger_of(folder)[0]
    assert first["usage_raw"] is None
    assert first["tokens"]["input"] > 0


@pytest.mark.parametrize("sent", ["sk-abc-0123456789", 'sk-"quoted"-\\0123456789'])
async def test_a_key_that_the_server_says_back_is_stored_nowhere(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path, sent: str
) -> None:
    loopback.plan(loopback.error(500, f"no, {sent}"), loopback.say(f"You sent {sent}", usage={"x": sent}))
    result, folder = await run(loopback, make_task(), tmp_path, api_key=f" {sent}\n")
    assert result.end_reason == "answered"
    assert loopback.requests[0].headers["authorization"] == f"Bearer {sent}"
    for path in folder.rglob("*"):
        text = path.read_text() if path.is_file() else ""
        assert sent not in text, path
        assert json.dumps(sent)[1:-1] not in text, path
    assert [json.loads(line)["seq"] for line in (folder / "transcript.jsonl").read_text().splitlines()]


async def test_the_cost_of_an_unpriced_model_is_never_0(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    loopback.always(loopback.error(500))
    result, _ = await run(loopback, make_task(), tmp_path, model="openai/unpriced", max_model_wait=0)
    assert (result.status, result.cost_usd, result.cost_status) == ("error", None, "unknown")


async def test_calls_that_json_text_did_not_offer_are_answered_and_not_run(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    native = loopback.call("bash", {"command": "echo hi > done.txt"})
    loopback.plan(loopback.say("", tool_calls=[native]), loopback.say('{"tool": "submit"}'))
    task = make_task(tools={"style": "json_text", "allow": ["bash"]})
    result, _ = await run(loopback, task, tmp_path)
    assert (result.end_reason, result.tool_calls, result.score) == ("submitted", 0, 0.0)
    *_, said, answer, correction = loopback.requests[1].json["messages"]
    assert said["tool_calls"][0]["id"] == answer["tool_call_id"]
    assert [message["role"] for message in (said, answer, correction)] == ["assistant", "tool", "user"]


async def test_nonsense_gets_a_short_correction(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    loopback.plan(
        loopback.say(None, tool_calls=[loopback.call("x" * 100_000, {})]),
        loopback.say(None, tool_calls=[loopback.call("bash", dict.fromkeys(map(str, range(10_000)), 1))]),
        loopback.say(None, tool_calls=[loopback.call("bash", {"y" * 100_000: 1})]),
    )
    result, _ = await run(loopback, make_task(), tmp_path, max_turns=3)
    assert result.end_reason == "unusable_replies"
    _, *later = loopback.requests
    corrections = [request.json["messages"][-1]["content"] for request in later]
    assert all(len(correction) < 2000 for correction in corrections)
    assert "there is no tool" in corrections[0]
    assert "9993 problems more" in corrections[1]


async def test_a_breach_cuts_a_silent_server_off(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    loopback.always(loopback.silence(300))
    result, folder = await run(loopback, make_task(), tmp_path, max_wall_time=0.5)
    assert (result.status, result.kill_reason, result.score) == ("killed", "budget_exceeded:wall_time", 0.0)
    assert [line["error"] for line in ledger_of(folder)] == ["cancelled"]
    assert loopback.wait_for(lambda: loopback.open_connections == 0)


async def test_waiting_after_a_failure_uses_no_wall_time(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    loopback.plan(loopback.error(429, retry_after="2"), loopback.submit())
    result, _ = await run(loopback, make_task(), tmp_path, max_wall_time=1.5)
    assert (result.status, result.kill_reason) == ("completed", None)


async def test_max_tokens_is_lowered_to_what_is_left(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    usage = {"prompt_tokens": 900, "completion_tokens": 50, "total_tokens": 950}
    step = loopback.say("", tool_calls=[loopback.call("bash", {"command": "true"})], usage=usage)
    loopback.always(step)
    result, _ = await run(loopback, make_task(), tmp_path, max_tokens=3000)
    assert result.kill_reason == "budget_exceeded:tokens"
    asked = [request.json["max_tokens"] for request in loopback.requests]
    assert all(later <= earlier for earlier, later in pairwise(asked))
    assert asked[1] <= 3000 - 950
    assert result.tokens.total <= 3000


async def test_a_dollar_cap_holds(loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path) -> None:
    step = loopback.say("", tool_calls=[loopback.call("bash", {"command": "true"})])
    loopback.always(step)
    result, folder = await run(loopback, make_task(), tmp_path, max_cost="0.05", max_turns="none")
    assert result.kill_reason == "budget_exceeded:cost"
    assert result.cost_usd is not None
    assert result.cost_usd <= 0.05
    assert len(ledger_of(folder)) == len(loopback.requests)


async def test_surrogates_and_control_characters_are_kept_readable(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    body = json.dumps(
        loopback.document("\ud800 \x00 é", tool_calls=[loopback.call("bash", '{"command": "printf \'\\ud800\'"}')])
    )
    loopback.plan(loopback.raw(body.encode()), loopback.submit())
    result, folder = await run(loopback, make_task(), tmp_path)
    assert result.status == "completed"
    assert [json.loads(line)["seq"] for line in (folder / "transcript.jsonl").read_text().splitlines()]
