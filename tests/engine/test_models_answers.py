"""Reading answers without trust: whatever the bytes, a reply or an AttemptFailed."""

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbench.engine.models.answers import Answer, excerpt, read_retry_after
from fbench.engine.models.chat import read_reply
from fbench.engine.models.usage import read_usage
from fbench.engine.seams import AttemptFailed, ModelReply, Usage

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=12)
)
KEYS = st.sampled_from(
    [
        "choices",
        "message",
        "content",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "id",
        "usage",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "prompt_tokens_details",
        "cached_tokens",
        "completion_tokens_details",
        "reasoning_tokens",
        "error",
        "code",
        "model",
        "finish_reason",
        "reasoning",
        "function_call",
        "refusal",
        "type",
        "text",
    ]
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6))


@st.composite
def near_answers(draw: st.DrawFn) -> Any:
    """Documents that are nearly right, with anything in any place."""
    function = {"name": draw(JSON), "arguments": draw(JSON)}
    call = draw(JSON | st.just({"id": draw(JSON), "function": function}))
    message = draw(JSON | st.just({"content": draw(JSON), "tool_calls": draw(st.lists(st.just(call)) | JSON)}))
    usage = {
        "prompt_tokens": draw(JSON),
        "completion_tokens": draw(JSON),
        "prompt_tokens_details": draw(JSON | st.just({"cached_tokens": draw(JSON)})),
    }
    return {"choices": [{"message": message}], "usage": draw(JSON | st.just(usage)), "model": draw(JSON)}


def read(document: object, status: int = 200) -> ModelReply:
    return read_reply(Answer(status, {}, json.dumps(document).encode()))


def check_usable(reply: ModelReply) -> None:
    texts = [reply.content, reply.reasoning or "", reply.model_answered or "", reply.finish_reason or ""]
    for call in reply.tool_calls:
        texts += [call.id, call.name, call.arguments]
        assert call.id
    for text in texts:
        text.encode("utf-8")
    assert len({call.id for call in reply.tool_calls}) == len(reply.tool_calls)
    if reply.usage is not None:
        counts = (reply.usage.input, reply.usage.cache_read, reply.usage.output, reply.usage.reasoning)
        assert all(type(count) is int and 0 <= count <= 10**9 for count in counts)
        assert reply.usage.reasoning <= reply.usage.output
    json.dumps(reply.usage_raw, ensure_ascii=False, allow_nan=False).encode("utf-8")


@given(JSON | near_answers(), st.sampled_from([200, 200, 204, 301, 400, 429, 500, 599, 999]))
@settings(max_examples=1500, deadline=None)
def test_any_json_is_a_reply_or_a_failed_attempt(document: object, status: int) -> None:
    with contextlib.suppress(AttemptFailed):
        check_usable(read(document, status))


COUNTS = st.integers(0, 10**6)
ANY_COUNT = COUNTS | SCALARS
DETAILS = st.dictionaries(
    st.sampled_from(
        ["cached_tokens", "cache_write_tokens", "cache_creation_input_tokens", "reasoning_tokens", "audio_tokens"]
    ),
    ANY_COUNT,
)
USAGE = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"], ANY_COUNT),
        **dict.fromkeys(["total_tokens", "prompt_cache_hit_tokens", "prompt_cache_miss_tokens"], ANY_COUNT),
        **dict.fromkeys(["prompt_tokens_details", "input_tokens_details"], DETAILS | JSON),
        **dict.fromkeys(["completion_tokens_details", "output_tokens_details"], DETAILS | JSON),
    },
)


