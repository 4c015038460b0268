"""The Responses API: what is sent, what comes back, and reasoning that is kept between turns."""

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbench.engine.models.answers import Answer
from fbench.engine.models.names import ModelSpec, open_model
from fbench.engine.models.responses import read_response
from fbench.engine.seams import AttemptFailed, Message, ModelReply, ModelRequest, ToolCall, ToolSchema, Usage

if TYPE_CHECKING:
    from tests.loopback.server import Behaviour, LoopbackServer

HELLO = ModelRequest(messages=[Message("user", "Hello")])
KEY = "sk-secret-0123456789"
NAME = "openai/gpt-5.1-codex"
BASH = ToolSchema("bash", "Runs.", {"type": "object", "properties": {}})


def spec(server: "LoopbackServer", name: str = NAME, **more: Any) -> ModelSpec:
    return ModelSpec(name, server.url, KEY, **more)


async def ask(server: "LoopbackServer", request: ModelRequest = HELLO, **more: Any) -> ModelReply:
    async with open_model(spec(server, **more)) as model:
        return await model.complete(request)


async def fail(server: "LoopbackServer", behaviour: "Behaviour") -> AttemptFailed:
    server.plan(behaviour)
    with pytest.raises(AttemptFailed) as caught:
        await ask(server)
    text = str(caught.value)
    assert "\n" not in text
    assert KEY not in text
    assert len(text) < 700
    return caught.value


async def test_a_plain_answer_becomes_a_reply(loopback: "LoopbackServer") -> None:
    loopback.plan(loopback.respond("Grüße"))
    reply = await ask(loopback)
    assert (reply.content, reply.usage) == ("Grüße", Usage(input=11, output=7))
    assert (reply.model_answered, reply.finish_reason, reply.http_status) == ("loopback-1", "stop", 200)
    (request,) = loopback.requests
    assert (request.method, request.path) == ("POST", "/v1/responses")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.json == {
        "model": "gpt-5.1-codex",
        "input": [{"type": "message", "role": "user", "content": "Hello"}],
        "max_output_tokens": 4096,
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }


async def test_tools_are_flat_and_settings_are_sent_in_the_words_of_this_api(loopback: "LoopbackServer") -> None:
    await ask(loopback, ModelRequest([Message("user", "Hello")], (BASH,), 7, 0.0, 0.5, 3, "low"))
    body = loopback.requests[0].json
    assert body["tools"] == [
        {
            "type": "function",
            "name": "bash",
            "description": "Runs.",
            "parameters": {"type": "object", "properties": {}},
            "strict": False,
        }
    ]
    assert (body["reasoning"], body["max_output_tokens"]) == ({"effort": "low"}, 7)
    assert (body["temperature"], body["top_p"]) == (0.0, 0.5)
    assert "seed" not in body


async def test_reasoning_goes_back_in_its_place_between_turns(loopback: "LoopbackServer") -> None:
    first = loopback.respond(
        "I look.", reasoning="gAAAA", calls=[loopback.function_call("bash", {"command": "ls"}, "call_a")]
    )
    loopback.plan(first)
    async with open_model(spec(loopback)) as model:
        messages = [Message("system", "Be good."), Message("user", "Look.")]
        reply = await model.complete(ModelRequest(messages, (BASH,)))
        assert (reply.tool_calls, reply.finish_reason) == (
            (ToolCall("call_a", "bash", '{"command": "ls"}'),),
            "tool_calls",
        )
        messages += [
            Message("assistant", reply.content, reply.tool_calls, provider_items=reply.provider_items),
            Message("tool", "out", tool_call_id="call_a"),
        ]
        await model.complete(ModelRequest(messages, (BASH,)))
    assert loopback.requests[1].json["input"] == [
        {"type": "message", "role": "system", "content": "Be good."},
        {"type": "message", "role": "user", "content": "Look."},
        {"type": "reasoning", "id": "rs_gAAAA", "summary": [], "encrypted_content": "gAAAA"},
        {"type": "message", "role": "assistant", "content": "I look."},
        {"type": "function_call", "call_id": "call_a", "name": "bash", "arguments": '{"command": "ls"}'},
        {"type": "function_call_output", "call_id": "call_a", "output": "out"},
    ]


async def test_items_are_json_and_carry_the_ids_the_run_knows(loopback: "LoopbackServer") -> None:
    calls = [loopback.function_call("b@sh", "{broken", call_id) for call_id in ("", "x", "x", None)]
    loopback.plan(loopback.respond(None, calls=calls))
    reply = await ask(loopback)
    ids = [call.id for call in reply.tool_calls]
    assert len(set(ids)) == 4
    assert [item["call_id"] for item in reply.provider_items] == ids
    assert {(item["name"], item["arguments"]) for item in reply.provider_items} == {("b_sh", "{}")}
    assert [call.arguments for call in reply.tool_calls] == ["{broken"] * 4
    assert json.loads(json.dumps(reply.provider_items)) == list(reply.provider_items)


