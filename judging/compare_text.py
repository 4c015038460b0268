"""Texts compared line by line."""

import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import zip_longest

from fbench.judging.closeness import Closeness
from fbench.judging.differences import Comparison, most_rows, off_by, quote
from fbench.judging.matching import Row, match_rows
from fbench.tasks.manifest import Tolerance

# A number that stands alone: no part of a word, a version (1.2.3), a date (2024-05-13) or a fraction (3/4), and no
# code with leading zeros.
_NUMBER = re.compile(
    r"(?<![\w.])(?<!\d[-/])[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,15})?(?!\w|\.\d|[-/]\d)"
)


def compare_text(expected: bytes, got: bytes, tolerance: Tolerance) -> Comparison:
    """What differs between two texts; bytes that are not UTF-8 equal themselves only."""
    ours = _lines(expected, tolerance)
    if (count := got.count(b"\n")) > most_rows(len(ours)):
        return Comparison.refused(f"the output has {count} lines, far above the {len(ours)} of the reference")
    theirs = _lines(got, tolerance)
    closeness = Closeness.of(tolerance)
    compared = f"{len(ours)} lines"
    if tolerance.ignore_row_order:
        return Comparison.of(_unordered(ours, theirs, tolerance, closeness), compared)
    return Comparison.of(_ordered(ours, theirs, tolerance, closeness), compared)


def _lines(data: bytes, tolerance: Tolerance) -> list[str]:
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="surrogateescape")
    if not tolerance.strip:
        return text.split("\n")
    return [line.rstrip() for line in text.strip().split("\n")]


def _ordered(ours: list[str], theirs: list[str], tolerance: Tolerance, closeness: Closeness) -> Iterator[str]:
    for number, (expected, got) in enumerate(zip_longest(ours, theirs), start=1):
        if expected == got:
            continue
        if expected is None:
            yield f"line {number}: {quote(got)} came, where the reference has ended"
        elif got is None:
            yield f"line {number}: expected {quote(expected)}, but the output has ended"
        elif not _are_equal(expected, got, tolerance, closeness):
            yield f"line {number}: expected {quote(expected)}, got {quote(got)}{_gap(expected, got)}"


def _unordered(ours: list[str], theirs: list[str], tolerance: Tolerance, closeness: Closeness) -> Iterator[str]:
    unmatched = match_rows(
        [_row(line, tolerance, closeness) for line in ours],
        [_row(line, tolerance, closeness) for line in theirs],
        closeness,
    )
    for index in unmatched.missing:
        yield f"line {index + 1} of the reference has no match: {quote(ours[index])}"
    for index in unmatched.extra:
        yield f"line {index + 1} of the output is not in the reference: {quote(theirs[index])}"


def _are_equal(expected: str, got: str, tolerance: Tolerance, closeness: Closeness) -> bool:
    ours, theirs = _row(expected, tolerance, closeness), _row(got, tolerance, closeness)
    if ours.shape != theirs.shape:
        return False
    return all(closeness.holds(a, b) for a, b in zip(ours.numbers, theirs.numbers, strict=True))


def _row(line: str, tolerance: Tolerance, closeness: Closeness) -> Row:
    """The line as texts that must be equal and numbers between them that must be close."""
    if closeness.is_exact:
        return Row(line.casefold() if tolerance.ignore_case else line, ())
    numbers = tuple(Decimal(text) for text in _NUMBER.findall(line))
    texts = tuple(_NUMBER.split(line))
    return Row(tuple(text.casefold() for text in texts) if tolerance.ignore_case else texts, numbers)


def _gap(expected: str, got: str) -> str:
    """By how much two lines with a single number each differ."""
    ours, theirs = _NUMBER.findall(expected), _NUMBER.findall(got)
    if len(ours) == len(theirs) == 1:
        return off_by(Decimal(ours[0]), Decimal(theirs[0]))
    return ""
