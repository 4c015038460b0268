"""Texts against a reference."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbench.judging.comparison import compare
from fbench.judging.differences import MAX_DIFFERENCES
from fbench.tasks.manifest import Tolerance

PLAIN = Tolerance()
EXACT = Tolerance(strip=False)


def test_equal_texts_are_equal() -> None:
    assert compare("text", b"one\ntwo\n", b"one\ntwo\n", PLAIN).is_equal


def test_strip_ignores_line_ends_and_the_ends_of_the_whole() -> None:
    assert compare("text", b"\n one  \r\ntwo\n\n", b"one\ntwo", PLAIN).is_equal


def test_strip_keeps_indentation_within_the_text() -> None:
    assert not compare("text", b"if x:\n    y", b"if x:\ny", PLAIN).is_equal


def test_without_strip_a_last_line_end_counts() -> None:
    assert not compare("text", b"one\n", b"one", EXACT).is_equal


def test_a_difference_names_line_expected_and_got() -> None:
    found = compare("text", b"a\nb\nc", b"a\nx\nc", PLAIN)
    assert found.differences == ("line 2: expected 'b', got 'x'",)


def test_missing_and_surplus_lines_are_named() -> None:
    assert compare("text", b"a\nb", b"a", PLAIN).summary == "line 2: expected 'b', but the output has ended"
    assert compare("text", b"a", b"a\nb", PLAIN).summary == "line 2: 'b' came, where the reference has ended"


def test_only_the_first_differences_are_worded_and_all_are_counted() -> None:
    found = compare("text", b"a\n" * 100, b"b\n" * 100, PLAIN)
    assert len(found.differences) == MAX_DIFFERENCES
    assert found.count == 100
    assert found.summary == "line 1: expected 'a', got 'b' (and 99 more)"


def test_case_counts_unless_ignored() -> None:
    assert not compare("text", b"Hello", b"HELLO", PLAIN).is_equal
    assert compare("text", "Straße".encode(), b"STRASSE", Tolerance(ignore_case=True)).is_equal


def test_lines_in_another_order_are_equal_only_when_order_is_ignored() -> None:
    assert not compare("text", b"a\nb\na", b"b\na\na", PLAIN).is_equal
    assert compare("text", b"a\nb\na", b"b\na\na", Tolerance(ignore_row_order=True)).is_equal


def test_ignoring_order_still_counts_how_often_a_line_stands() -> None:
    found = compare("text", b"a\na\nb", b"a\nb\nb", Tolerance(ignore_row_order=True))
    assert found.differences == (
        "line 2 of the reference has no match: 'a'",
        "line 3 of the output is not in the reference: 'b'",
    )


def test_numbers_are_text_without_a_numeric_tolerance() -> None:
    assert not compare("text", b"1.0", b"1", PLAIN).is_equal


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        (b"loss: 0.1000, step 5", b"loss: 0.1001, step 5"),
        (b"[1.0,2.0]", b"[1.001,1.999]"),
        (b"acc=93.5%", b"acc=93.499%"),
        (b"x=-1e-3;", b"x=-0.001;"),
        (b"1:0.5 2:0.25", b"1:0.5001 2:0.2501"),
    ],
)
def test_numbers_in_a_text_are_compared_within_the_tolerance(expected: bytes, got: bytes) -> None:
    assert compare("text", expected, got, Tolerance(abs=0.002)).is_equal


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        (b"loss: 0.10", b"loss: 0.20"),
        (b"version 1.2.3", b"version 1.2.4"),
        (b"on 2024-05-13", b"on 2024-05-14"),
        (b"code 007", b"code 7"),
        (b"v1", b"v2"),
        (b"3/4", b"3/5"),
        (b"1 2", b"1"),
    ],
)
def test_what_is_no_number_is_not_within_a_tolerance(expected: bytes, got: bytes) -> None:
    tolerance = Tolerance(abs=0.09) if b"loss" in expected else Tolerance(rel=0.9)
    assert not compare("text", expected, got, tolerance).is_equal


def test_the_gap_of_two_numbers_is_said() -> None:
    found = compare("text", b"loss 0.3", b"loss 0.5", Tolerance(abs=0.1))
    assert found.summary == "line 1: expected 'loss 0.3', got 'loss 0.5', off by 0.2"


def test_bytes_that_are_not_utf8_equal_only_themselves() -> None:
    assert compare("text", b"\xff\xfe", b"\xff\xfe", PLAIN).is_equal
    assert not compare("text", b"\xff", b"\xfe", PLAIN).is_equal


def test_a_byte_order_mark_does_not_count() -> None:
    assert compare("text", b"a", b"\xef\xbb\xbfa", PLAIN).is_equal


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200),
    st.builds(
        Tolerance,
        rel=st.sampled_from([0.0, 1e-6, 0.5, 2.0]),
        abs=st.sampled_from([0.0, 1.0]),
        ignore_case=st.booleans(),
        strip=st.booleans(),
        ignore_row_order=st.booleans(),
    ),
)
def test_any_text_equals_itself(data: bytes, tolerance: Tolerance) -> None:
    assert compare("text", data, data, tolerance).is_equal


@settings(max_examples=300, deadline=None)
@given(st.text("0123456789.eE+-/ \nab\u0663", max_size=60), st.text("0123456789.eE+-/ \nab\u0663", max_size=60))
def test_comparing_texts_full_of_numbers_never_crashes_and_is_symmetric(one: str, other: str) -> None:
    for tolerance in (Tolerance(rel=0.1), Tolerance(abs=1.0, ignore_row_order=True)):
        forth = compare("text", one.encode(), other.encode(), tolerance)
        back = compare("text", other.encode(), one.encode(), tolerance)
        assert forth.is_equal == back.is_equal
