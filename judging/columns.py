"""What a cell of a CSV stands for, by the type of its column where the task gives one."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from fbench.judging.closeness import difference, read_number, show_rounded
from fbench.judging.differences import fold, off_by
from fbench.tasks.manifest import ColumnType, Tolerance


class Exact(NamedTuple):
    """A value that equals its equals and is close to nothing else."""

    value: Decimal | bool | datetime


class Misfit(NamedTuple):
    """A text that is nothing its column's type allows; `what` says so in words."""

    text: str
    what: str


Cell: TypeAlias = Decimal | str | Exact | Misfit

_MISSING = frozenset({"", "nan", "na", "n/a", "<na>", "nat", "null", "none"})
_TRUE, _FALSE = frozenset({"true", "t", "yes", "y", "1", "1.0"}), frozenset({"false", "f", "no", "n", "0", "0.0"})
_LEADING_ZEROS = re.compile(r"([+-]?)0+(?=[0-9])")


def read_cell(text: str, kind: ColumnType | None, tolerance: Tolerance) -> Cell:
    """The cell as a number, which may be close to another, or as what must be equal.

    Without a type a cell is a number when it reads as one and else a text. An empty cell is an empty text in a column
    of any type; with `nan_is_empty` so is whatever stands for a missing value, but in a column of texts.
    """
    if kind == "text":
        return fold(text, tolerance)
    bare = text.strip() if kind is not None or tolerance.strip else text
    if (tolerance.nan_is_empty and bare.strip().lower() in _MISSING) or (kind is not None and not bare):
        return ""
    if kind is not None:
        return _READERS[kind](bare)
    number = read_number(bare)
    return fold(text, tolerance) if number is None else number


def gap(one: Cell, other: Cell) -> str:
    """`, off by 0.5`, for two cells that have a distance, else nothing."""
    if isinstance(one, Decimal) and isinstance(other, Decimal):
        return off_by(one, other)
    if isinstance(one, Exact) and isinstance(other, Exact):
        ours, theirs = one.value, other.value
        if isinstance(ours, Decimal) and isinstance(theirs, Decimal):
            return f", off by {show_rounded(difference(ours, theirs))}"
        if isinstance(ours, datetime) and isinstance(theirs, datetime):
            if (ours.tzinfo is None) != (theirs.tzinfo is None):
                return ", only one of them says its zone"
            return f", off by {abs(ours - theirs)}"
    return f", which is {other.what}" if isinstance(other, Misfit) else ""


def _read_plain_number(text: str) -> Decimal | None:
    """A number of a column of numbers, where `007` is no code but 7."""
    return read_number(_LEADING_ZEROS.sub(r"\1", text))


def _read_any_number(text: str) -> Cell:
    number = _read_plain_number(text)
    return Misfit(text, "no number") if number is None else number


def _read_integer(text: str) -> Cell:
    number = _read_plain_number(text)
    if number is None or not number.is_finite() or number != number.to_integral_value():
        return Misfit(text, "no integer")
    return Exact(number)


def _read_boolean(text: str) -> Cell:
    word = text.lower()
    return Exact(word in _TRUE) if word in _TRUE | _FALSE else Misfit(text, "no boolean")


def _read_datetime(text: str) -> Cell:
    try:
        return Exact(datetime.fromisoformat(text))
    except ValueError:
        return Misfit(text, "no date or time of ISO 8601")


_READERS: Mapping[ColumnType, Callable[[str], Cell]] = MappingProxyType(
    {
        "number": _read_any_number,
        "integer": _read_integer,
        "boolean": _read_boolean,
        "datetime": _read_datetime,
    }
)
