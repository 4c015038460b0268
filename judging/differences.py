"""What a comparison found, and how its parts are put into words."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from fbench.judging.closeness import difference, show_rounded
from fbench.tasks.manifest import Tolerance

MAX_DIFFERENCES = 20
"""How many differences are put into words; the rest are counted."""

_SHOWN_CHARS = 160


def most_rows(expected: int) -> int:
    """How many rows of an output are looked at for a reference of so many: enough to say what is too much, and not
    the millions that 10 MiB can hold, which would cost gigabytes of memory."""
    return 2 * expected + 10_000


class ReferenceRefused(ValueError):
    """The reference itself cannot be read: the task's fault, not the agent's."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether two things are equal, the first differences in words, how many there are, and what was compared."""

    is_equal: bool
    differences: tuple[str, ...] = ()
    count: int = 0
    compared: str = ""

    @classmethod
    def of(cls, differences: Iterable[str], compared: str) -> "Comparison":
        """Runs through all differences, keeps the first ones."""
        kept: list[str] = []
        count = 0
        for text in differences:
            count += 1
            if len(kept) < MAX_DIFFERENCES:
                kept.append(text)
        return cls(is_equal=count == 0, differences=tuple(kept), count=count, compared=compared)

    @classmethod
    def refused(cls, reason: str) -> "Comparison":
        """What came is not even of the expected format."""
        return cls(is_equal=False, differences=(reason,), count=1)

    @property
    def summary(self) -> str:
        """One sentence: equal, or the first difference and how many more there are."""
        if self.is_equal:
            return f"equal to the reference ({self.compared})"
        more = f" (and {self.count - 1} more)" if self.count > 1 else ""
        return f"{self.differences[0]}{more}"


def fold(text: str, tolerance: Tolerance) -> str:
    """The text of a cell or string as the tolerance sees it."""
    if tolerance.strip:
        text = text.strip()
    return text.casefold() if tolerance.ignore_case else text


def quote(text: str) -> str:
    """The text in quotes, shortened; never more than a line."""
    if len(text) > _SHOWN_CHARS:
        return f"{text[:_SHOWN_CHARS]!r}... ({len(text)} characters)"
    return repr(text)


def off_by(expected: Decimal | None, got: Decimal | None) -> str:
    """`, off by 0.5` for two finite numbers, else nothing."""
    if expected is None or got is None or not (expected.is_finite() and got.is_finite()):
        return ""
    return f", off by {show_rounded(difference(expected, got))}"