async def test_readable_reasoning_is_shown_and_sent_back_where_nothing_is_encrypted(loopback: "LoopbackServer") -> None:
    thought = {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
    empty = {"type": "reasoning", "id": "r0", "summary": [{"type": "summary_text", "text": "Sum."}]}
    output = [thought, empty, loopback.function_call("bash", {})]
    loopback.plan(loopback.respond(output=output))
    reply = await ask(loopback)
    assert reply.reasoning == "Hm.\n\nSum."
    assert [item["type"] for item in reply.provider_items] == ["reasoning", "function_call"]
    assert reply.provider_items[0]["content"] == thought["content"]


async def test_reasoning_that_nothing_follows_is_not_sent_back(loopback: "LoopbackServer") -> None:
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    loopback.plan(loopback.respond(None, reasoning="gAAAA", **cut))
    reply = await ask(loopback)
    assert (reply.content, reply.finish_reason, reply.provider_items) == ("", "length", ())
    await ask(loopback, ModelRequest([Message("assistant", ""), Message("user", "Empty.")]))
    assert [item["content"] for item in loopback.requests[1].json["input"]] == ["Empty."]


@pytest.mark.parametrize(
    ("details", "finish"),
    [
        ({"reason": "max_output_tokens"}, "length"),
        ({"reason": "content_filter"}, "content_filter"),
        (None, "incomplete"),
        ("odd", "incomplete"),
    ],
)
async def test_an_incomplete_response_is_a_reply_that_says_why(
    loopback: "LoopbackServer", details: object, finish: str
) -> None:
    loopback.plan(loopback.respond("So f", status="incomplete", incomplete_details=details))
    reply = await ask(loopback)
    assert (reply.content, reply.finish_reason, reply.usage) == ("So f", finish, Usage(input=11, output=7))


async def test_usage_is_read_in_the_words_of_this_api(loopback: "LoopbackServer") -> None:
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
        "output_tokens": 50,
        "output_tokens_details": {"reasoning_tokens": 40},
        "total_tokens": 150,
    }
    loopback.plan(loopback.respond(usage=usage))
    reply = await ask(loopback)
    assert reply.usage == Usage(input=10, cache_read=60, cache_write=30, output=50, reasoning=40)
    assert reply.usage_raw == usage


async def test_reasoning_that_is_sent_again_counts_as_input(loopback: "LoopbackServer") -> None:
    details = {"output_tokens_details": {"reasoning_tokens": 80}}
    loopback.plan(loopback.respond("ok", usage={"input_tokens": 5000, "output_tokens": 100, **details}))
    async with open_model(spec(loopback)) as model:
        messages = [Message("user", "x")]
        await model.complete(ModelRequest(messages))
        messages += [Message("assistant", "ok"), Message("user", "y" * 40)]
        assert model.estimate(ModelRequest(messages)).input == 5000 + 100 + 14


@pytest.mark.parametrize(
    ("code", "retryable"),
    [
        ("server_error", True),
        ("rate_limit_exceeded", True),
        ("invalid_prompt", False),
        ("bio_policy", False),
        (5, True),
    ],
)
async def test_a_failed_response_is_tried_again_unless_it_was_what_we_asked(
    loopback: "LoopbackServer", code: object, retryable: bool
) -> None:
    error = {"code": code, "message": f"no, {KEY}"}
    failed = await fail(loopback, loopback.respond(status="failed", error=error, output=[]))
    assert failed.retryable == retryable
    assert "no, [redacted]" in str(failed)


async def test_an_error_with_status_200_is_worth_another_try(loopback: "LoopbackServer") -> None:
    failed = await fail(loopback, loopback.json({"error": {"message": "overloaded", "code": "overloaded"}}))
    assert failed.retryable
    assert "overloaded" in str(failed)


@pytest.mark.parametrize("status", ["in_progress", "queued", "cancelled"])
async def test_a_response_that_is_not_done_is_a_failed_attempt(loopback: "LoopbackServer", status: str) -> None:
    failed = await fail(loopback, loopback.respond(status=status))
    assert failed.retryable
    assert status in str(failed)


@pytest.mark.parametrize("output", [None, [], {}, "no", [None], ["text"], 3])
async def test_output_without_an_item_is_a_failed_attempt(loopback: "LoopbackServer", output: object) -> None:
    assert (await fail(loopback, loopback.respond(output=output))).retryable


