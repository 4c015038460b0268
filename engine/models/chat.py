"""Chat Completions on the wire: `POST {base_url}/chat/completions`, unstreamed."""

import re
from collections.abc import Callable, Collection
from typing import Any, Literal

from fbench.engine.models.answers import (
    Answer,
    arguments_text,
    call_id_of,
    clean,
    error_words,
    kind_of,
    malformed,
    parse_document,
    short_text,
    storable,
    text_of,
)
from fbench.engine.models.families import is_reasoning
from fbench.engine.models.usage import read_usage
from fbench.engine.models.wire import Item, Rendered, legal_call, refused_key
from fbench.engine.seams import Message, ModelReply, ModelRequest, ToolCall, ToolSchema

_SETTINGS = ("temperature", "top_p", "seed", "reasoning_effort")
_MAY_GO = ("temperature", "top_p", "seed")
"""Settings a run can do without when the server refuses them. An effort is none: leaving it out would change the model
that is measured, so its refusal stands."""


_WANTS_REASONING = re.compile(rb"reasoning_content.*(passed back|missing|required)", re.DOTALL)


class ChatWire:
    """See the module and `Wire`."""

    path: Literal["chat/completions"] = "chat/completions"

    def __init__(self, name: str) -> None:
        self._name = name
        self._messages = Rendered(self._render)
        self._left_out: set[str] = set()
        # Reasoning models refuse `max_tokens`; other servers do not know `max_completion_tokens`.
        self._cap_key = "max_completion_tokens" if is_reasoning(name) else "max_tokens"
        self.keeps_reasoning = False

    def body(self, request: ModelRequest) -> bytes:
        """The JSON to send; only what is set stands in it."""
        body: Item = {"model": self._name, self._cap_key: request.max_output_tokens}
        if request.tools:
            body["tools"] = [_wire_tool(tool) for tool in request.tools]
        for key in _SETTINGS:
            if key not in self._left_out and (value := getattr(request, key)) is not None:
                body[key] = value
        return self._messages.body(body, "messages", request.messages)

    def read(self, answer: Answer, *, taken_ids: Collection[str], redact: Callable[[str], str]) -> ModelReply:
        """See `read_reply`."""
        return read_reply(answer, taken_ids=taken_ids, redact=redact)

    def learn(self, answer: Answer) -> str | None:
        """The cap's other name, reasoning that is wanted back, settings the model does not take."""
        if answer.status not in {400, 422}:
            return None
        if self._cap_key == "max_tokens" and b"max_completion_tokens" in answer.body:
            self._cap_key = "max_completion_tokens"
            return "`max_completion_tokens` is sent from now on"
        # DeepSeek in thinking mode refuses a tool call's history without it, others refuse or ignore it:
        # https://api-docs.deepseek.com/guides/thinking_mode
        if not self.keeps_reasoning and _WANTS_REASONING.search(answer.body):
            self.keeps_reasoning = True
            self._messages.forget()
            return "`reasoning_content` is sent back from now on"
        if key := refused_key(answer, [key for key in _MAY_GO if key not in self._left_out]):
            self._left_out.add(key)
            return f"`{key}` is left out from now on"
        return None

    def _render(self, message: Message) -> tuple[Item]:
        content = clean(message.content)
        if message.role == "tool":
            return ({"role": "tool", "tool_call_id": clean(message.tool_call_id or ""), "content": content},)
        item: Item = {"role": message.role, "content": content}
        if message.role == "assistant":
            if message.tool_calls:
                item |= {"content": content or None, "tool_calls": [_wire_call(call) for call in message.tool_calls]}
            if self.keeps_reasoning:
                item["reasoning_content"] = clean(message.reasoning or "")
        return (item,)


def read_reply(answer: Answer, *, taken_ids: Collection[str] = (), redact: Callable[[str], str] = str) -> ModelReply:
    """The model's reply in a Chat Completions answer.

    Missing, empty and repeated call ids (also those in `taken_ids`) are replaced by ours. Lone surrogates become
    U+FFFD. `redact` is applied to excerpts before they are cut.

    Raises:
        AttemptFailed: the answer holds no reply.
    """
    document = parse_document(answer, redact)
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        error = error_words(document)
        why = f"an error in the body: {error}" if error else _choices_fault(choices, choice)
        raise malformed(answer, why, redact)
    usage_raw = document.get("usage")
    return ModelReply(
        content=text_of(message.get("content")) or text_of(message.get("refusal")),
        tool_calls=_tool_calls(message, taken_ids),
        reasoning=text_of(message.get("reasoning_content")) or text_of(message.get("reasoning")) or None,
        usage=read_usage(usage_raw),
        usage_raw=storable(usage_raw),
        model_answered=short_text(document.get("model")),
        finish_reason=short_text(choice.get("finish_reason")) if isinstance(choice, dict) else None,
        http_status=answer.status,
    )


def _wire_call(call: ToolCall) -> Item:
    name, arguments = legal_call(call)
    return {"id": clean(call.id), "type": "function", "function": {"name": name, "arguments": arguments}}


def _wire_tool(tool: ToolSchema) -> Item:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _choices_fault(choices: object, choice: object) -> str:
    if not isinstance(choices, list):
        return f"`choices` that is {kind_of(choices)}"
    if not choices:
        return "empty `choices`"
    return "a choice without a message" if isinstance(choice, dict) else f"a choice that is {kind_of(choice)}"


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
        name = function.get("name")
        name = clean(name).strip() if isinstance(name, str) else ""
        calls.append(ToolCall(call_id_of(item.get("id"), seen), name, arguments_text(function.get("arguments"))))
    return tuple(calls)
