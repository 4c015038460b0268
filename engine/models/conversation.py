"""Conversations grow at their end: what was looked at before need not be looked at again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fbench.engine.seams import Message


def count_unchanged(known: Sequence["Message"], messages: Sequence["Message"]) -> int:
    """How many of the first `messages` are the very objects in `known`.

    >>> from fbench.engine.seams import Message
    >>> one, two = Message("user", "a"), Message("user", "b")
    >>> count_unchanged([one, two], [one, two, two]), count_unchanged([one, two], [one, Message("user", "b")])
    (2, 1)
    """
    pairs = zip(known, messages, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one is not other), min(len(known), len(messages)))
