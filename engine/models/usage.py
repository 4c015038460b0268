"""What an answer took, read without trust: the `usage` objects of many servers as one set of disjoint counts.

Chat Completions says `prompt_tokens` and `completion_tokens`, the Responses API `input_tokens` and `output_tokens`. In
both, tokens read from a cache and tokens written to one are a part of the first number, as OpenAI, OpenRouter and
DeepSeek document it; only their names differ.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fbench.engine.seams import Usage

MOST_TOKENS = 10**9
"""No context is that long: a larger count is nonsense and no usage at all."""

_PROMPT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details")
_CACHE_WRITE = ("cache_write_tokens", "cache_creation_input_tokens", "cache_creation_tokens")


def read_usage(raw: object) -> Usage | None:
    """Disjoint counts out of a `usage` object, or None when it makes no sense.

    `input + cache_read + cache_write` is the prompt as the server counted it; `reasoning` is a part of `output`. xAI
    counts reasoning beside `completion_tokens`, which is seen where the total is the sum of all three
    (https://docs.x.ai/docs/key-information/consumption-and-rate-limits).

    >>> read_usage({"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}})
    Usage(input=6, cache_read=4, cache_write=0, output=3, reasoning=0)
    >>> read_usage({"prompt_tokens": -1, "completion_tokens": 3}) is None
    True
    """
    if not isinstance(raw, dict):
        return None
    prompt_raw, output_raw = (
        _either(raw, "prompt_tokens", "input_tokens"),
        _either(raw, "completion_tokens", "output_tokens"),
    )
    prompt, output, total = _count(prompt_raw), _count(output_raw), _count(raw.get("total_tokens"))
    if prompt is None and prompt_raw is None and total is not None and output is not None:
        prompt = total - output if total >= output else None
    if output is None and output_raw is None and total is not None and prompt is not None:
        output = total - prompt if total >= prompt else None
    if prompt is None or output is None:
        return None
    reasoning = _detail(raw, _OUTPUT_DETAILS, ("reasoning_tokens",))
    if reasoning and total == prompt + output + reasoning:
        output += reasoning
    cached = min(_cache_read(raw), prompt)
    written = min(_detail(raw, _PROMPT_DETAILS, _CACHE_WRITE), prompt - cached)
    return Usage(
        input=prompt - cached - written,
        cache_read=cached,
        cache_write=written,
        output=output,
        reasoning=min(reasoning, output),
    )


def _cache_read(raw: Mapping[str, Any]) -> int:
    """DeepSeek says it at the top, all others in the details."""
    return _detail(raw, _PROMPT_DETAILS, ("cached_tokens",)) or _count(raw.get("prompt_cache_hit_tokens")) or 0


def _either(raw: Mapping[str, Any], name: str, other: str) -> object:
    value = raw.get(name)
    return raw.get(other) if value is None else value


def _detail(raw: Mapping[str, Any], groups: tuple[str, ...], names: tuple[str, ...]) -> int:
    """The first of `names` that stands with a count in one of `groups`; 0 where there is none."""
    found = (_count(details.get(name)) for details in _objects(raw, groups) for name in names)
    return next((count for count in found if count), 0)


def _objects(raw: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    return (value for name in names if isinstance(value := raw.get(name), dict))


def _count(value: object) -> int | None:
    """A count of tokens: whole, not negative, thinkable; also as a float or in digits."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(MOST_TOKENS)):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= MOST_TOKENS else None