@given(USAGE | JSON)
@settings(max_examples=1500, deadline=None)
def test_any_usage_is_disjoint_counts_or_none(raw: Any) -> None:
    usage = read_usage(raw)
    if usage is None:
        return
    assert min(usage.input, usage.cache_read, usage.cache_write, usage.output, usage.reasoning) >= 0
    assert usage.reasoning <= usage.output
    prompt = raw.get("prompt_tokens", raw.get("input_tokens"))
    if type(prompt) is int:
        assert usage.input + usage.cache_read + usage.cache_write == prompt


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.booleans(), st.booleans())
def test_no_token_is_counted_twice(
    cached: int, written: int, fresh: int, text: int, reasoning: int, is_xai: bool, is_responses: bool
) -> None:
    prompt, output = cached + written + fresh, text + reasoning
    details = {"cached_tokens": cached, "cache_write_tokens": written}
    total = prompt + output
    raw: dict[str, Any]
    if is_responses:
        raw = {"input_tokens": prompt, "output_tokens": output, "input_tokens_details": details}
        raw["output_tokens_details"] = {"reasoning_tokens": reasoning}
    else:
        completion = text if is_xai else output
        raw = {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}
        raw["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    assert read_usage({**raw, "total_tokens": total}) == Usage(fresh, cached, written, output, reasoning)


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        # DeepSeek: what was read from the cache stands at the top
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "prompt_cache_hit_tokens": 6,
                "prompt_cache_miss_tokens": 4,
            },
            Usage(4, 6, 0, 5, 0),
        ),
        # DeepSeek says it twice: once is enough
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_cache_hit_tokens": 6,
                "prompt_tokens_details": {"cached_tokens": 6},
            },
            Usage(4, 6, 0, 5, 0),
        ),
        # OpenRouter
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 3},
            },
            Usage(5, 2, 3, 5, 0),
        ),
        # Anthropic's word in OpenAI's place
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 8, "cache_creation_input_tokens": 30},
            },
            Usage(0, 8, 2, 5, 0),
        ),
        # xAI: reasoning beside the completion, seen in the total
        (
            {
                "prompt_tokens": 32,
                "completion_tokens": 9,
                "total_tokens": 135,
                "completion_tokens_details": {"reasoning_tokens": 94},
            },
            Usage(32, 0, 0, 103, 94),
        ),
        # OpenAI: reasoning inside the completion
        (
            {
                "prompt_tokens": 32,
                "completion_tokens": 103,
                "total_tokens": 135,
                "completion_tokens_details": {"reasoning_tokens": 94},
            },
            Usage(32, 0, 0, 103, 94),
        ),
        ({"input_tokens": 7, "total_tokens": 9}, Usage(7, 0, 0, 2, 0)),
    ],
)
def test_usage_of_every_provider_is_understood(raw: dict[str, Any], usage: Usage) -> None:
    assert read_usage(raw) == usage


