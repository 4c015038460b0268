"""Conversations that outgrow their model's window: shortened by rule, noted, and never failed without saying so."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fbench.engine import Engine, RunOptions, RunResult
from fbench.engine.context import KEPT_CHARS, Window, shorten_outputs
from fbench.engine.models.overlong import Overlong, read_overlong
from fbench.engine.seams import Message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.engine.conftest import MakeTask
    from tests.loopback.server import Exchange, LoopbackServer

KEY = "sk-context-0123456789"
LONG = {"command": "seq 1 3000 | tr '\\n' ' '; echo > done.txt"}
"""Prints some 14,000 characters, which the tool does not cut."""


def tokens_of(body: dict[str, Any]) -> int:
    """A tokenizer of the server's own: a token is three characters."""
    return len(json.dumps(body["messages"])) // 3


def limited(
    loopback: "LoopbackServer", window: int, words: str = "This model's maximum context length is {window} tokens."
) -> "Callable[[Exchange], Awaitable[None]]":
    """A server whose model takes `window` tokens, and calls the tool five times, then submits."""
    calls = 0

    async def behave(exchange: "Exchange") -> None:
        nonlocal calls
        tokens = tokens_of(exchange.request.json)
        if tokens > window:
            said = loopback.error(400, words.format(window=window), code="context_length_exceeded")
            await said(exchange)
            return
        calls += 1
        usage = {"prompt_tokens": tokens, "completion_tokens": 20}
        if calls > 5:
            await loopback.submit(usage=usage)(exchange)
        else:
            call = loopback.call("bash", LONG, call_id=f"call_{calls}")
            await loopback.say("", tool_calls=[call], usage=usage)(exchange)

    return behave


async def run(
    loopback: "LoopbackServer", task: Path, tmp_path: Path, **options: Any
) -> tuple[RunResult, list[dict[str, Any]]]:
    given = {
        "task": task,
        "model": "openai/loopback-1",
        "sandbox": "local",
        "runs_dir": tmp_path / "runs",
        "base_url": loopback.url,
        **options,
    }
    async with Engine(environ={"OPENAI_API_KEY": KEY}) as engine:
        result = await engine.run(RunOptions.model_validate(given))
    transcript = tmp_path / "runs" / result.run_id / "transcript.jsonl"
    return result, [json.loads(line) for line in transcript.read_text().splitlines()]


@pytest.mark.parametrize(
    "words",
    ["This model's maximum context length is {window} tokens.", "it is longer than allowed", "prompt is too long"],
)
async def test_old_output_is_shortened_where_the_server_refuses_and_the_run_goes_on(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path, words: str
) -> None:
    loopback.always(limited(loopback, 12_000, words))
    result, lines = await run(loopback, make_task(), tmp_path)
    assert (result.status, result.end_reason, result.passed) == ("completed", "submitted", True)
    notes = [line for line in lines if line["type"] == "context_shortened"]
    assert notes
    assert all(note["freed_tokens"] > 0 and note["messages"] for note in notes)
    last = loopback.requests[-1].json["messages"]
    outputs = [message["content"] for message in last if message["role"] == "tool"]
    assert "characters left out here" in outputs[0]
    assert "characters left out here" not in outputs[-1]
    # The transcript keeps what was cut.
    kept = [line for line in lines if line["type"] == "message" and line["role"] == "tool"]
    assert all("characters left out here" not in line["content"] for line in kept)
    ledger = (tmp_path / "runs" / result.run_id / "ledger.jsonl").read_text().splitlines()
    assert len(ledger) == len(loopback.requests)
    places = [(line["turn"], line["try"]) for line in map(json.loads, ledger)]
    assert len(set(places)) == len(places)


