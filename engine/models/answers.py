"""What a Chat Completions server answered, read without trust: a ModelReply, or why the attempt failed.

Whatever the bytes hold, these functions return a reply or an AttemptFailed; nothing else is ever raised.
"""

import json
import math
import re
import secrets
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NamedTuple

from fbench.engine.seams import AttemptFailed, ModelReply, ToolCall, Usage

EXCERPT_LENGTH = 300
MOST_TOKENS = 10**9
"""No context is that long: a larger count is nonsense and no usage at all."""
MOST_RETRY_AFTER_S = 10.0**9
MOST_CALL_ID = 256

RETRYABLE_STATUS = frozenset({408, 409, 425, 429})

_SURROGATES = re.compile("[\ud800-\udfff]")
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f]+")
_QUOTA_CODE = "insufficient_quota"
_USAGE_RAW_LIMIT = 16_384
_TEXT_PARTS = (None, "text", "output_text", "refusal")  # no set: what is sent may not be hashable
_STATUS_ADVICE: Mapping[int, str] = {
    401: "check the API key (OPENAI_API_KEY)",
    403: "check what the API key may use",
    404: "check the base URL (it usually ends in /v1) and the model's name",
}


class Answer(NamedTuple):
    """One HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def read_reply(answer: Answer, *, taken_ids: Collection[str] = (), redact: Callable[[str], str] = str) -> ModelReply:
    """The model's reply in `answer`.

    Missing, empty and repeated call ids (also those in `taken_ids`) are replaced by ours. Lone surrogates become
    U+FFFD. `redact` is applied to excerpts before they are cut.

    Raises:
        AttemptFailed: the answer holds no reply.
    """
    if not 200 <= answer.status < 300:  # noqa: PLR2004 - the class of success
        raise _refusal(answer, redact)
    document = _parse(answer, redact)
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        error = _error_words(document)
        why = f"an error in the body: {error}" if error else _choices_fault(choices, choice)
        raise _malformed(answer, why, redact)
    usage_raw = document.get("usage")
    model = document.get("model")
    finish = choice.get("finish_reason") if isinstance(choice, dict) else None
    content = _text(message.get("content")) or _text(message.get("refusal"))
    return ModelReply(
        content=content,
        tool_calls=_tool_calls(message, taken_ids),
        reasoning=_text(message.get("reasoning_content")) or _text(message.get("reasoning")) or None,
        usage=read_usage(usage_raw),
        usage_raw=_storable(usage_raw),
        model_answered=clean(model)[:EXCERPT_LENGTH] if isinstance(model, str) else None,
        finish_reason=clean(finish)[:EXCERPT_LENGTH] if isinstance(finish, str) else None,
        http_status=answer.status,
    )


def read_usage(raw: object) -> Usage | None:
    """Disjoint counts out of a `usage` object, or None when it makes no sense.

    >>> read_usage({"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}})
    Usage(input=6, cache_read=4, cache_write=0, output=3, reasoning=0)
    >>> read_usage({"prompt_tokens": -1, "completion_tokens": 3}) is None
    True
    """
    if not isinstance(raw, dict):
        return None
    prompt, output = _count(raw.get("prompt_tokens")), _count(raw.get("completion_tokens"))
    total = _count(raw.get("total_tokens"))
    if prompt is None and raw.get("prompt_tokens") is None and total is not None and output is not None:
        prompt = total - output if total >= output else None
    if output is None and raw.get("completion_tokens") is None and total is not None and prompt is not None:
        output = total - prompt if total >= prompt else None
    if prompt is None or output is None:
        return None
    cached = min(_detail(raw, "prompt_tokens_details", "cached_tokens"), prompt)
    reasoning = min(_detail(raw, "completion_tokens_details", "reasoning_tokens"), output)
    return Usage(input=prompt - cached, cache_read=cached, output=output, reasoning=reasoning)


def read_retry_after(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """Seconds the server asks to wait: `retry-after-ms`, `Retry-After` in seconds or as a date; garbage is None.

    >>> read_retry_after({"retry-after": "2.5"}), read_retry_after({"retry-after": "-3"})
    (2.5, None)
    """
    wait_ms = _seconds(headers.get("retry-after-ms", ""))
    if wait_ms is not None:
        return wait_ms / 1000
    text = headers.get("retry-after", "").strip()
    if (wait_s := _seconds(text)) is not None:
        return wait_s
    try:
        when = parsedate_to_datetime(text)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        wait_s = (when - (now or datetime.now(UTC))).total_seconds()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return wait_s if 0 <= wait_s <= MOST_RETRY_AFTER_S else None


def clean(text: str) -> str:
    """`text` without lone surrogates, so that it can be written as UTF-8."""
    return _SURROGATES.sub("\ufffd", text)


def excerpt(text: str, redact: Callable[[str], str] = str) -> str:
    """One line of at most 300 characters, secrets taken out before it is cut."""
    line = _BLANKS.sub(" ", redact(clean(text[: EXCERPT_LENGTH * 40]))).strip()
    return line if len(line) <= EXCERPT_LENGTH else f"{line[: EXCERPT_LENGTH - 1]}…"


def new_call_id() -> str:
    """An id for a call that came without a usable one."""
    return f"call_{secrets.token_hex(8)}"


def _parse(answer: Answer, redact: Callable[[str], str]) -> dict[str, Any]:
    if not answer.body.strip():
        raise _malformed(answer, "an empty body", redact)
    try:
        document = json.loads(
            answer.body.decode("utf-8-sig", "replace"),
            strict=False,
            parse_float=_finite,
            parse_constant=lambda _: None,
        )
    except (ValueError, RecursionError) as error:
        kind = answer.headers.get("content-type", "").split(";")[0].strip().lower()
        looks_html = "html" in kind or answer.body.lstrip()[:1] == b"<"
        why = "HTML instead of JSON" if looks_html else f"a body that is not JSON ({type(error).__name__}: {error})"
        raise _malformed(answer, why, redact) from None
    if not isinstance(document, dict):
        raise _malformed(answer, f"JSON that is no object but {_kind(document)}", redact)
    return document


def _malformed(answer: Answer, why: str, redact: Callable[[str], str]) -> AttemptFailed:
    body = excerpt(_decode(answer.body), redact)
    message = f"HTTP {answer.status} with {excerpt(why, redact)}" + (f": {body}" if body else "")
    return AttemptFailed(
        message, retryable=True, http_status=answer.status, retry_after_s=read_retry_after(answer.headers)
    )


def _refusal(answer: Answer, redact: Callable[[str], str]) -> AttemptFailed:
    """The failure a status other than success stands for."""
    status, document = answer.status, None
    with suppress(ValueError, RecursionError):  # what is no JSON is quoted as it stands
        document = json.loads(answer.body.decode("utf-8-sig", "replace"))
    words = excerpt(_error_words(document) or _decode(answer.body), redact)
    parts = [f"HTTP {status} {_phrase(status)}".strip()]
    if 300 <= status < 400:  # noqa: PLR2004 - redirections
        where = excerpt(answer.headers.get("location", ""), redact) or "nowhere"
        words = f"redirected to {where}; set the base URL to where the server is"
    parts += [words] if words else []
    quota = status == HTTPStatus.TOO_MANY_REQUESTS and _has_code(document, _QUOTA_CODE)
    retryable = status in RETRYABLE_STATUS or status >= 500  # noqa: PLR2004 - the server's own faults
    advice = "the account's quota is used up" if quota else _STATUS_ADVICE.get(status)
    message = ": ".join(parts) + (f" ({advice})" if advice else "")
    return AttemptFailed(
        message,
        retryable=retryable and not quota,
        http_status=status,
        retry_after_s=read_retry_after(answer.headers),
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _error_words(document: object) -> str:
    """What the usual error bodies say, "" where there is nothing of the kind."""
    if not isinstance(document, dict):
        return ""
    error = document.get("error", document.get("detail", document.get("message")))
    if isinstance(error, dict):
        said = error.get("message") or error.get("code") or error.get("type")
        error = said if isinstance(said, str | int) else _dump(error)
    return error if isinstance(error, str) else "" if error is None else _dump(error)


def _has_code(document: object, code: str) -> bool:
    error = document.get("error") if isinstance(document, dict) else None
    return isinstance(error, dict) and code in (error.get("code"), error.get("type"))


def _choices_fault(choices: object, choice: object) -> str:
    if not isinstance(choices, list):
        return f"`choices` that is {_kind(choices)}"
    if not choices:
        return "empty `choices`"
    return "a choice without a message" if isinstance(choice, dict) else f"a choice that is {_kind(choice)}"


def _tool_calls(message: dict[str, Any], taken_ids: Collection[str]) -> tuple[ToolCall, ...]:
    asked = message.get("tool_calls")
    if isinstance(asked, dict):
        asked = [asked]
    if not isinstance(asked, list) or not asked:
        legacy = message.get("function_call")
        asked = [{"function": legacy}] if isinstance(legacy, dict) else []
    calls: list[ToolCall] = []
    seen = set(taken_ids)
    for item in asked:
        if not isinstance(item, dict):
            continue
        function = item.get("function")
        function = function if isinstance(function, dict) else item
        given = item.get("id")
        usable = isinstance(given, str) and given.strip() and len(given) <= MOST_CALL_ID and clean(given) not in seen
        call_id = clean(str(given)) if usable else new_call_id()
        seen.add(call_id)
        name = function.get("name")
        name = clean(name).strip() if isinstance(name, str) else ""
        calls.append(
            ToolCall(
                call_id, clean(name).strip() if isinstance(name, str) else "", _arguments(function.get("arguments"))
            )
        )
    return tuple(calls)


def _arguments(value: object) -> str:
    """Arguments as text: an object is accepted, nothing at all means no arguments."""
    if isinstance(value, str):
        return clean(value) if value.strip() else "{}"
    return "{}" if value is None else clean(_dump(value))


def _text(value: object) -> str:
    """Text of a content that is a string, a list of parts, or nothing."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return ""
    texts: list[str] = []
    for part in value:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type") in _TEXT_PARTS:
            text = part.get("text", part.get("refusal"))
            texts.append(text if isinstance(text, str) else "")
    return clean("".join(texts))


def _count(value: object) -> int | None:
    """A count of tokens: whole, not negative, thinkable; also as a float or in digits."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(MOST_TOKENS)):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= MOST_TOKENS else None


def _detail(raw: dict[str, Any], group: str, name: str) -> int:
    details = raw.get(group)
    return (_count(details.get(name)) or 0) if isinstance(details, dict) else 0


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= MOST_RETRY_AFTER_S else None  # also refuses NaN


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _storable(value: object) -> Any:  # noqa: ANN401 - JSON
    """`value` as it may stand in a ledger line: bounded, and free of lone surrogates."""
    if value is None:
        return None
    text = clean(_dump(value))
    if len(text) > _USAGE_RAW_LIMIT:
        return {"left_out": f"{len(text)} characters of JSON"}
    return json.loads(text)


def _dump(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        return "{}"


def _kind(value: object) -> str:
    names: dict[type, str] = {str: "a text", list: "a list", dict: "an object", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _decode(body: bytes) -> str:
    return body[: EXCERPT_LENGTH * 40].decode("utf-8", "replace")
