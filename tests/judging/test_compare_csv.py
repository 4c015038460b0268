"""Tables against a reference."""

import csv
import io
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbench.judging.comparison import compare
from fbench.judging.differences import Comparison, ReferenceRefused
from fbench.tasks.manifest import ColumnType, Tolerance

PLAIN = Tolerance()
ANY_ORDER = Tolerance(ignore_row_order=True)
REFERENCE = b"region,total\nnorth,1.5\nsouth,2\n"


def differ(got: bytes, tolerance: Tolerance = PLAIN, expected: bytes = REFERENCE) -> Comparison:
    return compare("csv", expected, got, tolerance)


@pytest.mark.parametrize(
    "got",
    [
        REFERENCE,
        b"\xef\xbb\xbf" + REFERENCE,
        REFERENCE.replace(b"\n", b"\r\n"),
        REFERENCE.rstrip(),
        REFERENCE + b"\n\n",
        b'"region","total"\n"north","1.5"\n"south","2"\n',
        b"region,total\nnorth,1.50\nsouth,2.0\n",
        b"region , total\n north,15e-1\nsouth , 2\n",
    ],
)
def test_the_same_table_written_otherwise_is_equal(got: bytes) -> None:
    assert differ(got).is_equal


def test_a_difference_names_row_column_values_and_gap() -> None:
    found = differ(b"region,total\nnorth,1.5\nsouth,2.25\n", Tolerance(abs=0.1))
    assert found.differences == ("row 2, column 'total': expected 2, got 2.25, off by 0.25",)


def test_a_text_where_a_number_is_expected_is_a_difference() -> None:
    assert differ(b"region,total\nnorth,n/a\nsouth,2\n").differences == (
        "row 1, column 'total': expected '1.5', got 'n/a'",
    )


@pytest.mark.parametrize(
    ("tolerance", "value", "is_equal"),
    [
        (Tolerance(abs=0.5), b"2", True),
        (Tolerance(abs=0.5), b"2.01", False),
        (Tolerance(abs=0.1), b"1.6", True),  # as floats 1.6 - 1.5 is more than 0.1
        (Tolerance(rel=0.25), b"2", True),
        (Tolerance(rel=0.25), b"2.01", False),
        (Tolerance(rel=0.01, abs=0.5), b"2", True),
        (PLAIN, b"1.500000000000000000000001", False),
    ],
)
def test_numbers_are_equal_within_the_larger_of_both_tolerances(
    tolerance: Tolerance, value: bytes, *, is_equal: bool
) -> None:
    assert differ(b"region,total\nnorth,%s\nsouth,2\n" % value, tolerance).is_equal is is_equal


@pytest.mark.parametrize(
    ("expected", "got", "is_equal"),
    [
        (b"NaN", b"nan", True),
        (b"NaN", b"", False),
        (b"NaN", b"0", False),
        (b"", b"", True),
        (b"", b"0", False),
        (b'""', b"", True),
        (b"inf", b"Infinity", True),
        (b"inf", b"-inf", False),
        (b"inf", b"1e308", False),
        (b"007", b"7", False),
        (b"1e999", b"10e998", True),
        (b"1e999", b"1e998", False),
        (b"9" * 400, b"9" * 399 + b"8", False),
        (b"True", b"1", False),
    ],
)
def test_special_cells(expected: bytes, got: bytes, *, is_equal: bool) -> None:
    table = b"a,b\n1,%s\n"
    for tolerance in (PLAIN, ANY_ORDER):
        assert compare("csv", table % expected, table % got, tolerance).is_equal is is_equal


def test_an_infinity_is_not_within_any_tolerance() -> None:
    assert not compare("csv", b"a\ninf\n", b"a\n5\n", Tolerance(rel=100.0, abs=1e300)).is_equal


def test_missing_surplus_and_exchanged_columns_are_named() -> None:
    assert "missing 'total'" in differ(b"region,sum\nnorth,1.5\n").summary
    assert "'extra' not in the reference" in differ(b"region,total,extra\nnorth,1.5,1\n").summary
    assert "the columns stand as 'total', 'region'" in differ(b"total,region\n1.5,north\n2,south\n").summary


def test_ragged_rows_are_named() -> None:
    assert differ(b"region,total\nnorth\nsouth,2\n").differences == ("row 1: expected 2 cells, got 1: 'north'",)
    assert compare("csv", b"a,b\n1,2,3\n", b"a,b\n1,2.0,3\n", PLAIN).is_equal
    assert "beyond the header" in compare("csv", b"a,b\n1,2,3\n", b"a,b\n1,2,4\n", PLAIN).summary


def test_the_number_of_rows_counts() -> None:
    assert differ(b"region,total\nnorth,1.5\n").summary == "expected 2 rows, got 1"


def test_empty_output_is_a_difference_and_never_a_crash() -> None:
    assert differ(b"").summary == "the output is empty, the reference has a header"
    assert differ(b"\n\n").count == 1
    assert not compare("csv", b"", REFERENCE, PLAIN).is_equal