async def test_a_window_that_is_known_is_never_met_by_the_server(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    loopback.always(limited(loopback, 12_000))
    config = tmp_path / "fbench.toml"
    config.write_text(
        f'[providers.near]\nbase_url = "{loopback.url}"\nmodels = {{loopback-1 = {{context_window = 11_000}}}}\n'
    )
    result, lines = await run(loopback, make_task(), tmp_path, model="near/loopback-1", config=config, base_url=None)
    assert (result.status, result.end_reason) == ("completed", "submitted")
    assert any(line["type"] == "context_shortened" for line in lines)
    ledger = (tmp_path / "runs" / result.run_id / "ledger.jsonl").read_text().splitlines()
    assert {json.loads(line)["http_status"] for line in ledger} == {200}


def prices(tmp_path: Path, **windows: int) -> Path:
    """A price file of one's own with the window of loopback-1."""
    file = tmp_path / "prices.yaml"
    told = "".join(f", {name}: {tokens}" for name, tokens in windows.items())
    file.write_text(f"models: {{openai/loopback-1: {{input: 1, output: 2{told}}}}}\n")
    return file


def statuses(tmp_path: Path, result: RunResult) -> list[int]:
    ledger = (tmp_path / "runs" / result.run_id / "ledger.jsonl").read_text().splitlines()
    return [json.loads(line)["http_status"] for line in ledger]


async def test_a_window_of_the_price_table_is_never_met_by_the_server(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    loopback.always(limited(loopback, 12_000))
    result, lines = await run(loopback, make_task(), tmp_path, prices=prices(tmp_path, context_window=11_000))
    assert (result.status, result.end_reason, result.passed) == ("completed", "submitted", True)
    notes = [line for line in lines if line["type"] == "context_shortened"]
    assert notes
    assert {note["window_tokens"] for note in notes} == {11_000}
    assert set(statuses(tmp_path, result)) == {200}
    (rates,) = [line for line in lines if line["type"] == "rates_used"]
    assert "context_window" not in json.dumps(rates)


async def test_a_server_that_takes_more_than_the_table_says_gets_what_cannot_be_shortened_to_it(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    loopback.always(limited(loopback, 1_000_000))
    result, lines = await run(loopback, make_task(), tmp_path, prices=prices(tmp_path, context_window=300))
    assert (result.status, result.end_reason, result.error) == ("completed", "submitted", None)
    assert set(statuses(tmp_path, result)) == {200}
    assert [request.json["max_tokens"] for request in loopback.requests] == [4096] * 6
    assert any(line["type"] == "context_shortened" for line in lines)
    newest = loopback.requests[-1].json["messages"][-1]
    assert "characters left out here" not in newest["content"]


async def test_a_server_that_takes_less_than_the_table_says_is_believed(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    loopback.always(limited(loopback, 12_000))
    result, lines = await run(loopback, make_task(), tmp_path, prices=prices(tmp_path, context_window=200_000))
    assert (result.status, result.end_reason) == ("completed", "submitted")
    assert statuses(tmp_path, result).count(400) == 1
    assert {line["window_tokens"] for line in lines if line["type"] == "context_shortened"} == {12_000}


async def test_a_prompt_that_never_fits_ends_in_an_error_that_says_so(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    loopback.always(limited(loopback, 50))
    result, _ = await run(loopback, make_task(), tmp_path)
    assert result.error is not None
    assert (result.status, result.error.kind, result.score) == ("error", "context_exceeded", None)
    assert "50" in result.error.message


async def test_a_json_text_conversation_is_shortened_too(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    calls = 0

    async def behave(exchange: "Exchange") -> None:
        nonlocal calls
        tokens = tokens_of(exchange.request.json)
        if tokens > 12_000:
            await loopback.error(400, "maximum context length is 12000 tokens")(exchange)
            return
        calls += 1
        call = {"tool": "submit"} if calls > 5 else {"tool": "bash", "arguments": LONG}
        usage = {"prompt_tokens": tokens, "completion_tokens": 20}
        await loopback.say(json.dumps(call), usage=usage)(exchange)

    loopback.always(behave)
    result, lines = await run(loopback, make_task(tools={"style": "json_text"}), tmp_path)
    assert (result.status, result.end_reason, result.passed) == ("completed", "submitted", True)
    assert any(line["type"] == "context_shortened" for line in lines)


@pytest.mark.parametrize(
    ("status", "words", "tokens"),
    [
        (400, "'max_tokens' is too large: 4096. This model's maximum context length is 2048 tokens and", 2048),
        (400, "This endpoint's maximum context length is 131,072 tokens. However, you requested", 131_072),
        (400, "prompt is too long: 210000 tokens > 200000 maximum", 200_000),
        (400, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", 1_048_576),
        (422, "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens", 4096),
        (400, "the request exceeds the available context size. try increasing it", None),
        (500, '{"code":400,"type":"exceed_context_size_error","n_prompt_tokens":900,"n_ctx":512}', 512),
        (400, "Your input exceeds the context window of this model.", None),
    ],
)
def test_refusals_for_length_are_known_by_the_words_of_many_servers(
    status: int, words: str, tokens: int | None
) -> None:
    assert read_overlong(status, words) == Overlong(tokens)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "Unsupported parameter: 'temperature'"),
        (429, "Request too large for gpt-4 on tokens per min"),
        (401, "context window"),
        (400, ""),
    ],
)
def test_other_refusals_are_none_for_length(status: int, words: str) -> None:
    assert read_overlong(status, words) is None


def test_the_newest_output_and_all_that_is_no_output_stay_whole() -> None:
    def output(name: str) -> Message:
        return Message("tool", name * 5000, tool_call_id=name, is_output=True)

    messages = [Message("system", "s" * 9000), Message("user", "u" * 9000), output("a"), output("b"), output("c")]
    shortened = shorten_outputs(messages, 1_000_000)
    assert shortened.positions == (2, 3)
    assert [len(message.content) for message in shortened.messages[:2]] == [9000, 9000]
    assert shortened.messages[4] is messages[4]
    cut = shortened.messages[2].content
    assert cut.startswith("a" * KEPT_CHARS)
    assert cut.endswith("a" * KEPT_CHARS)
    assert f"{5000 - 2 * KEPT_CHARS} characters left out" in cut
    assert shorten_outputs(shortened.messages, 1_000_000).positions == ()


def test_no_more_is_shortened_than_has_to_be() -> None:
    messages = [Message("tool", "x" * 5000, tool_call_id=str(number), is_output=True) for number in range(5)]
    assert shorten_outputs(messages, 1).positions == (0,)


def test_a_window_learns_from_refusals_and_only_shrinks() -> None:
    window = Window(None)
    assert window.excess(10**9, 4096) == 0
    window.learn(None, 6000, 2000)
    assert window.tokens == 6000
    window.learn(8000, 5000, 100)
    assert window.tokens == 4500
    window.learn(4000, 4200, 100)
    assert window.tokens == 4000
    assert window.output_room(3900, 4096) == 100
    assert window.output_room(5000, 4096) == 1


def test_a_hint_lowers_the_answer_only_where_the_request_fits_it() -> None:
    hint = Window(8000, is_hint=True)
    assert (hint.excess(6000, 4096), hint.output_room(6000, 4096)) == (0, 2000)
    assert hint.excess(7500, 4096) > 0
    assert hint.output_room(7500, 4096) == 4096
    assert Window(8000).output_room(7500, 4096) == 500


@pytest.mark.parametrize(
    ("told", "input_tokens", "learnt"),
    [
        (4000, 5000, 4000),  # the server takes less
        (32_000, 33_000, 32_000),  # more
        (8000, 9000, 8000),  # what the hint says, which was not held to
        (None, 9000, 8000),  # and says nothing: where more was sent, the hint is right
        (None, 4900, 3750),  # where less was sent, it is wrong, or the estimate is
        (8000, 4900, 3750),  # the estimate is
    ],
)
def test_a_refusal_corrects_a_hint_which_is_none_from_then_on(told: int | None, input_tokens: int, learnt: int) -> None:
    window = Window(8000, is_hint=True)
    window.learn(told, input_tokens, 100)
    assert (window.tokens, window.is_hint) == (learnt, False)
