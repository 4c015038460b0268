"""`openai/NAME` against a server that answers in every way real ones were seen to."""

import json
import socket
import ssl
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from fbench.engine.errors import UsageError
from fbench.engine.models.endpoint import tls_context
from fbench.engine.models.names import ModelSpec, open_model
from fbench.engine.seams import AttemptFailed, Message, ModelReply, ModelRequest, ToolCall, ToolSchema, Usage

if TYPE_CHECKING:
    from tests.loopback.server import Behaviour, LoopbackServer

HELLO = ModelRequest(messages=[Message("user", "Hello")])
KEY = "sk-secret-0123456789"


async def ask(server: "LoopbackServer", request: ModelRequest = HELLO, **spec: Any) -> ModelReply:
    async with open_model(ModelSpec("openai/loopback-1", server.url, KEY, **spec)) as model:
        return await model.complete(request)


async def fail(server: "LoopbackServer", behaviour: "Behaviour", **spec: Any) -> AttemptFailed:
    server.plan(behaviour)
    with pytest.raises(AttemptFailed) as caught:
        await ask(server, **spec)
    text = str(caught.value)
    assert "\n" not in text
    assert KEY not in text
    assert len(text) < 700
    return caught.value


async def test_a_plain_answer_becomes_a_reply(loopback: "LoopbackServer") -> None:
    loopback.plan(loopback.say("Grüße"))
    reply = await ask(loopback)
    assert reply.content == "Grüße"
    assert reply.usage == Usage(input=11, output=7)
    assert (reply.model_answered, reply.finish_reason, reply.http_status) == ("loopback-1", "stop", 200)
    (request,) = loopback.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.json == {
        "model": "loopback-1",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 4096,
    }


def test_clients_share_the_certificates_they_trust_until_others_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    usual = tls_context()
    assert usual.verify_mode == ssl.CERT_REQUIRED
    assert usual.check_hostname
    assert tls_context() is usual
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert tls_context() is not usual
    assert tls_context().cert_store_stats()["x509_ca"] == 0
    monkeypatch.delenv("SSL_CERT_DIR")
    assert tls_context() is usual


async def test_only_what_is_set_is_sent(loopback: "LoopbackServer") -> None:
    tool = ToolSchema("bash", "Runs.", {"type": "object", "properties": {}})
    request = ModelRequest([Message("user", "Hello")], (tool,), 7, 0.0, 0.5, 3, "low")
    await ask(loopback, request)
    body = loopback.requests[0].json
    assert body.pop("messages")
    assert body == {
        "model": "loopback-1",
        "max_tokens": 7,
        "temperature": 0.0,
        "top_p": 0.5,
        "seed": 3,
        "reasoning_effort": "low",
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "bash",
                    "description": "Runs.",
                    "parameters": {"type": "object", "properties": {}},
                },
            }
        ],
    }


@pytest.mark.parametrize("name", ["o1", "o3-mini", "o4-mini-2025-04-16", "gpt-5", "gpt-5.1-mini", "vendor/gpt-5-nano"])
async def test_reasoning_models_get_max_completion_tokens(loopback: "LoopbackServer", name: str) -> None:
    async with open_model(ModelSpec(f"openai/{name}", loopback.url)) as model:
        await model.complete(HELLO)
    body = loopback.requests[0].json
    assert body["max_completion_tokens"] == 4096
    assert "max_tokens" not in body
    assert body["model"] == name


@pytest.mark.parametrize("name", ["gpt-4o", "gpt-35-turbo", "o", "orca", "gpt-oss-20b", "gpt-500x"])
async def test_other_models_get_max_tokens(loopback: "LoopbackServer", name: str) -> None:
    async with open_model(ModelSpec(f"openai/{name}", loopback.url)) as model:
        await model.complete(HELLO)
    assert "max_tokens" in loopback.requests[0].json


