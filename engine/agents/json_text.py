"""The json_text loop, for models without tool calling: a call is a JSON object anywhere in the reply (ReAct-style)."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from fbench.engine.agents.prompts import opening
from fbench.engine.models.answers import new_call_id
from fbench.engine.seams import Message, ToolCall
from fbench.engine.session import UNUSABLE_REPLIES, CheckedCall, Refusal, Session

MOST_CALLS = 1000
"""Calls read from one reply; only the first valid one is run."""
MOST_SCANNED = 200_000_000
"""Characters read at braces that begin no object, all such braces of a reply together: a fraction of a second. A call
after longer noise is not found; code or data of any sane length before it does no harm."""

_FORM = 'Reply with one JSON object {"tool": NAME, "arguments": {...}}; {"tool": "submit"} hands in the work.'
_DECODER = json.JSONDecoder(strict=False)  # weak models write real newlines inside strings


class Reading(NamedTuple):
    """What a reply holds: candidate calls in order, and what was wrong with text that looks like JSON."""

    calls: tuple[ToolCall, ...]
    broken: str | None


async def run_agent(session: Session) -> str:
    """Turn after turn until the model submits or gives three unusable replies in a row."""
    for message in opening(session, json_text=True):
        session.say(message)
    unusable = 0
    while unusable < UNUSABLE_REPLIES:
        reply = await session.ask()
        for call in reply.tool_calls:  # none was offered; a call in the history without an answer is refused by servers
            session.say(Message("tool", f"not run: it is no call here. {_FORM}", tool_call_id=call.id))
        reading = read_calls(reply.content)
        checked = [session.check(call) for call in reading.calls]
        valid = [call for call in checked if isinstance(call, CheckedCall)]
        if not valid:
            unusable += 1
            refusals = [call for call in checked if isinstance(call, Refusal)]
            session.say(Message("user", _correction(reply.content, reading, refusals)))
        elif valid[0].tool is None:
            prompt = session.next_prompt()
            if prompt is None:
                return "submitted"
            unusable = 0
            session.say(Message("user", prompt))
        else:
            unusable = 0
            outcome = await session.run_tool(valid[0])
            note = f"\n[only the first of {len(valid)} calls was run: send one call a reply]" if len(valid) > 1 else ""
            text = f"Output of {valid[0].call.name}:\n{outcome.output}{note}"
            session.say(Message("user", text, is_output=True))
    return "unusable_replies"


def read_calls(text: str) -> Reading:
    """Every object of the form `{"tool": NAME, ...}` in `text`, with prose and code fences around them.

    >>> call = read_calls('I look: {"tool": "bash", "arguments": {"command": "ls"}}').calls[0]
    >>> call.name, call.arguments
    ('bash', '{"command": "ls"}')
    >>> read_calls("no call at all").calls
    ()
    """
    calls: list[ToolCall] = []
    broken = None
    position = scanned = 0
    while len(calls) < MOST_CALLS and scanned < MOST_SCANNED:
        position = text.find("{", position)
        if position < 0:
            break
        try:
            value, end = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            broken = broken or f"{error} (in {text[position : position + 60]!r})"
            scanned += _scanned_by(error, text)
            position += 1
        else:
            calls += [_as_call(found) for found in islice(_calls_in(value), MOST_CALLS - len(calls))]
            position = end
    return Reading(tuple(calls), broken)


def _as_call(value: dict[str, Any]) -> ToolCall:
    """The call an object stands for; `arguments` may be left out where a tool needs none."""
    arguments = value.get("arguments")
    raw = arguments if isinstance(arguments, str) else json.dumps({} if arguments is None else arguments)
    return ToolCall(new_call_id(), value["tool"], raw)


def _calls_in(value: object) -> Iterator[dict[str, Any]]:
    """The calls a JSON value holds, in order: itself, or those inside it, like {"action": {"tool": ...}}. What is
    inside a call belongs to it."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict) and isinstance(item.get("tool"), str):
            yield item
        elif isinstance(item, dict | list):
            waiting.extend(reversed(item if isinstance(item, list) else list(item.values())))


def _scanned_by(error: Exception, text: str) -> int:
    """About how many characters a failed look at one brace read, those before it included: the error counts lines."""
    if isinstance(error, json.JSONDecodeError) and not error.msg.startswith("Unterminated"):
        return error.pos + 1
    return len(text)


def _correction(text: str, reading: Reading, refusals: list[Refusal]) -> str:
    if refusals:
        return f"Your call was not run: {' '.join(refusal.correction for refusal in refusals[:3])} {_FORM}"
    if reading.broken is not None and '"tool"' in text:
        return f"Your reply holds no valid JSON object: {reading.broken}. {_FORM}"
    if not text.strip():
        return f"Your reply was empty. {_FORM}"
    return f"Your reply holds no call. {_FORM}"
