"""Rows that a query gave against those expected: by value within a type, never across types.

A number equals a number of the same value, whatever wrote it: `1`, `1.0` and numeric `1.00`. A text is never a number,
true is never 1, null is only null. Bytes are written `\\xdeadbeef`. Where a column holds points in time, the expected
text may be in any form of ISO 8601 that names the same moment in the same way: with or without an offset.
"""

import json
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple, TypeAlias

from fbench.judging.closeness import show_number
from fbench.judging.differences import Comparison, quote
from fbench.judging.exact_json import JsonRefused, JsonValue, parse_json

_SHOWN_ROW_CHARS = 300
_TIME_TYPES = frozenset({"timestamp", "timestamptz"})


@dataclass(frozen=True, slots=True)
class Cell:
    """A value that equals, and hashes like, those it should equal; `shown` is how a sentence writes it."""

    kind: str
    value: Hashable
    shown: str = field(compare=False)


Row: TypeAlias = tuple[Cell, ...]


class RowsUnreadable(ValueError):
    """The answer is not what `sql_inside` prints."""


class QueryRows(NamedTuple):
    """What a query gave."""

    columns: tuple[str, ...]
    time_columns: frozenset[int]
    rows: tuple[Row, ...]
    cut: str


def read_answer(document: Mapping[str, JsonValue]) -> QueryRows:
    """The rows of an answer with `columns` and `rows`.

    Raises:
        RowsUnreadable: it has another shape.
    """
    match document:
        case {"columns": list(columns), "rows": list(rows), "cut": str(cut)}:
            named = [_column(column) for column in columns]
            return QueryRows(
                columns=tuple(name for name, _ in named),
                time_columns=frozenset(at for at, (_, kind) in enumerate(named) if kind in _TIME_TYPES),
                rows=tuple(_row(row) for row in rows),
                cut=cut,
            )
        case _:
            msg = "it lacks columns or rows"
            raise RowsUnreadable(msg)


def compare_rows(expect: Sequence[Sequence[Any]], got: QueryRows, *, ordered: bool) -> Comparison:
    """What differs; one by one when `ordered`, else as multisets."""
    wanted = [
        tuple(expected_cell(value, is_time=at in got.time_columns) for at, value in enumerate(row)) for row in expect
    ]
    compared = f"{_count(len(wanted), 'row')}, {'in order' if ordered else 'in any order'}"
    if got.cut:
        return Comparison.refused(f"the query gave {got.cut}; expected {_count(len(wanted), 'row')}")
    width = len(got.columns)
    if wrong := next((row for row in wanted if len(row) != width), None):
        names = ", ".join(map(repr, got.columns))
        return Comparison.refused(f"expected {_count(len(wrong), 'column')}, the query gives {width}: {names}")
    if len(wanted) != len(got.rows):
        gave = f"expected {_count(len(wanted), 'row')}, got {len(got.rows)}"
        texts = _unordered(wanted, got.rows)
        return Comparison.of(_led_by(gave, texts), compared)
    return Comparison.of(_ordered(wanted, got) if ordered else _unordered(wanted, got.rows), compared)


def expected_cell(value: object, *, is_time: bool = False) -> Cell:
    """A cell of the manifest's `expect`; a list or an object equals a json value."""
    match value:
        case str():
            return _text(_moment(value) if is_time else value)
        case None | bool() | int() | float():
            return _scalar(value)
        case _:
            return _json_cell(parse_json(json.dumps(value)))


def show_row(row: Row) -> str:
    """The row for a sentence."""
    text = f"({', '.join(cell.shown for cell in row)})"
    return text if len(text) <= _SHOWN_ROW_CHARS else f"{text[:_SHOWN_ROW_CHARS]}..."


def _led_by(first: str, others: Iterator[str]) -> Iterator[str]:
    yield first
    yield from others


def _ordered(wanted: Sequence[Row], got: QueryRows) -> Iterator[str]:
    for number, (expected, given) in enumerate(zip(wanted, got.rows, strict=True), start=1):
        for name, one, other in zip(got.columns, expected, given, strict=True):
            if one != other:
                yield f"row {number}, column {name!r}: expected {one.shown}, got {other.shown}"


def _unordered(wanted: Sequence[Row], got: Sequence[Row]) -> Iterator[str]:
    expected, given = Counter(wanted), Counter(got)
    for row, times in (expected - given).items():
        yield f"missing: {show_row(row)}{_times(times)}"
    for row, times in (given - expected).items():
        yield f"not expected: {show_row(row)}{_times(times)}"


def _times(times: int) -> str:
    return f" ({times} times)" if times > 1 else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _column(column: JsonValue) -> tuple[str, str]:
    match column:
        case [str(name), str(kind)]:
            return name, kind
        case _:
            msg = "a column is no pair of name and type"
            raise RowsUnreadable(msg)


def _row(row: JsonValue) -> Row:
    if not isinstance(row, list):
        msg = "a row is no list"
        raise RowsUnreadable(msg)
    return tuple(_given_cell(cell) for cell in row)


def _given_cell(cell: JsonValue) -> Cell:
    match cell:
        case None | bool():
            return _scalar(cell)
        case ["number", str(text)]:
            return _number(text)
        case ["time", str(text)]:
            return _text(_moment(text))
        case ["text" | "bytes", str(text)]:
            return _text(text)
        case ["json", str(text)]:
            try:
                return _json_cell(parse_json(text))
            except JsonRefused as error:
                msg = f"a json value is {error}"
                raise RowsUnreadable(msg) from None
        case _:
            msg = "a cell is of no known kind"
            raise RowsUnreadable(msg)


def _scalar(value: bool | float | None) -> Cell:
    if value is None:
        return Cell("null", None, "null")
    if isinstance(value, bool):
        return Cell("bool", value, "true" if value else "false")
    return _number(str(value))


def _text(text: str) -> Cell:
    return Cell("text", text, quote(text))


def _number(text: str) -> Cell:
    """NaN equals NaN here, as it does for PostgreSQL; a Decimal NaN would equal nothing."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        msg = f"{text[:40]!r} is no number"
        raise RowsUnreadable(msg) from None
    return Cell("number", "NaN" if number.is_nan() else number, show_number(number))


def _json_cell(value: JsonValue) -> Cell:
    """What a json value holds: a scalar is the scalar, so that `'"a"'::json` equals the text a."""
    if isinstance(value, list):
        items = [_json_cell(item) for item in value]
        return Cell("array", tuple(items), f"[{', '.join(item.shown for item in items)}]")
    if isinstance(value, dict):
        members = {key: _json_cell(item) for key, item in value.items()}
        shown = ", ".join(f"{quote(key)}: {item.shown}" for key, item in members.items())
        return Cell("object", frozenset(members.items()), f"{{{shown}}}")
    if isinstance(value, str):
        return _text(value)
    return _number(str(value)) if isinstance(value, Decimal) else _scalar(value)


def _moment(text: str) -> str:
    """One way of writing each moment; a text that is none stays as it is."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return (moment if moment.tzinfo is None else moment.astimezone(UTC)).isoformat()
