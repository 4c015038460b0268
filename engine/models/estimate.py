"""Tokens without a tokenizer: a rule over bytes, for answers that come without usage and for calls not made yet.

The rule: a text takes ceil(UTF-8 bytes / 4) tokens; each message takes 4 more for its frame; a tool call takes its
name and arguments, and a tool schema its compact JSON. Four bytes a token is what OpenAI states for English text;
other languages and code vary by a factor of two. Nothing is downloaded for it.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fbench.engine.models.conversation import count_unchanged

if TYPE_CHECKING:
    from fbench.engine.seams import Message, ModelReply, ModelRequest, ToolCall, ToolSchema, Usage

BYTES_PER_TOKEN = 4
MESSAGE_FRAME_TOKENS = 4


def estimate_text(text: str) -> int:
    """Tokens of a text by the rule.

    >>> estimate_text("four"), estimate_text("five!"), estimate_text("")
    (1, 2, 0)
    """
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def estimate_message(message: "Message") -> int:
    """Tokens of one message by the rule. Reasoning is not sent again and not counted."""
    return MESSAGE_FRAME_TOKENS + estimate_text(message.content) + _calls(message.tool_calls)


def estimate_tools(tools: Sequence["ToolSchema"]) -> int:
    """Tokens of the tool schemas by the rule."""
    return sum(
        estimate_text(tool.name)
        + estimate_text(tool.description)
        + estimate_text(json.dumps(tool.parameters, separators=(",", ":"), default=dict))
        for tool in tools
    )


def estimate_request(request: "ModelRequest") -> int:
    """Input tokens of a whole request by the rule."""
    return estimate_tools(request.tools) + sum(map(estimate_message, request.messages))


def estimate_reply(reply: "ModelReply") -> int:
    """Output tokens of an answer by the rule, its reasoning included; at least 1."""
    return max(1, estimate_text(reply.content) + _calls(reply.tool_calls) + estimate_reasoning(reply))


def estimate_reasoning(reply: "ModelReply") -> int:
    """Tokens of an answer's reasoning, as far as it is visible, by the rule."""
    return estimate_text(reply.reasoning or "")


class RequestMeter:
    """Estimates each next request of one growing conversation, looking only at the messages that are new.

    Once the server has counted a request (`observe`), its count and that of its answer replace the rule for
    everything up to there, so the rule's error never adds up over a run.
    """

    def __init__(self) -> None:
        self._tools: tuple[ToolSchema, ...] = ()
        self._messages: list[Message] = []
        self._tokens = 0
        self._by_rule = 0
        self._answer_tokens: int | None = None

    def estimate(self, request: "ModelRequest") -> int:
        """Input tokens that `request` will take."""
        if not self._continues(request):
            self._tools, self._messages = tuple(request.tools), []
            self._tokens = self._by_rule = estimate_tools(request.tools)
            self._answer_tokens = None
        for message in request.messages[len(self._messages) :]:
            tokens = by_rule = estimate_message(message)
            if self._answer_tokens is not None and message.role == "assistant":
                tokens = self._answer_tokens
            self._answer_tokens = None
            self._tokens += tokens
            self._by_rule += by_rule
            self._messages.append(message)
        return self._tokens

    def at_most(self) -> int:
        """A count that the request last estimated cannot pass: a token is at least one byte, in all tokenizers that
        work on bytes. What the server counted before does not lower it, since servers have counted wrongly."""
        return max(self._tokens, self._by_rule * BYTES_PER_TOKEN)

    def observe(self, request: "ModelRequest", usage: "Usage", *, keeps_reasoning: bool = False) -> None:
        """What the server counted for `request` and its answer, whose reasoning is only sent again if it is kept."""
        self.estimate(request)  # what the rule says of it is kept beside
        self._tokens = usage.input + usage.cache_read + usage.cache_write
        self._answer_tokens = usage.output if keeps_reasoning else usage.output - usage.reasoning

    def _continues(self, request: "ModelRequest") -> bool:
        """Whether `request` is the counted conversation with messages added."""
        known = self._messages
        return tuple(request.tools) == self._tools and count_unchanged(known, request.messages) == len(known)


def _calls(calls: Sequence["ToolCall"]) -> int:
    return sum(estimate_text(call.name) + estimate_text(call.arguments) for call in calls)