async def test_a_server_that_wants_the_other_cap_gets_it_on_the_next_try(loopback: "LoopbackServer") -> None:
    loopback.plan(loopback.error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."))
    async with open_model(ModelSpec("openai/new-model", loopback.url)) as model:
        with pytest.raises(AttemptFailed) as caught:
            await model.complete(HELLO)
        assert caught.value.retryable
        await model.complete(HELLO)
    assert loopback.requests[1].json["max_completion_tokens"] == 4096
    assert "max_tokens" not in loopback.requests[1].json


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("Unsupported parameter: 'temperature' is not supported with this model.", "temperature"),
        ("Unsupported value: 'temperature' does not support 0 with this model. Only 1 is supported.", "temperature"),
        ("Unsupported parameter: 'top_p' is not supported with this model.", "top_p"),
        ("Unknown parameter: `seed`", "seed"),
    ],
)
async def test_a_setting_the_model_does_not_take_is_left_out_on_the_next_try(
    loopback: "LoopbackServer", words: str, key: str
) -> None:
    loopback.plan(loopback.error(400, words))
    request = ModelRequest([Message("user", "Hello")], temperature=0.0, top_p=0.5, seed=3)
    async with open_model(ModelSpec("openai/m", loopback.url)) as model:
        with pytest.raises(AttemptFailed, match=f"`{key}` is left out from now on") as caught:
            await model.complete(request)
        assert caught.value.retryable
        await model.complete(request)
    first, second = (set(received.json) for received in loopback.requests)
    assert first - second == {key}


async def test_a_refusal_is_learnt_from_only_once(loopback: "LoopbackServer") -> None:
    loopback.always(loopback.error(400, "Unsupported parameter: 'temperature' is not supported with this model."))
    request = ModelRequest([Message("user", "Hello")], temperature=0.0)
    async with open_model(ModelSpec("openai/m", loopback.url)) as model:
        for retryable in (True, False, False):
            with pytest.raises(AttemptFailed) as caught:
                await model.complete(request)
            assert caught.value.retryable == retryable


async def test_an_effort_the_model_does_not_take_is_a_lasting_refusal(loopback: "LoopbackServer") -> None:
    words = "Unsupported value: 'reasoning_effort' does not support 'minimal' with this model."
    request = ModelRequest([Message("user", "Hello")], reasoning_effort="minimal")
    loopback.plan(loopback.error(400, words))
    async with open_model(ModelSpec("openai/m", loopback.url)) as model:
        with pytest.raises(AttemptFailed, match="minimal") as caught:
            await model.complete(request)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "words",
    [
        "The `reasoning_content` in the thinking mode must be passed back to the API.",
        "thinking is enabled but reasoning_content is missing in assistant tool call message at index 2",
    ],
)
async def test_reasoning_is_sent_back_only_to_a_server_that_wants_it(loopback: "LoopbackServer", words: str) -> None:
    said = Message("assistant", "", (ToolCall("a", "bash", "{}"),), reasoning="Hm.")
    request = ModelRequest([said, Message("tool", "out", tool_call_id="a")])
    loopback.plan(loopback.error(400, words))
    async with open_model(ModelSpec("openai/m", loopback.url)) as model:
        with pytest.raises(AttemptFailed, match="sent back from now on") as caught:
            await model.complete(request)
        assert caught.value.retryable
        await model.complete(request)
    first, second = (received.json["messages"][0] for received in loopback.requests)
    assert "reasoning_content" not in first
    assert second == {**first, "reasoning_content": "Hm."}


async def test_headers_of_a_provider_are_sent_and_no_key_where_there_is_none(loopback: "LoopbackServer") -> None:
    spec = ModelSpec("local/m", loopback.url, headers={"X-Team": "evals"}, is_configured=True)
    async with open_model(spec) as model:
        await model.complete(HELLO)
    (request,) = loopback.requests
    assert request.headers["x-team"] == "evals"
    assert "authorization" not in request.headers


@pytest.mark.parametrize("header", ["Authorization", "authorization"])
async def test_a_header_of_ones_own_takes_the_place_of_the_key(loopback: "LoopbackServer", header: str) -> None:
    spec = ModelSpec("local/m", loopback.url, KEY, headers={header: "Basic abc"}, is_configured=True)
    async with open_model(spec) as model:
        await model.complete(HELLO)
    assert loopback.requests[0].headers["authorization"] == "Basic abc"
    assert loopback.requests[0].body.count(KEY.encode()) == 0


async def test_a_header_that_cannot_be_sent_is_refused_without_its_value() -> None:
    spec = ModelSpec("local/m", "http://127.0.0.1:1/v1", headers={"X-Key": "line\nbreak"}, is_configured=True)
    with pytest.raises(UsageError, match="X-Key") as caught:
        async with open_model(spec):
            pass
    assert "break" not in str(caught.value)


