"""Tables in CSV compared cell by cell."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice, zip_longest

from fbench.judging.closeness import Closeness, read_number
from fbench.judging.differences import Comparison, ReferenceRefused, fold, most_rows, off_by, quote
from fbench.judging.matching import Row, match_rows
from fbench.tasks.manifest import Tolerance


class _NoTable(ValueError):
    """The text cannot be read as CSV."""


@dataclass(frozen=True, slots=True)
class _Table:
    """Cells as they stood in the file, the header apart."""

    header: list[str]
    rows: list[list[str]]


def compare_csv(expected: bytes, got: bytes, tolerance: Tolerance) -> Comparison:
    """What differs between two tables: comma, double quotes, the first record is the header.

    The header must have the same names in the same order. Cells that are numbers on both sides compare by value;
    `NaN` equals `NaN`, an empty cell an empty one, and neither the other. A byte order mark, the kind of line ends,
    needless quotes and blank lines do not count.
    """
    if expected == got:
        return Comparison(is_equal=True, compared="byte by byte")
    try:
        ours = _read(expected, None)
    except _NoTable as error:
        raise ReferenceRefused(str(error)) from None
    try:
        theirs = _read(got, most_rows(len(ours.rows)))
    except _NoTable as error:
        return Comparison.refused(f"the output cannot be compared as CSV: {error}")
    headers = list(_compare_headers(ours.header, theirs.header, tolerance))
    if headers:
        return Comparison.of(headers, "the header")
    closeness = Closeness.of(tolerance)
    rows = _unordered if tolerance.ignore_row_order else _ordered
    return Comparison.of(
        rows(ours, theirs, tolerance, closeness), f"{len(ours.rows)} rows of {len(ours.header)} columns"
    )


def _read(data: bytes, max_rows: int | None) -> _Table:
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="surrogateescape")
    try:
        records = list(islice(csv.reader(io.StringIO(text, newline="")), max_rows))
    except csv.Error as error:
        raise _NoTable(str(error)) from None
    if len(records) == max_rows:
        msg = f"it has {max_rows} rows or more, far above the reference"
        raise _NoTable(msg)
    while records and not records[-1]:
        records.pop()
    while records and not records[0]:
        records.pop(0)
    if not records:
        return _Table([], [])
    header, *rows = records
    # In a table of one column a blank line is how an empty cell is written.
    return _Table(header, [row or [""] for row in rows if row or len(header) == 1])


def _compare_headers(ours: list[str], theirs: list[str], tolerance: Tolerance) -> Iterator[str]:
    expected = [fold(name, tolerance) for name in ours]
    got = [fold(name, tolerance) for name in theirs]
    if expected == got:
        return
    if not got:
        yield "the output is empty, the reference has a header"
        return
    missing = [name for name in ours if fold(name, tolerance) not in got]
    extra = [name for name in theirs if fold(name, tolerance) not in expected]
    if missing:
        yield f"header: missing {_names(missing)}; the output has {_names(theirs)}"
    if extra:
        yield f"header: {_names(extra)} not in the reference"
    if not missing and not extra:
        yield f"header: the columns stand as {_names(theirs)}, expected {_names(ours)}"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(quote(name) for name in names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown or "no column"  # noqa: PLR2004 - fits a line


def _ordered(ours: _Table, theirs: _Table, tolerance: Tolerance, closeness: Closeness) -> Iterator[str]:
    if len(ours.rows) != len(theirs.rows):
        yield f"expected {len(ours.rows)} rows, got {len(theirs.rows)}"
    for number, (expected, got) in enumerate(zip_longest(ours.rows, theirs.rows), start=1):
        if expected is None or got is None:
            return
        yield from _compare_row(ours.header, expected, got, number=number, tolerance=tolerance, closeness=closeness)


def _compare_row(
    header: list[str], expected: list[str], got: list[str], *, number: int, tolerance: Tolerance, closeness: Closeness
) -> Iterator[str]:
    if expected == got:
        return
    if len(expected) != len(got):
        yield f"row {number}: expected {len(expected)} cells, got {len(got)}: {quote(','.join(got))}"
        return
    for at, (ours, theirs) in enumerate(zip(expected, got, strict=True)):
        one, other = _cell(ours, tolerance), _cell(theirs, tolerance)
        if isinstance(one, Decimal) and isinstance(other, Decimal):
            if not closeness.holds(one, other):
                yield f"row {number}, {_column(header, at)}: expected {ours}, got {theirs}{off_by(one, other)}"[:500]
        elif type(one) is not type(other) or one != other:
            yield f"row {number}, {_column(header, at)}: expected {quote(ours)}, got {quote(theirs)}"


def _column(header: list[str], at: int) -> str:
    return f"column {quote(header[at])}" if at < len(header) else f"cell {at + 1} (beyond the header)"


def _cell(text: str, tolerance: Tolerance) -> Decimal | str:
    """The cell as a number when it is one, else its text as the tolerance sees it."""
    number = read_number(text.strip() if tolerance.strip else text)
    return fold(text, tolerance) if number is None else number


def _unordered(ours: _Table, theirs: _Table, tolerance: Tolerance, closeness: Closeness) -> Iterator[str]:
    unmatched = match_rows(
        [_row(cells, tolerance) for cells in ours.rows], [_row(cells, tolerance) for cells in theirs.rows], closeness
    )
    if len(ours.rows) != len(theirs.rows):
        yield f"expected {len(ours.rows)} rows, got {len(theirs.rows)}"
    if len(unmatched.missing) == len(unmatched.extra) == 1:
        # One row against one: what differs in it says more than both rows whole.
        expected, got = ours.rows[unmatched.missing[0]], theirs.rows[unmatched.extra[0]]
        number = unmatched.extra[0] + 1
        yield from _compare_row(ours.header, expected, got, number=number, tolerance=tolerance, closeness=closeness)
        return
    for index in unmatched.missing:
        yield f"row {index + 1} of the reference has no match: {quote(','.join(ours.rows[index]))}"
    for index in unmatched.extra:
        yield f"row {index + 1} of the output is not in the reference: {quote(','.join(theirs.rows[index]))}"


def _row(cells: list[str], tolerance: Tolerance) -> Row:
    shape: list[str | None] = []
    numbers: list[Decimal] = []
    for text in cells:
        cell = _cell(text, tolerance)
        if not isinstance(cell, Decimal):
            shape.append("t" + cell)
        elif cell.is_finite():
            shape.append(None)
            numbers.append(cell)
        else:
            shape.append("n" + str(cell))
    return Row(tuple(shape), tuple(numbers))
