"""Rows compared as a set: which row of one side has no partner on the other.

With a numeric tolerance, sorting both sides and comparing them in order is wrong: being close is not transitive, and
rows of several numbers have no order that noise keeps. What is asked for is a perfect matching in the graph of close
rows. Rows are grouped by all that must be equal (texts, structure); within a group cheap answers are tried first, and
only what they leave open goes through augmenting paths.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Sequence
from decimal import Decimal
from sys import float_info
from typing import NamedTuple

from fbench.judging.closeness import Closeness, ratio

# Tests of two rows against each other; some seconds of work. Only thousands of rows that are nearly alike get there.
MAX_TESTS = 2_000_000


class Row(NamedTuple):
    """A row as the matching sees it: what must be equal, and the finite numbers that must be close, in order."""

    shape: Hashable
    numbers: tuple[Decimal, ...]


class Unmatched(NamedTuple):
    """Indices without a partner, ascending: `missing` of the expected rows, `extra` of those that came."""

    missing: list[int]
    extra: list[int]


class TooAlike(Exception):
    """So many rows are close to each other that no matching was found within `MAX_TESTS`."""


def match_rows(expected: Sequence[Row], got: Sequence[Row], closeness: Closeness) -> Unmatched:
    """Pair every row of `expected` with a row of `got` that is close to it, each used once, as far as that goes.

    Both lists come back empty exactly when a perfect matching exists.

    Raises:
        TooAlike: undecided within the bound on work.
    """
    groups: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, rows in enumerate((expected, got)):
        for index, row in enumerate(rows):
            key: Hashable = row if closeness.is_exact else row.shape
            groups[key][side].append(index)
    missing: list[int] = []
    extra: list[int] = []
    meter = _Meter()
    for ours, theirs in groups.values():
        group = _Group(expected, got, closeness, meter)
        lost, surplus = group.match(ours, theirs)
        missing += lost
        extra += surplus
    return Unmatched(sorted(missing), sorted(extra))


class _Meter:
    """Counts tests and ends the work at the bound."""

    def __init__(self) -> None:
        self.left = MAX_TESTS

    def count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise TooAlike


class _Group:
    """Rows of one shape: they can differ in their numbers only."""

    def __init__(self, expected: Sequence[Row], got: Sequence[Row], closeness: Closeness, meter: _Meter) -> None:
        self.expected = expected
        self.got = got
        self.closeness = closeness
        self.meter = meter

    def match(self, ours: list[int], theirs: list[int]) -> Unmatched:
        if not ours or not theirs:
            return Unmatched(ours, theirs)
        width = len(self.expected[ours[0]].numbers)
        if self.closeness.is_exact or width == 0:
            shared = min(len(ours), len(theirs))
            return Unmatched(ours[shared:], theirs[shared:])
        if width == 1 and self.closeness.rel < 1:
            return self._match_by_order(ours, theirs)
        if len(ours) == len(theirs) and self._are_close_in_order(ours, theirs):
            return Unmatched([], [])
        # Equal rows taken out first: not always optimal, but a matching of the rest proves one of all.
        rest = self._without_equals(ours, theirs)
        unmatched = self._augment(*rest)
        if not unmatched.missing and not unmatched.extra:
            return unmatched
        if len(ours) != len(theirs) or len(rest[0]) == len(ours):
            return unmatched
        return self._augment(ours, theirs)

    def _match_by_order(self, ours: list[int], theirs: list[int]) -> Unmatched:
        """One number a row: the rows close to a number are an interval around it, so smallest goes with smallest."""
        left = deque(sorted(ours, key=lambda index: self.expected[index].numbers))
        right = deque(sorted(theirs, key=lambda index: self.got[index].numbers))
        missing: list[int] = []
        extra: list[int] = []
        while left and right:
            one, other = self.expected[left[0]].numbers[0], self.got[right[0]].numbers[0]
            if self.closeness.holds(one, other):
                left.popleft()
                right.popleft()
            elif one < other:
                missing.append(left.popleft())
            else:
                extra.append(right.popleft())
        return Unmatched([*missing, *left], [*extra, *right])

    def _are_close_in_order(self, ours: list[int], theirs: list[int]) -> bool:
        left = sorted(ours, key=lambda index: self.expected[index].numbers)
        right = sorted(theirs, key=lambda index: self.got[index].numbers)
        return all(self._are_close(one, other) for one, other in zip(left, right, strict=True))

    def _without_equals(self, ours: list[int], theirs: list[int]) -> tuple[list[int], list[int]]:
        supply = Counter(self.got[index].numbers for index in theirs)
        taken: Counter[tuple[Decimal, ...]] = Counter()
        left = []
        for index in ours:
            numbers = self.expected[index].numbers
            if taken[numbers] < supply[numbers]:
                taken[numbers] += 1
            else:
                left.append(index)
        right = []
        for index in theirs:
            numbers = self.got[index].numbers
            if taken[numbers]:
                taken[numbers] -= 1
            else:
                right.append(index)
        return left, right

    def _augment(self, ours: list[int], theirs: list[int]) -> Unmatched:
        """A largest matching: breadth-first augmenting paths over neighbours found by a window on one column."""
        column = self._most_telling_column(ours)
        order = sorted(theirs, key=lambda index: _as_float(self.got[index].numbers[column]))
        keys = [_as_float(self.got[index].numbers[column]) for index in order]
        partner: dict[int, int] = {}  # of theirs: which of ours holds it
        holds: dict[int, int] = {}  # the same, the other way round
        missing: list[int] = []
        neighbours: dict[int, list[int]] = {}
        for root in ours:
            came_from: dict[int, int] = {}  # of theirs: from which of ours it was reached
            queue = deque([root])
            end: int | None = None
            while queue and end is None:
                one = queue.popleft()
                if one not in neighbours:
                    neighbours[one] = self._neighbours(one, column, order, keys)
                for other in neighbours[one]:
                    self.meter.count()
                    if other in came_from:
                        continue
                    came_from[other] = one
                    if other not in partner:
                        end = other
                        break
                    queue.append(partner[other])
            if end is None:
                missing.append(root)
                continue
            step: int | None = end
            while step is not None:
                one = came_from[step]
                partner[step] = one
                before = holds.get(one)
                holds[one] = step
                step = before
        return Unmatched(missing, [index for index in theirs if index not in partner])

    def _neighbours(self, one: int, column: int, order: list[int], keys: list[float]) -> list[int]:
        low, high = self._window(self.expected[one].numbers[column])
        return [
            other for other in order[bisect_left(keys, low) : bisect_right(keys, high)] if self._are_close(one, other)
        ]

    def _window(self, value: Decimal) -> tuple[float, float]:
        """Bounds that no number close to `value` lies outside of; wide rather than narrow, the exact test follows."""
        if self.closeness.rel >= 1:
            return -float_info.max, float_info.max
        # The larger of two close numbers is at most |value| / (1 - rel), or within abs of it.
        reach = float(self.closeness.reach(ratio(value.copy_abs(), 1 - self.closeness.rel)))
        middle = _as_float(value)
        slack = 1e-12 * abs(middle) + 1e-300
        return middle - reach * (1 + 1e-12) - slack, middle + reach * (1 + 1e-12) + slack

    def _most_telling_column(self, ours: list[int]) -> int:
        width = len(self.expected[ours[0]].numbers) if ours else 1
        return max(range(width), key=lambda at: len({self.expected[index].numbers[at] for index in ours}))

    def _are_close(self, one: int, other: int) -> bool:
        self.meter.count()
        pairs = zip(self.expected[one].numbers, self.got[other].numbers, strict=True)
        return all(self.closeness.holds(a, b) for a, b in pairs)


def _as_float(value: Decimal) -> float:
    return min(max(float(value), -float_info.max), float_info.max)
