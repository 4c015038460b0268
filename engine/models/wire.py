"""What a wire format is: how a request becomes a body and an answer a reply. Two exist, Chat Completions and Responses.

A server's refusal may say how it wants to be asked; a wire learns that once, and the next attempt goes out so.
"""

import json
import re
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, Literal, Protocol

from fbench.engine.models.answers import Answer, clean, error_words
from fbench.engine.models.conversation import count_unchanged
from fbench.engine.seams import Message, ModelReply, ModelRequest, ToolCall

Api = Literal["chat", "responses"]
WirePath = Literal["chat/completions", "responses"]
Item = dict[str, Any]

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_NAME = 64
_REFUSED = re.compile(
    r"un(supported|known|recognized|expected)|not supported|not permitted|does not support", re.IGNORECASE
)


class Wire(Protocol):
    """One format, for one conversation."""

    @property
    def path(self) -> WirePath:
        """What is added to the base URL."""
        ...

    @property
    def keeps_reasoning(self) -> bool:
        """Whether the reasoning of earlier turns is sent again, and so is input."""
        ...

    def body(self, request: ModelRequest) -> bytes:
        """The JSON to send."""
        ...

    def read(self, answer: Answer, *, taken_ids: Collection[str], redact: Callable[[str], str]) -> ModelReply:
        """The reply in `answer`. Missing, empty and repeated call ids (also those in `taken_ids`) are replaced.

        Raises:
            AttemptFailed: it holds none.
        """
        ...

    def learn(self, answer: Answer) -> str | None:
        """What goes out differently from now on, in words, when a refusal asks for it; None when it asks for nothing
        that helps, or for what was done already."""
        ...


class Rendered:
    """Messages as they are sent; those already sent before are not rendered again, nor made JSON of, which for a long
    conversation would take longer than all else of a turn together."""

    def __init__(self, render: Callable[[Message], Sequence[Item]]) -> None:
        self._render = render
        self._messages: list[Message] = []
        self._json: list[bytes] = []

    def body(self, rest: Item, key: str, messages: Sequence[Message]) -> bytes:
        """The JSON object of `rest`, and under `key` the items of all `messages`, in order."""
        unchanged = count_unchanged(self._messages, messages)
        del self._messages[unchanged:], self._json[unchanged:]
        for message in messages[unchanged:]:
            self._messages.append(message)
            self._json.append(to_json(self._render(message))[1:-1])
        items = b",".join(filter(None, self._json))  # a message may have none
        return b'%s,"%s":[%s]}' % (to_json(rest)[:-1], key.encode(), items)

    def forget(self) -> None:
        """Render everything again: the way of rendering has changed."""
        self._messages.clear()
        self._json.clear()


def to_json(value: object) -> bytes:
    """Compact JSON in UTF-8, as the SDK sends it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def legal_call(call: ToolCall) -> tuple[str, str]:
    """Name and arguments of a call as it is echoed. Strict servers refuse a history with odd names or arguments that
    do not parse, so what the model got wrong goes back in a legal form; the tool message after it says what was wrong.
    """
    name = _NOT_IN_NAMES.sub("_", call.name)[:_LONGEST_NAME] or "unknown"
    try:
        is_object = isinstance(json.loads(call.arguments), dict)
    except (ValueError, RecursionError):
        is_object = False
    return name, clean(call.arguments) if is_object else "{}"


def refused_key(answer: Answer, keys: Collection[str]) -> str | None:
    """Which of `keys` the server does not take at all, as far as its refusal says so.

    >>> body = b'{"error": {"message": "Unsupported parameter: \\'top_p\\' is not supported with this model."}}'
    >>> refused_key(Answer(400, {}, body), ["temperature", "top_p"])
    'top_p'
    """
    if answer.status not in {400, 422}:
        return None
    document: Any = None
    with suppress(ValueError, RecursionError):
        document = json.loads(answer.body.decode("utf-8-sig", "replace"))
    words = error_words(document)
    error = document.get("error") if isinstance(document, dict) else None
    facts = error if isinstance(error, dict) else {}
    if not _REFUSED.search(f"{facts.get('code')} {words}"):
        return None
    named = [key for key in keys if facts.get("param") == key]
    quoted = [key for key in keys if re.search(rf"[\"'`]{re.escape(key)}[\"'`]", words)]
    return next(iter(named or quoted), None)