def test_a_blank_line_is_an_empty_cell_only_in_a_table_of_one_column() -> None:
    assert compare("csv", b'a\n1\n""\n2\n', b"a\n1\n\n2\n", PLAIN).is_equal
    assert not compare("csv", b"a\n1\n2\n", b"a\n1\n\n2\n", PLAIN).is_equal
    assert compare("csv", b"a,b\n1,2\n\n3,4\n", b"a,b\n1,2\n3,4\n", PLAIN).is_equal


def test_quoted_commas_quotes_and_line_ends_are_part_of_a_cell() -> None:
    table = b'a,b\n"x, ""y""\nz",1\n'
    assert compare("csv", table, table.replace(b",1", b",1.0"), PLAIN).is_equal
    assert not compare("csv", table, table.replace(b"\nz", b" z"), PLAIN).is_equal


def test_strip_and_case_can_be_made_to_count() -> None:
    spaced = b"region,total\n north,1.5\nsouth,2\n"
    assert differ(spaced).is_equal
    assert not differ(spaced, Tolerance(strip=False)).is_equal
    shouted = REFERENCE.upper()
    assert not differ(shouted).is_equal
    assert differ(shouted, Tolerance(ignore_case=True)).is_equal


def test_rows_in_any_order_match_within_a_tolerance() -> None:
    expected = b"k,x,y\na,1.00,5\na,1.10,4\nb,1,1\n"
    got = b"k,x,y\nb,1,1\na,1.09,4\na,1.01,5\n"
    assert compare("csv", expected, got, Tolerance(abs=0.02, ignore_row_order=True)).is_equal
    assert not compare("csv", expected, got, ANY_ORDER).is_equal
    assert not compare("csv", expected, got, Tolerance(abs=0.02)).is_equal


def test_one_row_that_differs_in_any_order_names_its_cell() -> None:
    found = compare("csv", b"a,b\n1,2\n3,4\n", b"a,b\n3,4.5\n1,2\n", Tolerance(abs=0.1, ignore_row_order=True))
    assert found.differences == ("row 1, column 'b': expected 4, got 4.5, off by 0.5",)


def test_an_unreadable_output_is_a_difference_and_an_unreadable_reference_is_not_judged() -> None:
    huge = b"a\n" + b"x" * 200_000 + b"\n"
    assert "the output cannot be compared as CSV" in compare("csv", b"a\n1\n", huge, PLAIN).summary
    with pytest.raises(ReferenceRefused, match="field larger"):
        compare("csv", huge, b"a\n1\n", PLAIN)
    assert compare("csv", huge, huge, PLAIN).is_equal


def test_millions_of_rows_for_a_small_reference_are_refused_at_once() -> None:
    for tolerance in (PLAIN, ANY_ORDER):
        found = compare("csv", REFERENCE, b"region,total\n" + b"x,1\n" * 1_000_000, tolerance)
        assert found.differences == (
            "the output cannot be compared as CSV: it has 10004 rows or more, far above the reference",
        )
        assert not compare("text", b"x", b"\n" * 1_000_000 + b"x", Tolerance(strip=False)).is_equal
        assert not compare("json", b"[1]", b"[" + b"1," * 1_000_000 + b"1]", tolerance).is_equal


def typed(kind: ColumnType, expected: str, got: str, tolerance: Tolerance = PLAIN) -> Comparison:
    return compare("csv", f"k,x\na,{expected}\n".encode(), f"k,x\na,{got}\n".encode(), tolerance, {"x": kind})


@pytest.mark.parametrize(
    ("kind", "expected", "got", "is_equal"),
    [
        ("text", "1", "1.0", False),
        ("text", "007", "7", False),
        ("text", " a", "a ", True),
        ("text", "nan", "NaN", False),
        ("number", "007", "7.00", True),
        ("number", "-00.5", "-.5", True),
        ("number", "NaN", "nan", True),
        ("number", "", "", True),
        ("number", "", "NaN", False),
        ("integer", "3", "3.0", True),
        ("integer", "3", "03", True),
        ("integer", "9" * 400, "9" * 399 + "8", False),
        ("integer", "1e999999", "10e999998", True),
        ("boolean", "True", "1", True),
        ("boolean", "no", "FALSE", True),
        ("boolean", "true", "false", False),
        ("boolean", "", "false", False),
        ("datetime", "2024-03-01", "2024-03-01 00:00:00", True),
        ("datetime", "2024-03-01T12:00:00Z", "2024-03-01T13:00:00+01:00", True),
        ("datetime", "2024-03-01T12:00:00Z", "2024-03-01T12:00:00", False),
    ],
)
def test_a_column_of_a_type_compares_what_its_cells_mean(
    kind: ColumnType, expected: str, got: str, *, is_equal: bool
) -> None:
    for tolerance in (PLAIN, ANY_ORDER):
        assert typed(kind, expected, got, tolerance).is_equal is is_equal