@given(st.binary(max_size=200), st.integers(200, 599))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_reply_or_a_failed_attempt(body: bytes, status: int) -> None:
    with contextlib.suppress(AttemptFailed):
        check_usable(read_reply(Answer(status, {}, body)))


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text(max_size=40)))
def test_any_retry_after_is_a_wait_or_none(headers: dict[str, str]) -> None:
    wait_s = read_retry_after(headers)
    assert wait_s is None or wait_s >= 0


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "20"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "20"}, 20.0),
        ({"retry-after": "Wed, 13 May 2026 20:41:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 13 May 2026 20:40:00 GMT"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_every_form(headers: dict[str, str], wait_s: float | None) -> None:
    now = datetime(2026, 5, 13, 20, 40, 30, tzinfo=UTC)
    assert read_retry_after(headers, now=now) == wait_s


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 3}, Usage(10, 0, 0, 3, 0)),
        ({"prompt_tokens": "10", "completion_tokens": 3.0}, Usage(10, 0, 0, 3, 0)),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            Usage(6, 4, 0, 5, 2),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 40},
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            Usage(0, 10, 0, 5, 5),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "prompt_tokens_details": None,
                "completion_tokens_details": {"reasoning_tokens": None},
            },
            Usage(10, 0, 0, 5, 0),
        ),
        ({"total_tokens": 12, "completion_tokens": 5}, Usage(7, 0, 0, 5, 0)),
        ({"prompt_tokens": 10, "total_tokens": 12}, Usage(10, 0, 0, 2, 0)),
        ({"prompt_tokens": 10, "total_tokens": 2}, None),
        ({"prompt_tokens": -10, "completion_tokens": 5, "total_tokens": 9}, None),
        ({"prompt_tokens": 1.5, "completion_tokens": 5}, None),
        ({"prompt_tokens": True, "completion_tokens": 5}, None),
        ({"prompt_tokens": "many", "completion_tokens": 5}, None),
        ({"prompt_tokens": 10**30, "completion_tokens": 5}, None),
        ({"prompt_tokens": 10}, None),
        ({}, None),
        (None, None),
        ([1, 2], None),
        ("18", None),
    ],
)
def test_usage_is_read_or_refused_as_a_whole(raw: object, usage: Usage | None) -> None:
    assert read_usage(raw) == usage


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"content": None}, ""),
        ({}, ""),
        ({"content": [{"type": "text", "text": "a"}, {"type": "image_url"}, "b", None, {"text": "c"}]}, "abc"),
        ({"content": {"type": "text", "text": "a"}}, "a"),
        ({"content": [{"type": {"odd": []}, "text": "a"}, {"type": [], "text": "b"}]}, ""),
        ({"content": None, "refusal": "I will not."}, "I will not."),
        ({"content": 7}, ""),
        ({"content": "lone \ud800 and nul \x00"}, "lone \ufffd and nul \x00"),
        ({"content": "a", "tool_calls": None}, "a"),
    ],
)
def test_content_is_text_whatever_its_shape(message: dict[str, Any], content: str) -> None:
    reply = read({"choices": [{"message": message, "finish_reason": None}]})
    assert (reply.content, reply.tool_calls) == (content, ())


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]}, [("f", "{}")]),
        ({"tool_calls": {"id": "a", "function": {"name": "f", "arguments": "{}"}}}, [("f", "{}")]),
        ({"tool_calls": [{"name": "f", "arguments": {"x": "ä"}}]}, [("f", '{"x": "ä"}')]),
        ({"tool_calls": [{"function": {"name": "f"}}]}, [("f", "{}")]),
        ({"tool_calls": [{"function": {"name": "f", "arguments": None}}]}, [("f", "{}")]),
        ({"tool_calls": [{"function": {"name": "f", "arguments": ""}}]}, [("f", "{}")]),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{broken"}}]}, [("f", "{broken")]),
        ({"tool_calls": [{"function": {"name": "f", "arguments": [1]}}]}, [("f", "[1]")]),
        ({"tool_calls": [{"function": {"arguments": "{}"}}]}, [("", "{}")]),
        ({"tool_calls": [{"function": {"name": None, "arguments": "{}"}}]}, [("", "{}")]),
        ({"tool_calls": [None, 3, {"function": {"name": " f ", "arguments": "{}"}}]}, [("f", "{}")]),
        ({"tool_calls": [], "function_call": {"name": "f", "arguments": "{}"}}, [("f", "{}")]),
        ({"tool_calls": "none"}, []),
    ],
)
def test_tool_calls_are_read_whatever_their_shape(message: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    reply = read({"choices": [{"message": message, "finish_reason": "stop"}]})
    assert [(call.name, call.arguments) for call in reply.tool_calls] == expected


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
def test_reasoning_is_kept_apart(key: str) -> None:
    reply = read({"choices": [{"message": {"content": "a", key: "because"}}]})
    assert (reply.content, reply.reasoning) == ("a", "because")


def test_usage_raw_is_what_was_sent_within_bounds() -> None:
    def raw_of(usage: object) -> object:
        return read({"choices": [{"message": {"content": ""}}], "usage": usage}).usage_raw

    assert raw_of({"prompt_tokens": "x", "cost": 0.5}) == {"prompt_tokens": "x", "cost": 0.5}
    assert raw_of({"lone": "\ud800", "nan": float("nan")}) == {"lone": "\ufffd", "nan": None}
    assert raw_of({"x": "y" * 100_000}) == {"left_out": "100009 characters of JSON"}


def test_a_secret_is_taken_out_before_an_excerpt_is_cut() -> None:
    text = excerpt("x" * 290 + "sk-secret-key", lambda said: said.replace("sk-secret-key", "[redacted]"))
    assert text == "x" * 290 + "[redacted]"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "m", "code": "c"}}, "m"),
        ({"error": {"code": "c"}}, "c"),
        ({"error": {"odd": [1]}}, '{"odd": [1]}'),
        ({"error": "plain"}, "plain"),
        ({"detail": [{"loc": ["body"]}]}, '[{"loc": ["body"]}]'),
        ({"message": "m"}, "m"),
        ({"error": None}, '{"error": null}'),
        ([], "[]"),
    ],
)
def test_a_refusal_is_told_in_the_servers_words(body: object, words: str) -> None:
    with pytest.raises(AttemptFailed) as caught:
        read(body, 400)
    assert str(caught.value) == f"HTTP 400 Bad Request: {words}"
