"""The native loop: tools are offered to the server, calls come back as `tool_calls`, several a turn, run in order."""

from fbench.engine.agents.prompts import opening
from fbench.engine.seams import Message, ToolCall
from fbench.engine.session import UNUSABLE_REPLIES, Refusal, Session

_EMPTY = (
    "Your reply was empty. Call a tool to go on, or call `submit` when the task is done. "
    "If you ran out of room, think less and call a tool at once."
)
_AFTER_SUBMIT = "not run: it came after `submit`"


async def run_agent(session: Session) -> str:
    """Turn after turn until the model submits, answers without a call, or gives three unusable replies in a row."""
    for message in opening(session, json_text=False):
        session.say(message)
    unusable = 0
    while unusable < UNUSABLE_REPLIES:
        reply = await session.ask(session.schemas)
        if reply.tool_calls:
            usable, submitted = await _run_calls(session, reply.tool_calls)
            unusable = 0 if usable else unusable + 1
            if submitted:
                prompt = session.next_prompt()
                if prompt is None:
                    return "submitted"
                session.say(Message("user", prompt))
        elif reply.content.strip():
            return "answered"
        else:
            unusable += 1
            session.say(Message("user", _EMPTY))
    return "unusable_replies"


async def _run_calls(session: Session, calls: tuple[ToolCall, ...]) -> tuple[bool, bool]:
    """Run the calls of one reply in order, each answered by a message; whether one was usable, whether one submits."""
    usable = submitted = False
    for call in calls:
        if submitted:
            text = _AFTER_SUBMIT
        elif isinstance(checked := session.check(call), Refusal):
            text = f"error: {checked.correction} The call was not run; correct it and call again."
        elif checked.tool is None:
            usable = submitted = True
            text = "submitted"
        else:
            usable = True
            text = (await session.run_tool(checked)).output
        session.say(Message("tool", text, tool_call_id=call.id, is_output=True))
    return usable, submitted