async def test_a_secret_header_that_comes_back_is_masked(loopback: "LoopbackServer") -> None:
    loopback.plan(loopback.error(500, "bad token gate-secret-123"))
    spec = ModelSpec("local/m", loopback.url, secrets=("gate-secret-123",), is_configured=True)
    async with open_model(spec) as model:
        with pytest.raises(AttemptFailed, match=r"bad token \[redacted\]"):
            await model.complete(HELLO)


async def test_a_history_is_echoed_in_a_form_strict_servers_take(loopback: "LoopbackServer") -> None:
    calls = (
        ToolCall("a", "bash", '{"command": "ls"}'),
        ToolCall("b", "b@sh tool", "{broken"),
        ToolCall("c", "", "[1]"),
    )
    messages = [
        Message("system", "Be\ud800good\x00."),
        Message("assistant", "", tool_calls=calls),
        Message("tool", "out\udfff", tool_call_id="a"),
        Message("assistant", ""),
    ]
    await ask(loopback, ModelRequest(messages))
    assert loopback.requests[0].json["messages"] == [
        {"role": "system", "content": "Be\ufffdgood\x00."},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}},
                {"id": "b", "type": "function", "function": {"name": "b_sh_tool", "arguments": "{}"}},
                {"id": "c", "type": "function", "function": {"name": "unknown", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "out\ufffd"},
        {"role": "assistant", "content": ""},
    ]


async def test_a_conversation_that_was_rewritten_is_sent_as_it_is_now(loopback: "LoopbackServer") -> None:
    async with open_model(ModelSpec("openai/m", loopback.url)) as model:
        for texts in (["a", "b", "c"], ["a", "x"], ["y"]):
            await model.complete(ModelRequest([Message("user", text) for text in texts]))
    sent = [[message["content"] for message in request.json["messages"]] for request in loopback.requests]
    assert sent == [["a", "b", "c"], ["a", "x"], ["y"]]


async def test_arguments_as_an_object_are_accepted(loopback: "LoopbackServer") -> None:
    call = {"id": "x", "type": "function", "function": {"name": "bash", "arguments": {"command": "ls"}}}
    loopback.plan(loopback.say(None, tool_calls=[call]))
    reply = await ask(loopback)
    assert json.loads(reply.tool_calls[0].arguments) == {"command": "ls"}


@pytest.mark.parametrize("call_id", ["", None, 5, "  ", ["x"], "i" * 1000])
async def test_an_unusable_call_id_is_replaced(loopback: "LoopbackServer", call_id: object) -> None:
    loopback.plan(loopback.say(None, tool_calls=[loopback.call("bash", {}, call_id) for _ in range(2)]))
    reply = await ask(loopback)
    ids = [call.id for call in reply.tool_calls]
    assert len(set(ids)) == 2
    assert all(one.startswith("call_") for one in ids)


async def test_an_id_used_before_in_the_conversation_is_replaced(loopback: "LoopbackServer") -> None:
    twice = loopback.say(None, tool_calls=[loopback.call("bash", {}, "call_0"), loopback.call("bash", {}, "call_0")])
    loopback.plan(twice, twice)
    async with open_model(ModelSpec("openai/m", loopback.url)) as model:
        replies = [await model.complete(HELLO) for _ in range(2)]
    ids = [call.id for reply in replies for call in reply.tool_calls]
    assert ids[0] == "call_0"
    assert len(set(ids)) == 4


async def test_chunks_and_compression_are_read(loopback: "LoopbackServer") -> None:
    loopback.plan(loopback.chunked("€uro"), loopback.gzipped())
    async with open_model(ModelSpec("openai/m", loopback.url)) as model:
        assert (await model.complete(HELLO)).content == "€uro"
        assert (await model.complete(HELLO)).content == "Hello."


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("html", "HTML"),
        ("cut_json", "not JSON"),
        ("cut_body", "connection failed"),
        ("no_http", "connection failed"),
        ("gzip_garbage", "connection failed"),
    ],
)
async def test_a_garbled_answer_is_a_failed_attempt_worth_another(
    loopback: "LoopbackServer", name: str, words: str
) -> None:
    failed = await fail(loopback, getattr(loopback, name)())
    assert failed.retryable
    assert words in str(failed)