@pytest.mark.parametrize("name", ["html", "cut_json", "cut_body", "no_http", "gzip_garbage", "reset", "say"])
async def test_a_garbled_answer_is_a_failed_attempt_worth_another(loopback: "LoopbackServer", name: str) -> None:
    assert (await fail(loopback, getattr(loopback, name)())).retryable


@pytest.mark.parametrize(("status", "retryable"), [(429, True), (500, True), (503, True), (400, False), (401, False)])
async def test_a_refusal_is_read_as_everywhere(loopback: "LoopbackServer", status: int, retryable: bool) -> None:
    failed = await fail(loopback, loopback.error(status, "no", retry_after="3"))
    assert (failed.retryable, failed.http_status, failed.retry_after_s) == (retryable, status, 3.0)


async def test_encrypted_reasoning_is_not_asked_for_again_where_there_is_none(loopback: "LoopbackServer") -> None:
    loopback.plan(loopback.error(400, "Encrypted content is not supported with this model."))
    async with open_model(spec(loopback)) as model:
        with pytest.raises(AttemptFailed, match="not asked for from now on") as caught:
            await model.complete(HELLO)
        assert caught.value.retryable
        await model.complete(HELLO)
    assert "include" not in loopback.requests[1].json


async def test_a_chat_refusal_that_names_the_responses_api_is_followed(loopback: "LoopbackServer") -> None:
    loopback.plan(loopback.error(404, "This model is only supported in v1/responses and not in v1/chat/completions."))
    async with open_model(spec(loopback, "openai/new-model")) as model:
        with pytest.raises(AttemptFailed, match="Responses API is asked from now on") as caught:
            await model.complete(HELLO)
        assert caught.value.retryable
        assert (await model.complete(HELLO)).content == "Hello."
    assert [request.path for request in loopback.requests] == ["/v1/chat/completions", "/v1/responses"]


async def test_an_api_that_was_asked_for_is_kept(loopback: "LoopbackServer") -> None:
    loopback.plan(loopback.error(404, "This model is only supported in v1/responses and not in v1/chat/completions."))
    async with open_model(spec(loopback, "openai/gpt-5-pro", api="chat")) as model:
        with pytest.raises(AttemptFailed) as caught:
            await model.complete(HELLO)
    assert not caught.value.retryable
    assert loopback.requests[0].path == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("gpt-5-codex", "responses"),
        ("gpt-5.1-codex-max", "responses"),
        ("codex-mini-latest", "responses"),
        ("o1-pro-2025-03-19", "responses"),
        ("gpt-5.5-pro", "responses"),
        ("o4-mini-deep-research", "responses"),
        ("o3", "chat/completions"),
        ("gpt-5", "chat/completions"),
        ("gpt-5.1-mini", "chat/completions"),
        ("gpt-4o", "chat/completions"),
        ("pro", "chat/completions"),
        ("o3-professional", "chat/completions"),
    ],
)
async def test_only_openais_names_that_need_it_get_the_responses_api(
    loopback: "LoopbackServer", name: str, path: str
) -> None:
    async with open_model(spec(loopback, f"openai/{name}")) as model:
        await model.complete(HELLO)
    assert loopback.requests[0].path == f"/v1/{path}"


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()), max_size=8)
)
WORDS = """output type content text summary encrypted_content call_id name arguments id usage status error code
incomplete_details reason phase model input_tokens output_tokens"""
KEYS = st.sampled_from(WORDS.split())
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6))
ITEM = st.fixed_dictionaries(
    {"type": st.sampled_from(["message", "function_call", "reasoning"]) | JSON},
    optional=dict.fromkeys(("content", "summary", "encrypted_content", "call_id", "name", "arguments", "phase"), JSON),
)
DOCUMENT = st.fixed_dictionaries(
    {"output": st.lists(ITEM, max_size=4) | JSON},
    optional={"status": st.sampled_from(["completed", "incomplete", "failed"]) | JSON, "error": JSON, "usage": JSON,
              "incomplete_details": JSON, "model": JSON},
)  # fmt: skip


@given(DOCUMENT | JSON, st.sampled_from([200, 200, 204, 400, 429, 599]))
@settings(max_examples=800, deadline=None)
def test_any_json_is_a_reply_or_a_failed_attempt(document: object, status: int) -> None:
    with contextlib.suppress(AttemptFailed):
        reply = read_response(Answer(status, {}, json.dumps(document).encode()))
        for text in (reply.content, reply.reasoning or "", reply.finish_reason or "", reply.model_answered or ""):
            text.encode("utf-8")
        assert len({call.id for call in reply.tool_calls}) == len(reply.tool_calls)
        json.dumps(reply.provider_items, ensure_ascii=False, allow_nan=False).encode("utf-8")
        assert not reply.provider_items or reply.provider_items[-1]["type"] != "reasoning"
