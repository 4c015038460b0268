"""When two numbers count as equal, and what in a text is a number.

`a` and `b` are close when `|a - b| <= max(rel * max(|a|, |b|), abs)`, the rule of `math.isclose`, computed on the
decimals as they were written: 0.3 and 0.2 differ by 0.1, not by 0.09999999999999998. With both tolerances 0 that is
equality of value, so `1` equals `1.0` and two integers of 400 digits that differ in the last one differ. NaN equals
NaN, an infinity equals itself, and neither is close to anything else.
"""

import re
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation
from typing import Self

from fbench.tasks.manifest import Tolerance

# 50 digits keep the rounding of a difference far below any tolerance that can be written as a float.
_WIDE = Context(prec=50, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])
_SHORT = Context(prec=8, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])
_MAX_SHOWN_CHARS = 40  # room for every digit of any float
# A leading zero makes a code (`007`, a date's `05`), not a number.
_NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SPECIAL = frozenset({"nan", "NaN", "NAN"})
_INFINITE = frozenset({"inf", "Inf", "INF", "infinity", "Infinity"})


@dataclass(frozen=True, slots=True)
class Closeness:
    """The numeric part of a tolerance."""

    rel: Decimal
    abs: Decimal

    @classmethod
    def of(cls, tolerance: Tolerance) -> Self:
        """The tolerance's `rel` and `abs`, as the decimals the manifest wrote."""
        return cls(Decimal(str(tolerance.rel)), Decimal(str(tolerance.abs)))

    @property
    def is_exact(self) -> bool:
        """Whether only equal values are close."""
        return not self.rel and not self.abs

    def holds(self, one: Decimal, other: Decimal) -> bool:
        """Whether the two are close; symmetric."""
        if one == other:
            return True
        if not (one.is_finite() and other.is_finite()):
            return one.is_nan() and other.is_nan()
        if self.is_exact:
            return False
        return difference(one, other) <= self.reach(max(one.copy_abs(), other.copy_abs()))

    def reach(self, magnitude: Decimal) -> Decimal:
        """The largest difference allowed when the larger number has this magnitude."""
        return max(_WIDE.multiply(self.rel, magnitude), self.abs)


def difference(one: Decimal, other: Decimal) -> Decimal:
    """`|one - other|` of two finite numbers, to 50 digits; never raises."""
    return _WIDE.subtract(one, other).copy_abs()


def ratio(part: Decimal, whole: Decimal) -> Decimal:
    """`part / whole` to 50 digits; never raises for a `whole` that is not 0."""
    return _WIDE.divide(part, whole)


def subtract(one: Decimal, other: Decimal) -> Decimal:
    """`one - other` of two finite numbers, to 50 digits; never raises."""
    return _WIDE.subtract(one, other)


def read_number(text: str) -> Decimal | None:
    """The number that the whole text is, NaN and infinities included, or None. A code such as `007` is none."""
    if _NUMBER.fullmatch(text):
        try:
            return Decimal(text)
        except InvalidOperation:
            return None
    if text in _SPECIAL:
        return Decimal("NaN")
    if text.lstrip("+-") in _INFINITE and len(text) - len(text.lstrip("+-")) <= 1:
        return Decimal("-Infinity" if text.startswith("-") else "Infinity")
    return None


def show_number(value: Decimal) -> str:
    """The number for a sentence, short also when it has 400 digits.

    >>> show_number(Decimal("0.930"))
    '0.930'
    >>> show_number(Decimal("1" * 400))
    '1.1111111E+399 (400 digits)'
    """
    text = str(value)
    if len(text) <= _MAX_SHOWN_CHARS:
        return text
    return f"{show_rounded(value)} ({len(value.as_tuple().digits)} digits)"


def show_rounded(value: Decimal) -> str:
    """The number to 8 significant digits."""
    return str(_SHORT.plus(value))
