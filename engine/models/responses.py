"""The Responses API on the wire: `POST {base_url}/responses`, unstreamed, with nothing stored at the server.

The conversation is sent whole each time. Reasoning is kept between turns: a reply's output items come back in
`ModelReply.provider_items` as they are sent again, reasoning encrypted where the server encrypts it, calls with the ids
the run knows them by.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

from fbench.engine.models.answers import (
    Answer,
    arguments_text,
    call_id_of,
    clean,
    error_words,
    excerpt,
    kind_of,
    malformed,
    parse_document,
    read_retry_after,
    short_text,
    storable,
    text_of,
)
from fbench.engine.models.usage import read_usage
from fbench.engine.models.wire import Item, Rendered, legal_call, refused_key
from fbench.engine.seams import AttemptFailed, Message, ModelReply, ModelRequest, ToolCall, ToolSchema

ENCRYPTED_REASONING = "reasoning.encrypted_content"

_MAY_GO = ("temperature", "top_p")
_PASSING_ERRORS = ("server_error", "rate_limit_exceeded", "vector_store_timeout")
"""Errors of a failed response that may not come again; the other codes of the API are about what was asked."""

_FINISH: Mapping[str, str] = {"max_output_tokens": "length"}
"""Why a response is incomplete, in the words of Chat Completions."""


class ResponsesWire:
    """See the module and `Wire`."""

    path: Literal["responses"] = "responses"
    keeps_reasoning = True

    def __init__(self, name: str) -> None:
        self._name = name
        self._input = Rendered(_render)
        self._left_out: set[str] = set()
        self._encrypts = True

    def body(self, request: ModelRequest) -> bytes:
        """The JSON to send. The API has no seed, so none is sent."""
        body: Item = {"model": self._name, "max_output_tokens": request.max_output_tokens, "store": False}
        if self._encrypts:
            body["include"] = [ENCRYPTED_REASONING]
        if request.tools:
            body["tools"] = [_wire_tool(tool) for tool in request.tools]
        if request.reasoning_effort is not None:
            body["reasoning"] = {"effort": request.reasoning_effort}
        for key in _MAY_GO:
            if key not in self._left_out and (value := getattr(request, key)) is not None:
                body[key] = value
        return self._input.body(body, "input", request.messages)

    def read(self, answer: Answer, *, taken_ids: Collection[str], redact: Callable[[str], str]) -> ModelReply:
        """See `read_response`."""
        return read_response(answer, taken_ids=taken_ids, redact=redact)

    def learn(self, answer: Answer) -> str | None:
        """Encrypted reasoning that the model has not, settings it does not take."""
        if answer.status not in {400, 422}:
            return None
        said = answer.body.lower()
        if self._encrypts and (b"encrypted" in said or refused_key(answer, ["include"])):
            self._encrypts = False
            return "encrypted reasoning is not asked for from now on"
        if key := refused_key(answer, [key for key in _MAY_GO if key not in self._left_out]):
            self._left_out.add(key)
            return f"`{key}` is left out from now on"
        return None


def read_response(answer: Answer, *, taken_ids: Collection[str] = (), redact: Callable[[str], str] = str) -> ModelReply:
    """The model's reply in an answer of the Responses API, read as `read_reply` reads those of Chat Completions.

    An incomplete response is a reply with what is there; its `finish_reason` says why (`length`, `content_filter`).

    Raises:
        AttemptFailed: the answer holds no reply. Worth another try, but where the response failed for what was asked.
    """
    document = parse_document(answer, redact)
    status, error = document.get("status"), document.get("error")
    if status in ("failed", "cancelled") or error is not None:
        raise _failed(answer, document, redact)
    output = document.get("output")
    items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    why_cut = _why_incomplete(document) if status == "incomplete" else None
    if status in ("in_progress", "queued"):
        raise malformed(answer, f"a response that is still {status}", redact)
    if not items and (why_cut is None or not isinstance(output, list)):
        raise malformed(answer, error_words(document) or _output_fault(output), redact)
    calls, sent_again = _calls_and_items(items, taken_ids)
    usage_raw = document.get("usage")
    messages = [item for item in items if item.get("type") == "message"]
    return ModelReply(
        content="".join(text_of(item.get("content")) for item in messages),
        tool_calls=calls,
        reasoning="\n\n".join(filter(None, map(_reasoning_text, items))) or None,
        usage=read_usage(usage_raw),
        usage_raw=storable(usage_raw),
        model_answered=short_text(document.get("model")),
        finish_reason=why_cut or ("tool_calls" if calls else "stop"),
        http_status=answer.status,
        provider_items=sent_again,
    )


def _failed(answer: Answer, document: Mapping[str, Any], redact: Callable[[str], str]) -> AttemptFailed:
    """A response that failed at the server, though HTTP went well."""
    error = document.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    words = error_words(document) or f"a response that was {short_text(document.get('status'))}"
    told = f"{code}: {words}" if isinstance(code, str) and code != words else words
    return AttemptFailed(
        f"HTTP {answer.status} with an error in the body: {excerpt(told, redact)}",
        retryable=document.get("status") != "failed" or not isinstance(code, str) or code in _PASSING_ERRORS,
        http_status=answer.status,
        retry_after_s=read_retry_after(answer.headers),
    )


def _why_incomplete(document: Mapping[str, Any]) -> str:
    details = document.get("incomplete_details")
    reason = short_text(details.get("reason")) if isinstance(details, dict) else None
    return _FINISH.get(reason or "", reason or "incomplete")


def _output_fault(output: object) -> str:
    if not isinstance(output, list):
        return f"`output` that is {kind_of(output)}"
    return "`output` without an item" if output else "empty `output`"


def _calls_and_items(
    items: Sequence[Mapping[str, Any]], taken_ids: Collection[str]
) -> tuple[tuple[ToolCall, ...], tuple[Item, ...]]:
    """The calls asked for, and all items as they go back: an item that follows its reasoning must go on doing so."""
    calls: list[ToolCall] = []
    again: list[Item] = []
    seen = set(taken_ids)
    for item in items:
        kind = item.get("type")
        if kind == "function_call":
            name = item.get("name")
            name = clean(name).strip() if isinstance(name, str) else ""
            call = ToolCall(call_id_of(item.get("call_id"), seen), name, arguments_text(item.get("arguments")))
            calls.append(call)
            again.append(_call_item(call))
        elif kind == "message":
            phase = item.get("phase")
            told = _message_item("assistant", text_of(item.get("content")))
            again.append({**told, "phase": phase} if phase in ("commentary", "final_answer") else told)
        elif kind == "reasoning" and (kept := _reasoning_item(item)):
            again.append(kept)
    # Without a call or a text to follow, reasoning alone is refused.
    return tuple(calls), tuple(again) if again and again[-1]["type"] != "reasoning" else ()


def _reasoning_item(item: Mapping[str, Any]) -> Item | None:
    """The item as it goes back, None where it says nothing: a server that stores nothing knows no item by its id."""
    encrypted, content = item.get("encrypted_content"), item.get("content")
    kept: Item = {"type": "reasoning", "summary": _text_parts(item.get("summary"), "summary_text")}
    if isinstance(item.get("id"), str):
        kept["id"] = clean(item["id"])
    if isinstance(encrypted, str) and encrypted:
        return {**kept, "encrypted_content": clean(encrypted)}
    parts = _text_parts(content, "reasoning_text")
    return {**kept, "content": parts} if parts else None


def _text_parts(parts: object, kind: str) -> list[Item]:
    listed = parts if isinstance(parts, list) else []
    texts = [part.get("text") for part in listed if isinstance(part, dict)]
    return [{"type": kind, "text": clean(text)} for text in texts if isinstance(text, str)]


def _reasoning_text(item: Mapping[str, Any]) -> str:
    """What may be read of an item's reasoning: its text, else its summary."""
    if item.get("type") != "reasoning":
        return ""
    parts = _text_parts(item.get("content"), "") or _text_parts(item.get("summary"), "")
    return "\n\n".join(part["text"] for part in parts)


def _render(message: Message) -> list[Item]:
    if message.role == "tool":
        call_id = clean(message.tool_call_id or "")
        return [{"type": "function_call_output", "call_id": call_id, "output": clean(message.content)}]
    if message.role == "assistant" and message.provider_items:
        return [dict(item) for item in message.provider_items]
    told = [_message_item(message.role, clean(message.content))]
    if message.role == "assistant":  # an empty one is not repeated: what follows it says that it was empty
        return [*(told if message.content else []), *map(_call_item, message.tool_calls)]
    return told


def _message_item(role: str, content: str) -> Item:
    return {"type": "message", "role": role, "content": content}


def _call_item(call: ToolCall) -> Item:
    name, arguments = legal_call(call)
    return {"type": "function_call", "call_id": clean(call.id), "name": name, "arguments": arguments}


def _wire_tool(tool: ToolSchema) -> Item:
    """The API would rewrite a schema to make it strict; tools are told alike by both wire formats."""
    parameters = dict(tool.parameters)
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": parameters,
        "strict": False,
    }
