"""Rows matched in any order, with a tolerance that is not transitive."""

import itertools
import random
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbench.judging import matching
from fbench.judging.closeness import Closeness
from fbench.judging.matching import Row, TooAlike, match_rows

ONE = Closeness(Decimal(0), Decimal(1))


def rows(*numbers: tuple[float, ...], shape: str = "") -> list[Row]:
    return [Row(shape, tuple(Decimal(str(number)) for number in row)) for row in numbers]


def test_equal_rows_taken_out_first_do_not_hide_a_perfect_matching() -> None:
    # 0-0 looks natural, but then 1 would be left with -1; 0 goes with -1 and 1 with 0.
    unmatched = match_rows(rows((0, 0), (1, 0)), rows((0, 0), (-1, 0)), ONE)
    assert unmatched == ([], [])


def test_sorting_alone_would_miss_this_matching() -> None:
    # Noise in the first column turns the order around; only the second tells the rows apart.
    unmatched = match_rows(
        rows((1.0, 50), (1.1, 0)), rows((1.05, 0), (1.06, 50)), Closeness(Decimal(0), Decimal("0.1"))
    )
    assert unmatched == ([], [])


def test_what_has_no_partner_is_listed_on_both_sides() -> None:
    unmatched = match_rows(rows((1, 1), (5, 5), (9, 9)), rows((9, 9), (1, 1), (7, 7), (7, 7)), ONE)
    assert unmatched == ([1], [2, 3])


def test_rows_of_other_shape_never_match() -> None:
    assert match_rows(rows((1,), shape="a"), rows((1,), shape="b"), ONE) == ([0], [0])


def test_thousands_of_shuffled_noisy_rows_are_matched_quickly() -> None:
    source = random.Random(7)
    ours = [(source.uniform(0, 1000), source.uniform(0, 10)) for _ in range(3000)]
    theirs = [(x + source.uniform(-0.001, 0.001), y + source.uniform(-0.001, 0.001)) for x, y in ours]
    source.shuffle(theirs)
    assert match_rows(rows(*ours), rows(*theirs), Closeness(Decimal(0), Decimal("0.0015"))) == ([], [])


def test_thousands_of_rows_alike_are_matched_quickly() -> None:
    same = rows(*[(1.0, 2.0)] * 5000)
    assert match_rows(same, same, ONE) == ([], [])


def test_undecided_within_the_bound_is_said_and_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "MAX_TESTS", 100)
    ours = rows(*[(0, at) for at in range(30)])
    theirs = rows(*[(at % 2, 29 - at + 0.5) for at in range(29)], (50, 50))
    with pytest.raises(TooAlike):
        match_rows(ours, theirs, Closeness(Decimal(0), Decimal(20)))


points = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), max_size=5)
lines = st.lists(st.tuples(st.integers(-5, 5)), max_size=5)


@settings(max_examples=1000, deadline=None)
@given(
    st.one_of(st.tuples(points, points), st.tuples(lines, lines)),
    st.sampled_from(["0", "0.5", "0.9", "1", "1.5", "2"]),
    st.sampled_from(["0", "1", "2"]),
)
def test_a_matching_is_found_exactly_when_some_order_matches(
    sides: tuple[list[tuple[float, ...]], list[tuple[float, ...]]], rel: str, absolute: str
) -> None:
    closeness = Closeness(Decimal(rel), Decimal(absolute))
    ours, theirs = rows(*sides[0]), rows(*sides[1])
    unmatched = match_rows(ours, theirs, closeness)
    is_possible = len(ours) == len(theirs) and any(
        all(
            closeness.holds(a, b)
            for one, other in zip(ours, order, strict=True)
            for a, b in zip(one.numbers, other.numbers, strict=True)
        )
        for order in itertools.permutations(theirs)
    )
    assert (unmatched == ([], [])) == is_possible
    assert len(ours) - len(unmatched.missing) == len(theirs) - len(unmatched.extra)


@settings(max_examples=500, deadline=None)
@given(st.decimals(), st.decimals(), st.sampled_from(["0", "1e-9", "0.5", "3"]), st.sampled_from(["0", "1e300"]))
def test_closeness_is_reflexive_symmetric_and_never_raises(
    one: Decimal, other: Decimal, rel: str, absolute: str
) -> None:
    if one.is_snan() or other.is_snan():
        one, other = Decimal("NaN"), Decimal("NaN")
    closeness = Closeness(Decimal(rel), Decimal(absolute))
    assert closeness.holds(one, one)
    assert closeness.holds(one, other) == closeness.holds(other, one)
