"""Tables in CSV compared cell by cell."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice, zip_longest
from types import MappingProxyType

from fbench.judging.closeness import Closeness
from fbench.judging.columns import Cell, Exact, Misfit, gap, read_cell
from fbench.judging.differences import Comparison, ReferenceRefused, fold, most_rows, quote
from fbench.judging.matching import Row, match_rows
from fbench.tasks.manifest import ColumnType, Tolerance


class _NoTable(ValueError):
    """The text cannot be read as CSV."""


@dataclass(frozen=True, slots=True)
class _Table:
    """Cells as they stood in the file, the header apart."""

    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True, slots=True)
class _Rules:
    """How cells are read and compared; `kinds` are the types of the columns, None where the task gives none."""

    tolerance: Tolerance
    closeness: Closeness
    kinds: list[ColumnType | None]

    def read(self, cells: list[str]) -> list[Cell]:
        """The cells of a row as values; those beyond the header have no type."""
        kinds = [*self.kinds, *[None] * (len(cells) - len(self.kinds))]
        return [read_cell(text, kind, self.tolerance) for text, kind in zip(cells, kinds, strict=False)]


def compare_csv(
    expected: bytes, got: bytes, tolerance: Tolerance, columns: Mapping[str, ColumnType] = MappingProxyType({})
) -> Comparison:
    """What differs between two tables: comma, double quotes, the first record is the header.

    The header must have the same names in the same order. Cells that are numbers on both sides compare by value;
    `NaN` equals `NaN`, an empty cell an empty one, and neither the other. A byte order mark, the kind of line ends,
    needless quotes and blank lines do not count. `columns` gives columns a type, see `columns.read_cell`.
    """
    if expected == got and not columns:
        return Comparison(is_equal=True, compared="byte by byte")
    try:
        ours = _read(expected, None)
        rules = _Rules(tolerance, Closeness.of(tolerance), _find_kinds(ours.header, columns))
        _require_types(ours, rules)
    except _NoTable as error:
        raise ReferenceRefused(str(error)) from None
    try:
        theirs = _read(got, most_rows(len(ours.rows)))
    except _NoTable as error:
        return Comparison.refused(f"the output cannot be compared as CSV: {error}")
    headers = list(_compare_headers(ours.header, theirs.header, tolerance))
    if headers:
        return Comparison.of(headers, "the header")
    differences = _unordered(ours, theirs, rules) if tolerance.ignore_row_order else _ordered(ours, theirs, rules)
    return Comparison.of(differences, f"{len(ours.rows)} rows of {len(ours.header)} columns")


def _find_kinds(header: list[str], columns: Mapping[str, ColumnType]) -> list[ColumnType | None]:
    names = [name.strip() for name in header]
    for name in columns:
        if name not in names:
            msg = f"it has no column {quote(name)}, which `columns` names"
            raise _NoTable(msg)
    return [columns.get(name) for name in names]


def _require_types(table: _Table, rules: _Rules) -> None:
    if not any(rules.kinds):
        return
    for number, cells in enumerate(table.rows, start=1):
        for at, cell in enumerate(rules.read(cells)):
            if isinstance(cell, Misfit):
                msg = f"row {number}, {_column(table.header, at)}: {quote(cell.text)} is {cell.what}"
                raise _NoTable(msg)


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


def _ordered(ours: _Table, theirs: _Table, rules: _Rules) -> Iterator[str]:
    if len(ours.rows) != len(theirs.rows):
        yield f"expected {len(ours.rows)} rows, got {len(theirs.rows)}"
    for number, (expected, got) in enumerate(zip_longest(ours.rows, theirs.rows), start=1):
        if expected is None or got is None:
            return
        yield from _compare_row(ours.header, expected, got, number=number, rules=rules)


def _compare_row(
    header: list[str], expected: list[str], got: list[str], *, number: int, rules: _Rules
) -> Iterator[str]:
    if expected == got:
        return
    if len(expected) != len(got):
        yield f"row {number}: expected {len(expected)} cells, got {len(got)}: {quote(','.join(got))}"
        return
    for at, (one, other) in enumerate(zip(rules.read(expected), rules.read(got), strict=True)):
        if isinstance(one, Decimal) and isinstance(other, Decimal):
            if not rules.closeness.holds(one, other):
                place = f"row {number}, {_column(header, at)}"
                yield f"{place}: expected {expected[at]}, got {got[at]}{gap(one, other)}"[:500]
        elif type(one) is not type(other) or one != other:
            place = f"row {number}, {_column(header, at)}"
            yield f"{place}: expected {quote(expected[at])}, got {quote(got[at])}{gap(one, other)}"


def _column(header: list[str], at: int) -> str:
    return f"column {quote(header[at])}" if at < len(header) else f"cell {at + 1} (beyond the header)"


def _unordered(ours: _Table, theirs: _Table, rules: _Rules) -> Iterator[str]:
    expected_rows, got_rows = ([_row(rules.read(cells)) for cells in table.rows] for table in (ours, theirs))
    unmatched = match_rows(expected_rows, got_rows, rules.closeness)
    if len(ours.rows) != len(theirs.rows):
        yield f"expected {len(ours.rows)} rows, got {len(theirs.rows)}"
    if len(unmatched.missing) == len(unmatched.extra) == 1:
        # One row against one: what differs in it says more than both rows whole.
        expected, got = ours.rows[unmatched.missing[0]], theirs.rows[unmatched.extra[0]]
        yield from _compare_row(ours.header, expected, got, number=unmatched.extra[0] + 1, rules=rules)
        return
    for index in unmatched.missing:
        yield f"row {index + 1} of the reference has no match: {quote(','.join(ours.rows[index]))}"
    for index in unmatched.extra:
        yield f"row {index + 1} of the output is not in the reference: {quote(','.join(theirs.rows[index]))}"


def _row(cells: list[Cell]) -> Row:
    shape: list[str | Exact | Misfit | None] = []
    numbers: list[Decimal] = []
    for cell in cells:
        if not isinstance(cell, Decimal):
            shape.append("t" + cell if isinstance(cell, str) else cell)
        elif cell.is_finite():
            shape.append(None)
            numbers.append(cell)
        else:
            shape.append("n" + str(cell))
    return Row(tuple(shape), tuple(numbers))
