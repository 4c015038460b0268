"""What an agent is told before the task's own prompt."""

import json
from collections.abc import Sequence

from fbench.engine.seams import Message, ToolSchema
from fbench.engine.session import Session

_SYSTEM = """\
You are an engineer working in a sandbox on one task. Your working folder is {workspace}; everything that counts must
be there when you finish. There is nobody to ask: look around, decide, and check your work by running it.
"""

_NATIVE = """\
Work by calling tools. When the task is done, call the tool `submit`; {after_submit}.
"""

_JSON_TEXT = """\
Work by calling one tool in each reply. A call is one JSON object in your reply:

{{"tool": "NAME", "arguments": {{...}}}}

You may think aloud before it. You get the tool's output as the next message. Strings in the object are JSON strings:
a newline is written \\n, a quote \\". When the task is done, reply with {{"tool": "submit"}}; {after_submit}.

Tools, with the JSON Schema of their arguments:

{tools}
"""

_ENDS = "the run ends there"
_GOES_ON = "the user looks at it then, and may write again"


def opening(session: Session, *, json_text: bool) -> tuple[Message, Message]:
    """The system and the first user message. `agent.system_text` replaces the general part; how calls are written
    in json_text stays, since the server knows nothing of it."""
    system = session.manifest.agent.system_text
    after_submit = _GOES_ON if session.manifest.agent.turns else _ENDS
    if system is None:
        system = _SYSTEM.format(workspace=session.workspace) + (
            "" if json_text else _NATIVE.format(after_submit=after_submit)
        )
    if json_text:
        tools = _list_tools(session.schemas)
        system = f"{system.rstrip()}\n\n{_JSON_TEXT.format(tools=tools, after_submit=after_submit)}"
    return Message("system", system), Message("user", session.prompt)


def _list_tools(schemas: Sequence[ToolSchema]) -> str:
    return "\n".join(
        f"- {schema.name}: {schema.description}\n  {json.dumps(schema.parameters, separators=(',', ':'))}"
        for schema in schemas
    )
