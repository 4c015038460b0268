"""Two runs compared: the first place where result or transcript differ, ids, times and durations set aside."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from fbench.engine.errors import UsageError
from fbench.engine.records.reading import RESULT, TRANSCRIPT, Unreadable, read_result, read_transcript

IGNORED = frozenset(
    {
        "run_id",
        "seq",
        "suite_run_id",
        "owner",
        "task_folder",
        "tool_call_id",
        "tool_calls[].id",
        "time",
        "started_at",
        "finished_at",
        "duration_s",
        "wait_s",
        "task_validated",
    }
)
"""Fields two runs of the same inputs may differ in, of result.json and of every transcript line. In other texts a run's
own id counts as the word `RUN_ID`, for `local` shows its workspace under a path that holds it; whatever else a text
says, such as a time of day that a tool printed, is compared, but for durations (see `mask_durations`)."""

WAITS = "model_wait"
"""Transcript events that only say how long a call waited to be sent; they are left out and not counted, and `seq` is
not compared."""

_DURATION = re.compile(r"\b\d+\.\d+ ?(?:s|ms|secs?|seconds)\b(?: \(\d+:\d\d:\d\d\))?")

EXCERPT_CHARS = 40
"""Of a text, shown on either side of the first character that differs."""

_ABSENT = "(absent)"


@dataclass(frozen=True, slots=True)
class Difference:
    """The first one. `line` is the 1-based event of the transcript, None in result.json; `field` is empty where a whole
    event stands on one side only; the values are excerpts around the first character that differs."""

    file: str
    line: int | None
    field: str
    first: str
    second: str


def first_difference(first: Path, second: Path) -> Difference | None:
    """Where the runs in two folders first differ, the transcript looked at before the result; None when nowhere.

    Raises:
        UsageError: a run cannot be compared: it has no result, or a file of it cannot be read.
    """
    try:
        results = [read_result(folder) for folder in (first, second)]
        for folder, result in zip((first, second), results, strict=True):
            if result is None:
                msg = f"the run in {folder} has no {RESULT}: it did not finish, so there is nothing to compare"
                raise UsageError(msg)
        ids = [result.run_id for result in results if result is not None]
        pairs = zip_longest(_events(first), _events(second))
        for line, (one, other) in enumerate(pairs, start=1):
            if (found := _first(*map(_without_id, (one, other), ids))) is not None:
                return Difference(TRANSCRIPT, line, *found)
    except Unreadable as error:
        raise UsageError(str(error)) from error
    documents = [result.to_json() for result in results if result is not None]
    found = _first(*map(_without_id, documents, ids))
    return None if found is None else Difference(RESULT, None, *found)


def mask_durations(text: str) -> str:
    """`text` with seconds that have a decimal point, as test runners print them, replaced by a word.

    >>> mask_durations("35 passed in 0.70s, slowest 12.5 ms, sleep 3 s")
    '35 passed in DURATION, slowest DURATION, sleep 3 s'
    >>> mask_durations("3 passed in 61.20s (0:01:01)")
    '3 passed in DURATION'
    """
    return _DURATION.sub("DURATION", text)


def map_texts(value: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - JSON values
    """`value` with every text in it changed, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(str(key)): map_texts(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [map_texts(item, change) for item in value]
    return value


def _events(folder: Path) -> Iterator[dict[str, Any]]:
    return (event for event in read_transcript(folder / TRANSCRIPT) if event.get("type") != WAITS)


def _without_id(value: Any, run_id: str) -> Any:  # noqa: ANN401 - JSON values
    """`value` with the run's own id and durations replaced in its texts."""
    return map_texts(value, lambda text: mask_durations(text.replace(run_id, "RUN_ID")))


def _first(one: Any, other: Any) -> tuple[str, str, str] | None:  # noqa: ANN401 - JSON values
    for field, mine, its in _walk(one, other, "", ""):
        return (field, *excerpts(mine, its))
    return None


def _walk(one: Any, other: Any, field: str, rule: str) -> Iterator[tuple[str, Any, Any]]:  # noqa: ANN401
    """Unequal leaves. `field` names the place for people (`checks[0].id`), `rule` as IGNORED does (`checks[].id`)."""
    if rule in IGNORED:
        return
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            dot = "." if field else ""
            yield from _walk(one.get(key, _ABSENT), other.get(key, _ABSENT), f"{field}{dot}{key}", f"{rule}{dot}{key}")
    elif isinstance(one, list) and isinstance(other, list):
        for position, (mine, its) in enumerate(zip_longest(one, other, fillvalue=_ABSENT)):
            yield from _walk(mine, its, f"{field}[{position}]", f"{rule}[]")
    elif type(one) is not type(other) or one != other:
        yield field, one, other


def excerpts(one: Any, other: Any) -> tuple[str, str]:  # noqa: ANN401 - JSON values
    """Both values as text, cut to what surrounds the first character that differs."""
    texts = [as_text(value) for value in (one, other)]
    at = next((n for n, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    start, end = max(0, at - EXCERPT_CHARS), at + EXCERPT_CHARS
    first, second = (("…" if start else "") + text[start:end] + ("…" if len(text) > end else "") for text in texts)
    return first, second


def as_text(value: Any) -> str:  # noqa: ANN401 - a JSON value
    if value is None:
        return "null"
    return value if value == _ABSENT else json.dumps(value, ensure_ascii=False)
