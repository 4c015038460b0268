"""What servers say when a request is longer than their model's window."""

import re
from typing import NamedTuple

_STATUSES = frozenset({400, 413, 422, 500})
"""500 is what some local servers answer; the words decide."""

# The words of OpenAI and vLLM, llama.cpp, Anthropic, Google, TGI, Mistral, in this order.
_SAID = re.compile(
    r"context_length_exceeded|maximum context length|context window|exceed\w* (the )?(available )?context|"
    r"exceed_context_size|prompt is too long|input token count .{0,40}exceeds|must be <= \d+\. given|"
    r"too large for model with",
    re.IGNORECASE,
)
_LIMITS = (
    re.compile(r"maximum context length (?:is|of) (\d[\d,_]*)", re.IGNORECASE),
    re.compile(r"context window (?:is|of) (\d[\d,_]*)", re.IGNORECASE),
    re.compile(r"context size \((\d[\d,_]*)", re.IGNORECASE),
    re.compile(r'"?n_ctx"?\s*[:=]\s*(\d+)', re.IGNORECASE),
    re.compile(r"> (\d[\d,_]*) maximum", re.IGNORECASE),
    re.compile(r"number of tokens allowed \((\d[\d,_]*)\)", re.IGNORECASE),
    re.compile(r"must be <= (\d[\d,_]*)\. given", re.IGNORECASE),
    re.compile(r"(\d[\d,_]*) maximum context length", re.IGNORECASE),
)
_MOST_DIGITS = 9


class Overlong(NamedTuple):
    """A refusal for the length of a request; `window_tokens` is what the model takes, where that was said."""

    window_tokens: int | None


def read_overlong(status: int, words: str) -> Overlong | None:
    """Whether a refusal is one for length.

    >>> read_overlong(400, "This model's maximum context length is 8,192 tokens. However, you requested 9000 tokens")
    Overlong(window_tokens=8192)
    >>> read_overlong(400, "prompt is too long: 210000 tokens > 200000 maximum")
    Overlong(window_tokens=200000)
    >>> read_overlong(429, "maximum context length is 8192") is read_overlong(400, "bad temperature") is None
    True
    """
    if status not in _STATUSES or not _SAID.search(words):
        return None
    for pattern in _LIMITS:
        if matched := pattern.search(words):
            digits = re.sub(r"\D", "", matched[1])
            return Overlong(int(digits) if len(digits) <= _MOST_DIGITS and int(digits) > 0 else None)
    return Overlong(None)
