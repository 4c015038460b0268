"""Comparing what an agent produced with a reference: `compare(format, expected, got, tolerance, columns)`.

What each tolerance means:

- `rel`, `abs`: numbers `a` and `b` are equal when `|a - b| <= max(rel * max(|a|, |b|), abs)`; see `closeness`.
  Cells of a CSV and numbers of JSON are always compared by value (`1` equals `1.0`); the numbers within a text only
  when one of the two is above 0.
- `ignore_case`: texts, cells (the header too) and JSON strings are case-folded; the keys of JSON objects are not.
- `strip` (the default): of a text, the whitespace at the end of each line and at both ends of the whole; of CSV cells
  and JSON strings, the whitespace around them.
- `ignore_row_order`: lines of a text, rows of a CSV below its header, elements of a JSON array at the top are
  matched one to one in any order.
- `nan_is_empty`: of a CSV, NaN, NA, null, None and their like are empty cells, as pandas reads them; of JSON, NaN is
  null. Without it NaN equals NaN and nothing else.

What a comparison cannot forgive it can be told: `columns` gives columns of a CSV a type, see `columns`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, assert_never

from fbench.judging.compare_csv import compare_csv
from fbench.judging.compare_json import compare_json
from fbench.judging.compare_text import compare_text
from fbench.judging.differences import Comparison
from fbench.tasks.manifest import ColumnType, Tolerance

Format = Literal["text", "json", "csv"]


def compare(
    kind: Format,
    expected: bytes,
    got: bytes,
    tolerance: Tolerance,
    columns: Mapping[str, ColumnType] = MappingProxyType({}),
) -> Comparison:
    """What differs between the two; may take seconds for megabytes, so it belongs into a thread.

    Raises:
        ReferenceRefused: the expected side itself cannot be read as `kind`.
        TooAlike: rows in any order could not be told apart within the bound on work.
    """
    match kind:
        case "csv":
            return compare_csv(expected, got, tolerance, columns)
        case "json":
            return compare_json(expected, got, tolerance)
        case "text":
            return compare_text(expected, got, tolerance)
        case _:
            assert_never(kind)
