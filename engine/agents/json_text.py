"""The json_text loop, for models without tool calling: a call is a JSON object anywhere in the reply (ReAct-style)."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from fbench.engine.agents.prompts import opening
from fbench.engine.models.answers import new_call_id
from fbench.engine.seams import Message, ToolCall
from fbench.engine.session import UNUSABLE_REPLIES, CheckedCall, Refusal, Session

MOST_OBJECTS = 1000
"""Places in a reply where an object is looked for; a reply with more braces is no call but noise."""

_FORM = 'Reply with one JSON object {"tool": NAME, "arguments": {...}}; {"tool": "submit"} ends the run.'
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
            session.say(Message("user", f"Output of {valid[0].call.name}:\n{outcome.output}{note}"))
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
    for value, error in _objects(text):
        if error is not None:
            broken = broken or error
        elif isinstance(value, dict) and isinstance(value.get("tool"), str):
            calls.append(_as_call(value))
    return Reading(tuple(calls), broken)


def _as_call(value: dict[str, Any]) -> ToolCall:
    """The call an object stands for; `arguments` may be left out where a tool needs none."""
    arguments = value.get("arguments")
    raw = arguments if isinstance(arguments, str) else json.dumps({} if arguments is None else arguments)
    return ToolCall(new_call_id(), value["tool"], raw)


def _objects(text: str) -> Iterator[tuple[Any, str | None]]:
    """Each outermost JSON object in `text`, and for each brace that begins none, why."""
    position = 0
    for _ in range(MOST_OBJECTS):
        position = text.find("{", position)
        if position < 0:
            return
        try:
            value, end = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            yield None, f"{error} (in {text[position : position + 60]!r})"
            position += 1
        else:
            yield value, None
            # An object that is no call may hold one: {"action": {"tool": ...}}.
            position = end if isinstance(value.get("tool"), str) else position + 1


def _correction(text: str, reading: Reading, refusals: list[Refusal]) -> str:
    if refusals:
        return f"Your call was not run: {' '.join(refusal.correction for refusal in refusals[:3])} {_FORM}"
    if reading.broken is not None and '"tool"' in text:
        return f"Your reply holds no valid JSON object: {reading.broken}. {_FORM}"
    if not text.strip():
        return f"Your reply was empty. {_FORM}"
    return f"Your reply holds no call. {_FORM}"