@pytest.mark.parametrize("after", [0, 1, 40])
async def test_a_reset_is_a_failed_attempt_worth_another(loopback: "LoopbackServer", after: int) -> None:
    failed = await fail(loopback, loopback.reset(after=after))
    assert failed.retryable
    assert failed.http_status is None


@pytest.mark.parametrize("body", [b"", b"  \n", b"null", b"[]", b'"text"', b"17", b"\xff\xfe\x00", b"[" * 100_000])
async def test_a_body_that_is_no_object_is_a_failed_attempt(loopback: "LoopbackServer", body: bytes) -> None:
    failed = await fail(loopback, loopback.raw(body))
    assert failed.retryable
    assert failed.http_status == 200


async def test_no_content_is_a_failed_attempt(loopback: "LoopbackServer") -> None:
    failed = await fail(loopback, loopback.raw(b"", status=204))
    assert failed.retryable
    assert failed.http_status == 204


@pytest.mark.parametrize("choices", [None, [], {}, "no", [None], ["text"], [{}], [{"message": None}], 3])
async def test_choices_without_a_message_are_a_failed_attempt(loopback: "LoopbackServer", choices: object) -> None:
    failed = await fail(loopback, loopback.say(choices=choices))
    assert failed.retryable


async def test_an_error_with_status_200_says_its_words(loopback: "LoopbackServer") -> None:
    failed = await fail(loopback, loopback.json({"error": {"message": f"overloaded {KEY}", "code": 529}}))
    assert failed.retryable
    assert "overloaded [redacted]" in str(failed)


async def test_a_redirect_is_not_followed_and_says_where_to(loopback: "LoopbackServer") -> None:
    failed = await fail(loopback, loopback.raw(b"", status=301, headers={"location": "http://elsewhere.test/v1"}))
    assert not failed.retryable
    assert "http://elsewhere.test/v1" in str(failed)
    assert len(loopback.requests) == 1


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
async def test_a_passing_refusal_is_worth_another_try(loopback: "LoopbackServer", status: int) -> None:
    failed = await fail(loopback, loopback.error(status, "busy", retry_after="3"))
    assert failed.retryable
    assert (failed.http_status, failed.retry_after_s) == (status, 3.0)
    assert "busy" in str(failed)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 418, 422])
async def test_a_lasting_refusal_is_not_tried_again(loopback: "LoopbackServer", status: int) -> None:
    failed = await fail(loopback, loopback.error(status, "never"))
    assert not failed.retryable
    assert "never" in str(failed)


async def test_a_used_up_quota_is_not_tried_again(loopback: "LoopbackServer") -> None:
    failed = await fail(loopback, loopback.error(429, "You exceeded your quota", code="insufficient_quota"))
    assert not failed.retryable
    assert "quota" in str(failed)


async def test_a_refusal_quotes_at_most_a_line_and_never_the_key(loopback: "LoopbackServer") -> None:
    failed = await fail(loopback, loopback.raw(f"key {KEY}\n\n\x00oh ".encode() * 500_000, status=500))
    assert "[redacted]" in str(failed)


@pytest.mark.parametrize("behaviour", ["silence", "drip"])
async def test_an_attempt_ends_at_its_timeout(loopback: "LoopbackServer", behaviour: str) -> None:
    slow = loopback.silence(30) if behaviour == "silence" else loopback.drip(every_s=0.05)
    begun = time.monotonic()
    failed = await fail(loopback, slow, attempt_timeout_s=0.4)
    assert time.monotonic() - begun < 5
    assert failed.retryable
    assert "within 0.4 s" in str(failed)
    assert loopback.wait_for(lambda: loopback.open_connections == 0)


async def test_a_silence_that_ends_in_time_is_an_answer(loopback: "LoopbackServer") -> None:
    loopback.plan(loopback.silence(0.5, loopback.say("at last")))
    assert (await ask(loopback)).content == "at last"


async def test_a_refused_connection_is_worth_another_try() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with open_model(ModelSpec("openai/m", f"http://127.0.0.1:{port}/v1")) as model:
        with pytest.raises(AttemptFailed, match="connection failed") as caught:
            await model.complete(HELLO)
    assert caught.value.retryable


