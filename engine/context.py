"""Keeping a conversation within its model's window: old tool output is shortened, by one rule.

The rule: outputs of tools, from the oldest on, are cut to their first and last KEPT_CHARS until the request is
estimated to take no more than SHORTENED_SHARE of the window, so that the next turns have room too. The newest output
is never cut, nor what the user, the task or the model said. What was cut stays whole in the transcript.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from fbench.engine.models.estimate import estimate_text
from fbench.engine.seams import Message

KEPT_CHARS = 400
"""Of each end of an output that is cut: a command's first words and its last error usually fit."""
SHORTENED_SHARE = 0.7
ANSWER_SHARE = 0.125
"""Of the window at least this much stays free for the answer, or `max_output_tokens` when that is less."""
GUESSED_SHARE = 0.75
"""A server that says "too long" and not how long takes less than this share of what was sent."""
MOST_REFUSALS = 6
"""Of one call for its length; after that the server's words end the run."""


class Shortened(NamedTuple):
    """A conversation with some outputs cut: which ones, and how many tokens that is estimated to free."""

    messages: list[Message]
    positions: tuple[int, ...]
    freed_tokens: int


def shorten_outputs(messages: Sequence[Message], excess_tokens: int) -> Shortened:
    """Cut tool outputs, the oldest first, until `excess_tokens` are freed or none is left to cut.

    >>> long = Message("tool", "x" * 4000, tool_call_id="a", is_output=True)
    >>> new = Message("tool", "new", tool_call_id="b", is_output=True)
    >>> cut = shorten_outputs([Message("user", "go"), long, new], 100)
    >>> cut.positions, len(cut.messages[1].content) < 1000
    ((1,), True)
    """
    outputs = [position for position, message in enumerate(messages) if message.is_output]
    changed = list(messages)
    positions: list[int] = []
    freed = 0
    for position in outputs[:-1]:
        if freed >= excess_tokens:
            break
        content = messages[position].content
        cut = _cut(content)
        if len(cut) < len(content):
            changed[position] = replace(messages[position], content=cut)
            positions.append(position)
            freed += estimate_text(content) - estimate_text(cut)
    return Shortened(changed, tuple(positions), freed)


class Window:
    """The model's window, tokens: what is told of it, and what the server's refusals teach. None is not known.

    A hint is what a table says of the model's name, whose server may take more. It is held to as far as old output can
    be shortened to it; what does not fit then is sent all the same, for the server to decide.
    """

    def __init__(self, tokens: int | None, *, is_hint: bool = False) -> None:
        self.tokens = tokens
        self.is_hint = is_hint

    def excess(self, input_tokens: int, max_output_tokens: int) -> int:
        """How many tokens too long a request is, 0 when it fits."""
        if self.tokens is None or input_tokens + self._room(max_output_tokens) <= self.tokens:
            return 0
        return max(1, input_tokens - int(self.tokens * SHORTENED_SHARE))

    def output_room(self, input_tokens: int, max_output_tokens: int) -> int:
        """The output tokens that may be asked for beside so much input; at least 1."""
        if self.tokens is None or (self.is_hint and self.excess(input_tokens, max_output_tokens)):
            return max_output_tokens
        return max(1, min(max_output_tokens, self.tokens - input_tokens))

    def learn(self, told_tokens: int | None, input_tokens: int, max_output_tokens: int) -> None:
        """The server refused a request of about so many tokens for its length, and said what it takes, or not."""
        known, sent = self.tokens, input_tokens + max_output_tokens
        if told_tokens is not None and (known is None or told_tokens < known or (self.is_hint and told_tokens > known)):
            self.tokens = told_tokens
        elif known is None or not self.is_hint:
            # Estimates are off by so much that what it said, or what was known, did not help.
            self.tokens = max(1, int((known or sent) * GUESSED_SHARE))
        elif sent <= known:  # it takes less than the hint says; where more was sent, the hint is right from now on
            self.tokens = max(1, int(sent * GUESSED_SHARE))
        self.is_hint = False

    def _room(self, max_output_tokens: int) -> int:
        return min(max_output_tokens, int((self.tokens or 0) * ANSWER_SHARE))


def _cut(text: str) -> str:
    left_out = len(text) - 2 * KEPT_CHARS
    note = f"\n[… {left_out} characters left out here, so that the conversation fits the model's window …]\n"
    # Twice the note: what was cut once is not cut again.
    return text if left_out <= 2 * len(note) else f"{text[:KEPT_CHARS]}{note}{text[-KEPT_CHARS:]}"