@pytest.mark.parametrize(
    ("kind", "expected", "got", "difference"),
    [
        ("number", "1.5", "n/a", "expected '1.5', got 'n/a', which is no number"),
        ("number", "1.5", "1.25", "expected 1.5, got 1.25, off by 0.25"),
        ("integer", "3", "5", "expected '3', got '5', off by 2"),
        ("integer", "3", "3.5", "expected '3', got '3.5', which is no integer"),
        ("boolean", "true", "maybe", "expected 'true', got 'maybe', which is no boolean"),
        ("datetime", "2024-03-01", "2024-03-02", "expected '2024-03-01', got '2024-03-02', off by 1 day, 0:00:00"),
        ("datetime", "2024-03-01", "May", "expected '2024-03-01', got 'May', which is no date or time of ISO 8601"),
        ("datetime", "2024-03-01", "2024-03-01T00:00Z",
         "expected '2024-03-01', got '2024-03-01T00:00Z', only one of them says its zone"),
    ],
)  # fmt: skip
def test_a_difference_in_a_column_of_a_type_says_what_is_wrong(
    kind: ColumnType, expected: str, got: str, difference: str
) -> None:
    assert typed(kind, expected, got).differences == (f"row 1, column 'x': {difference}",)
    assert typed(kind, expected, got, ANY_ORDER).differences == (f"row 1, column 'x': {difference}",)


def test_a_tolerance_reaches_numbers_and_no_integers() -> None:
    assert typed("number", "3", "4", Tolerance(abs=1)).is_equal
    assert not typed("integer", "3", "4", Tolerance(abs=1)).is_equal


def test_a_reference_that_does_not_keep_to_its_types_is_not_judged() -> None:
    with pytest.raises(ReferenceRefused, match="row 1, column 'x': 'b' is no number"):
        typed("number", "b", "b")
    with pytest.raises(ReferenceRefused, match="it has no column 'z', which `columns` names"):
        compare("csv", REFERENCE, REFERENCE, PLAIN, {"z": "text"})


@pytest.mark.parametrize("got", ["", "NaN", "nan", "NA", "n/a", "null", "None", "<NA>", " NaT "])
def test_what_stands_for_a_missing_value_is_an_empty_cell_where_the_task_says_so(got: str) -> None:
    lenient = Tolerance(nan_is_empty=True)
    for tolerance in (lenient, Tolerance(nan_is_empty=True, ignore_row_order=True)):
        assert compare("csv", b"k,x\na,\n", f"k,x\na,{got}\n".encode(), tolerance).is_equal
        assert compare("csv", b"k,x\na,NaN\n", f"k,x\na,{got}\n".encode(), tolerance).is_equal
        assert typed("number", "NaN", got, tolerance).is_equal
        assert not compare("csv", b"k,x\na,0\n", f"k,x\na,{got}\n".encode(), tolerance).is_equal
    assert typed("text", "None", "", lenient).is_equal is False


cells = st.one_of(
    st.text(max_size=8), st.floats().map(repr), st.integers().map(str), st.sampled_from(["", "NaN", "inf", "1e999"])
)
tables = st.lists(st.lists(cells, min_size=1, max_size=4), max_size=6)
tolerances = st.builds(
    Tolerance,
    rel=st.sampled_from([0.0, 1e-6, 0.5, 1.0, 3.0]),
    abs=st.sampled_from([0.0, 1.0]),
    ignore_case=st.booleans(),
    strip=st.booleans(),
    ignore_row_order=st.booleans(),
    nan_is_empty=st.booleans(),
)
kinds = st.sampled_from(get_args(ColumnType))


def write(rows: list[list[str]], dialect: str = "excel") -> bytes:
    text = io.StringIO()
    csv.writer(text, dialect, quoting=csv.QUOTE_ALL if dialect == "unix" else csv.QUOTE_MINIMAL).writerows(rows)
    return text.getvalue().encode("utf-8", errors="surrogatepass")


@settings(max_examples=1000, deadline=None)
@given(tables, tolerances, st.randoms())
def test_a_table_equals_itself_quoted_otherwise_and_shuffled(
    rows: list[list[str]], tolerance: Tolerance, random: "object"
) -> None:
    expected, got = write(rows), write(rows, "unix")
    if rows and rows[0] != [""]:
        assert compare("csv", expected, got, tolerance).is_equal
    if tolerance.ignore_row_order and rows and all(any(row) for row in rows):
        body = rows[1:]
        random.shuffle(body)  # type: ignore[attr-defined]
        assert compare("csv", expected, write([rows[0], *body]), tolerance).is_equal


@settings(max_examples=1000, deadline=None)
@given(st.one_of(st.binary(max_size=120), tables.map(write)), tolerances)
def test_no_output_crashes_the_comparison(got: bytes, tolerance: Tolerance) -> None:
    found = compare("csv", REFERENCE, got, tolerance)
    assert found.is_equal == (found.count == 0)


@settings(max_examples=1000, deadline=None)
@given(cells, kinds, tolerances)
def test_no_cell_crashes_a_column_of_a_type(cell: str, kind: ColumnType, tolerance: Tolerance) -> None:
    expected = {"text": "a", "number": "1", "integer": "1", "boolean": "1", "datetime": "2024-01-01"}[kind]
    found = compare("csv", write([["x"], [expected]]), write([["x"], [cell]]), tolerance, {"x": kind})
    assert found.is_equal == (found.count == 0)