async def test_a_host_without_an_address_is_a_failed_attempt() -> None:
    async with open_model(ModelSpec("openai/m", "http://no-such-host.invalid/v1")) as model:
        with pytest.raises(AttemptFailed, match="connection failed") as caught:
            await model.complete(HELLO)
    assert caught.value.retryable


async def test_a_server_without_tls_behind_https_is_a_failed_attempt(loopback: "LoopbackServer") -> None:
    url = loopback.url.replace("http:", "https:")
    async with open_model(ModelSpec("openai/m", url, attempt_timeout_s=0.5)) as model:
        with pytest.raises(AttemptFailed, match=r"no connection within 0\.25 s"):
            await model.complete(HELLO)


async def test_a_huge_body_is_refused_in_bounded_memory(loopback: "LoopbackServer") -> None:
    bomb = loopback.gzip_bomb(400)
    tracemalloc.start()
    try:
        failed = await fail(loopback, bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert failed.retryable
    assert "over 67108864 bytes" in str(failed)
    assert peak < 256 * 1024**2


async def test_a_cancelled_attempt_leaves_no_connection(loopback: "LoopbackServer") -> None:
    loopback.plan(loopback.silence(30))
    async with open_model(ModelSpec("openai/m", loopback.url)) as model:
        with anyio.move_on_after(0.3) as scope:
            await model.complete(HELLO)
        assert scope.cancelled_caught
        await anyio.lowlevel.checkpoint()  # the loop's next turn closes it
        assert loopback.wait_for(lambda: loopback.open_connections == 0)
        assert (await model.complete(HELLO)).content == "Hello."
    assert loopback.wait_for(lambda: loopback.open_connections == 0)


async def test_connections_are_reused(loopback: "LoopbackServer") -> None:
    async with open_model(ModelSpec("openai/m", loopback.url)) as model:
        for _ in range(5):
            await model.complete(HELLO)
            assert loopback.open_connections == 1


async def test_settings_of_the_sdk_in_the_environment_are_not_sent(
    loopback: "LoopbackServer", monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "from-the-environment")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-extra: from-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://from-the-environment.invalid")
    async with open_model(ModelSpec("openai/m", loopback.url)) as model:
        await model.complete(HELLO)
    (request,) = loopback.requests
    assert "from-the-environment" not in json.dumps(dict(request.headers))
    assert request.headers["authorization"] == "Bearer none"


async def test_a_server_on_this_machine_is_asked_past_the_proxy(
    loopback: "LoopbackServer", monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert (await ask(loopback)).content == "Hello."


@pytest.mark.parametrize("base_url", [None, "https://api.openai.com/v1/"])
async def test_openai_itself_needs_a_key(base_url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-passed-so-not-used")
    with pytest.raises(UsageError, match="set OPENAI_API_KEY"):
        async with open_model(ModelSpec("openai/gpt-4o", base_url)):
            pass


@pytest.mark.parametrize("key", ["schlüssel", "two words", "line\nbreak"])
async def test_a_key_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match="OPENAI_API_KEY") as caught:
        async with open_model(ModelSpec("openai/gpt-4o", None, key)):
            pass
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x/v1", "http://", "http://[::1", "http://a b/v1", "http://h:x"]
)
async def test_a_base_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is no address of a server"):
        async with open_model(ModelSpec("openai/m", url)):
            pass


async def test_the_estimate_follows_the_servers_own_count(loopback: "LoopbackServer") -> None:
    loopback.plan(loopback.say("ok", usage={"prompt_tokens": 5000, "completion_tokens": 100}))
    async with open_model(ModelSpec("openai/m", loopback.url)) as model:
        messages = [Message("user", "x" * 400)]
        request = ModelRequest(messages)
        assert model.estimate(request).input == 104
        await model.complete(request)
        messages += [Message("assistant", "ok"), Message("user", "y" * 40)]
        assert model.estimate(request).input == 5000 + 100 + 14


async def test_calls_cost_little(loopback: "LoopbackServer") -> None:
    messages = [Message("user", "word " * 2000) for _ in range(40)]
    async with open_model(ModelSpec("openai/m", loopback.url)) as model:
        await model.complete(ModelRequest(messages))
        begun = time.thread_time()
        for _ in range(20):
            await model.complete(ModelRequest(messages))
        assert (time.thread_time() - begun) / 20 < 0.05
