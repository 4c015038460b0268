"""What a check saw, kept as `grader_outputs/<check_id>.json`: always valid JSON, bounded, written atomically."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from fbench.engine.execs import ExecResult
from fbench.engine.records.atomic import NewFile, pretty_json
from fbench.engine.results import CheckResult

SCHEMA_VERSION = 1
MAX_TEXT_CHARS = 64 * 1024
"""How much of one captured stream is kept: its beginning and its end, half each."""
LITTLE_ITEMS = 20
LITTLE_CHARS = 2000

_MAX_DEPTH = 20
_MAX_ITEMS = 10_000
_MAX_INT_BITS = 64  # a double holds 53; beyond 64 other readers of JSON give up


def command_evidence(command: str, result: ExecResult) -> dict[str, Any]:
    """A command and how it went."""
    return {
        "command": command,
        "exit_code": result.exit_code,
        "timed_out": result.timed_out,
        "duration_s": round(result.duration_s, 3),
        "stdout": result.output,
        "stderr": result.stderr,
        "dropped_bytes": result.dropped_bytes,
        "reason": result.reason,
        "out_of_memory": result.out_of_memory,
    }


def cut_middle(text: str, max_chars: int) -> str:
    """The text, or its beginning and end with a note of what stood between."""
    if len(text) <= max_chars:
        return text
    half = max_chars // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def clean_text(text: str, max_chars: int) -> str:
    """A bounded text that is valid Unicode: lone surrogates, which JSON's readers refuse, become U+FFFD."""
    cut = cut_middle(text, max_chars)
    return cut.encode("utf-16", errors="surrogatepass").decode("utf-16", errors="replace")


def tail(text: str, max_chars: int = 300) -> str:
    """The end of a captured output on one line, for a sentence."""
    line = " | ".join(part.strip() for part in text[-4 * max_chars :].splitlines() if part.strip())
    return line if len(line) <= max_chars else f"...{line[-max_chars:]}"


def write_evidence(folder: Path, result: CheckResult, output: Mapping[str, Any]) -> None:
    """Write the file of one check, whole or not at all; blocking. It is on the disk once the run's result is. Raises
    OSError when the disk does not take it."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "check_id": result.id,
        "type": result.type,
        "status": result.status,
        "score": result.score,
        "detail": result.detail,
        **output,
    }
    text = pretty_json(as_json(document))
    folder.mkdir(parents=True, exist_ok=True)
    with NewFile(evidence_path(folder, result.id), text) as file:
        file.take_place()


def is_little_evidence(output: Mapping[str, Any]) -> bool:
    """Whether writing it takes no time to speak of: a few values, each short."""
    return len(output) <= LITTLE_ITEMS and all(
        value is None
        or isinstance(value, float)
        or (isinstance(value, str) and len(value) <= LITTLE_CHARS)
        or (isinstance(value, int) and value.bit_length() <= _MAX_INT_BITS)
        for value in output.values()
    )


def evidence_path(folder: Path, check_id: str) -> Path:
    """Where a check's file stands; ids are safe as file names, the manifest sees to that."""
    return folder / f"{check_id}.json"


def as_json(value: object, depth: int = 0) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """The value in types JSON has: what has no place in JSON becomes a text, what is too long is cut."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if value.bit_length() <= _MAX_INT_BITS else hex(value)[:MAX_TEXT_CHARS]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, str | bytes | bytearray):
        return _text(value)
    if depth >= _MAX_DEPTH:
        return "[nested too deeply to be kept]"
    if isinstance(value, Mapping):
        kept = list(value.items())[:_MAX_ITEMS]
        return {_text(key if isinstance(key, str) else repr(key)): as_json(item, depth + 1) for key, item in kept}
    if isinstance(value, Sequence | set | frozenset):
        return [as_json(item, depth + 1) for item in list(value)[:_MAX_ITEMS]]
    return _text(repr(value))


def _decimal(value: Decimal) -> float | int | str:
    """A JSON number when that is exactly the value, else its digits as a text."""
    if value.is_finite():
        number = float(value)
        if math.isfinite(number) and Decimal(repr(number)) == value:
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
    return cut_middle(str(value), MAX_TEXT_CHARS)


def _text(value: str | bytes | bytearray) -> str:
    if not isinstance(value, str):
        value = bytes(value).decode("utf-8", errors="replace")
    return clean_text(value, MAX_TEXT_CHARS)
