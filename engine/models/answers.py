"""Answers of model servers, read without trust: what every wire format needs, and why an attempt failed.

Whatever the bytes hold, these functions return a value or raise an AttemptFailed; nothing else is ever raised.
"""

import json
import math
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NamedTuple

from fbench.engine.models.overlong import read_overlong
from fbench.engine.seams import AttemptFailed

EXCERPT_LENGTH = 300
MOST_RETRY_AFTER_S = 10.0**9
MOST_CALL_ID = 256

RETRYABLE_STATUS = frozenset({408, 409, 425, 429})

_SURROGATES = re.compile("[\ud800-\udfff]")
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f]+")
_QUOTA_CODE = "insufficient_quota"
_USAGE_RAW_LIMIT = 16_384
_TEXT_PARTS = (None, "text", "output_text", "refusal")  # no set: what is sent may not be hashable
_STATUS_ADVICE: Mapping[int, str] = {
    401: "check the API key: OPENAI_API_KEY, or what `api_key_env` of the provider names",
    403: "check what the API key may use",
    404: "check the base URL (it usually ends in /v1) and the model's name",
}


class Answer(NamedTuple):
    """One HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


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


def call_id_of(given: object, seen: set[str]) -> str:
    """`given`, or one of ours where it is missing, empty, too long or in `seen`, which it joins."""
    usable = isinstance(given, str) and given.strip() and len(given) <= MOST_CALL_ID and clean(given) not in seen
    call_id = clean(str(given)) if usable else new_call_id()
    seen.add(call_id)
    return call_id


def parse_document(answer: Answer, redact: Callable[[str], str]) -> dict[str, Any]:
    """The JSON object a successful answer holds. `redact` is applied to excerpts before they are cut.

    Raises:
        AttemptFailed: the status is no success, or the body is no JSON object.
    """
    if not 200 <= answer.status < 300:  # noqa: PLR2004 - the class of success
        raise _refusal(answer, redact)
    if not answer.body.strip():
        raise malformed(answer, "an empty body", redact)
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
        raise malformed(answer, why, redact) from None
    if not isinstance(document, dict):
        raise malformed(answer, f"JSON that is no object but {kind_of(document)}", redact)
    return document


def malformed(answer: Answer, why: str, redact: Callable[[str], str]) -> AttemptFailed:
    """The failure that a success without a usable answer stands for; asking again may help."""
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
    words = excerpt(error_words(document) or _decode(answer.body), redact)
    parts = [f"HTTP {status} {_phrase(status)}".strip()]
    if 300 <= status < 400:  # noqa: PLR2004 - redirections
        where = excerpt(answer.headers.get("location", ""), redact) or "nowhere"
        words = f"redirected to {where}; set the base URL to where the server is"
    parts += [words] if words else []
    quota = status == HTTPStatus.TOO_MANY_REQUESTS and _has_code(document, _QUOTA_CODE)
    overlong = read_overlong(status, _decode(answer.body))
    # From 500 on it is the server's own fault.
    retryable = (status in RETRYABLE_STATUS or status >= 500) and overlong is None  # noqa: PLR2004
    advice = "the account's quota is used up" if quota else _STATUS_ADVICE.get(status)
    message = ": ".join(parts) + (f" ({advice})" if advice else "")
    return AttemptFailed(
        message,
        retryable=retryable and not quota,
        http_status=status,
        retry_after_s=read_retry_after(answer.headers),
        overlong=overlong,
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def error_words(document: object) -> str:
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


def short_text(value: object) -> str | None:
    """A name or a word of a server, bounded; None for anything but a text."""
    return clean(value)[:EXCERPT_LENGTH] if isinstance(value, str) else None


def arguments_text(value: object) -> str:
    """Arguments as text: an object is accepted, nothing at all means no arguments."""
    if isinstance(value, str):
        return clean(value) if value.strip() else "{}"
    return "{}" if value is None else clean(_dump(value))


def text_of(value: object) -> str:
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


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= MOST_RETRY_AFTER_S else None  # also refuses NaN


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def storable(value: object) -> Any:  # noqa: ANN401 - JSON
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


def kind_of(value: object) -> str:
    """A JSON value's kind in words."""
    names: dict[type, str] = {str: "a text", list: "a list", dict: "an object", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _decode(body: bytes) -> str:
    return body[: EXCERPT_LENGTH * 40].decode("utf-8", "replace")
