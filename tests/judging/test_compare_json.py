"""JSON documents against a reference."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbench.judging.comparison import compare
from fbench.judging.differences import Comparison, ReferenceRefused
from fbench.tasks.manifest import Tolerance

PLAIN = Tolerance()
ANY_ORDER = Tolerance(ignore_row_order=True)


def differ(expected: str, got: str, tolerance: Tolerance = PLAIN) -> Comparison:
    return compare("json", expected.encode(), got.encode(), tolerance)


NAN, NULL = '{"a": [NaN]}', '{"a": [null]}'


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        ('{"a": 1, "b": [true, null]}', ' {"b":[true,null],"a":1.0}\n'),
        ('"x"', '" x "'),
        ("NaN", "NaN"),
        ("[Infinity]", "[Infinity]"),
        ("1e400", "10e399"),
        ("1" * 5000, "1" * 5000),
        ('"\\u00e9"', '"é"'),
        ('"\\ud800"', '"\\ud800"'),
        ("-0", "0"),
        ("{}", "\ufeff{}"),
    ],
)
def test_equal_documents(expected: str, got: str) -> None:
    assert differ(expected, got).is_equal
    assert differ(f"[{expected}]", f"[{got}]".replace("\ufeff", ""), ANY_ORDER).is_equal


@pytest.mark.parametrize(
    ("expected", "got", "difference"),
    [
        ("true", "1", "$: expected the boolean true, got the number 1"),
        ("1", "true", "$: expected the number 1, got the boolean true"),
        ("null", "0", "$: expected null, got the number 0"),
        ('"1"', "1", "$: expected the string '1', got the number 1"),
        ("[]", "{}", "$: expected the array [0 elements], got the object {0 keys}"),
        ("NaN", "Infinity", "$: expected NaN, got Infinity"),
        ("Infinity", "-Infinity", "$: expected Infinity, got -Infinity"),
        ('{"a": [1, {"b": 2}]}', '{"a": [1, {"b": 2.5}]}', "$.a[1].b: expected 2, got 2.5, off by 0.5"),
        ('{"a b": 1}', '{"a b": 2}', "$['a b']: expected 1, got 2, off by 1"),
        ('{"a": {"x": 1}}', "{}", "$.a: missing, expected {1 keys}"),
        ("{}", '{"a": 1}', "$: the key 'a' is not in the reference"),
        ("[1, 2]", "[1]", "$: expected 2 elements, got 1"),
        ("1e400", "1e401", "$: expected 1E+400, got 1E+401, off by 9E+400"),
        ('"a"', '"A"', "$: expected 'a', got 'A'"),
    ],
)
def test_a_difference_names_its_place(expected: str, got: str, difference: str) -> None:
    assert differ(expected, got).differences == (difference,)


def test_nan_is_null_only_where_the_task_says_so() -> None:
    for expected, got in ((NAN, NULL), (NULL, NAN)):
        assert not differ(expected, got).is_equal
        assert differ(expected, got, Tolerance(nan_is_empty=True)).is_equal
        assert differ(f"[{expected}, 1]", f"[1, {got}]", Tolerance(nan_is_empty=True, ignore_row_order=True)).is_equal
    assert not differ("[NaN]", "[0]", Tolerance(nan_is_empty=True)).is_equal


def test_differences_come_in_the_documents_order() -> None:
    found = differ('{"a": [1, 2], "b": 3, "c": {"d": 4}}', '{"c": {"d": 5}, "b": 4, "a": [0, 0]}')
    assert [text.split(":")[0] for text in found.differences] == ["$.a[0]", "$.a[1]", "$.b", "$.c.d"]


def test_numbers_are_equal_within_the_tolerance_anywhere_in_the_tree() -> None:
    assert differ('{"a": [0.3]}', '{"a": [0.4]}', Tolerance(abs=0.1)).is_equal
    assert not differ('{"a": [0.3]}', '{"a": [0.40001]}', Tolerance(abs=0.1)).is_equal
    assert differ("1e999", "1.0000001e999", Tolerance(rel=1e-6)).is_equal


def test_case_and_strip_apply_to_strings_and_not_to_keys() -> None:
    loose = Tolerance(ignore_case=True)
    assert differ('{"k": "Ab "}', '{"k": "aB"}', loose).is_equal
    assert not differ('{"K": 1}', '{"k": 1}', loose).is_equal
    assert not differ('"a "', '"a"', Tolerance(strip=False)).is_equal


def test_a_top_array_in_any_order_matches_elements_within_the_tolerance() -> None:
    expected = '[{"id": "a", "v": 1.0}, {"id": "b", "v": [2.0, {"w": 3}]}]'
    got = '[{"v": [2.01, {"w": 3}], "id": "b"}, {"id": "a", "v": 0.99}]'
    assert differ(expected, got, Tolerance(abs=0.02, ignore_row_order=True)).is_equal
    assert not differ(expected, got, ANY_ORDER).is_equal
    assert not differ("[[1, 2]]", "[[2, 1]]", ANY_ORDER).is_equal


def test_one_element_that_differs_in_any_order_is_looked_into() -> None:
    found = differ('[{"a": 1, "b": 2}, {"a": 3, "b": 4}]', '[{"a": 3, "b": 5}, {"a": 1, "b": 2}]', ANY_ORDER)
    assert found.differences == ("$[0].b: expected 4, got 5, off by 1",)


def test_structures_that_only_look_alike_when_flattened_differ() -> None:
    for one, other in (
        ("[[1], 2]", "[[1, 2]]"),
        ('[{"a": "b"}]', '[["a", "b"]]'),
        ('["#"]', "[1]"),
        ('["null"]', "[null]"),
    ):
        assert not differ(f"[{one}]", f"[{other}]", ANY_ORDER).is_equal


@pytest.mark.parametrize(
    "got", ["", "{", "{'a': 1}", '{"a": 1, "a": 1}', "[" * 100_000, "1 2", "1e" + "9" * 30, "\ufffe"]
)
def test_an_output_that_is_no_document_fails_and_does_not_crash(got: str) -> None:
    found = differ("{}", got)
    assert not found.is_equal
    assert found.summary.startswith("the output is ")
    with pytest.raises(ReferenceRefused):
        differ(got, "{}")


def test_documents_as_deep_as_the_parser_reads_are_compared() -> None:
    deep = "[" * 900 + "1" + "]" * 900
    assert differ(deep, deep.replace("1", "1.0")).is_equal
    assert differ(deep, deep, ANY_ORDER).is_equal
    assert len(differ(deep, deep.replace("1", "2")).summary) < 300


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
tolerances = st.builds(
    Tolerance,
    rel=st.sampled_from([0.0, 1e-6, 0.5, 1.0, 3.0]),
    abs=st.sampled_from([0.0, 1.0]),
    ignore_case=st.booleans(),
    strip=st.booleans(),
    ignore_row_order=st.booleans(),
)


@settings(max_examples=1000, deadline=None)
@given(documents, tolerances, st.randoms())
def test_a_document_equals_itself_written_otherwise(document: Any, tolerance: Tolerance, random: Any) -> None:
    expected = json.dumps(document)
    if tolerance.ignore_row_order and isinstance(document, list):
        random.shuffle(document)
    assert differ(expected, json.dumps(document, indent=1, sort_keys=True), tolerance).is_equal


@settings(max_examples=1000, deadline=None)
@given(documents, st.one_of(documents.map(json.dumps), st.text(max_size=40)), tolerances)
def test_no_output_crashes_the_comparison_of_documents(expected: Any, got: str, tolerance: Tolerance) -> None:
    data = got.encode("utf-8", errors="surrogatepass")
    found = compare("json", json.dumps(expected).encode(), data, tolerance)
    assert found.is_equal == (found.count == 0)


@settings(max_examples=500, deadline=None)
@given(st.lists(documents, max_size=4), st.lists(documents, max_size=4), st.sampled_from([0.0, 0.5]))
def test_matching_in_any_order_agrees_with_trying_all_orders(one: list[Any], other: list[Any], rel: float) -> None:
    import itertools

    tolerance = Tolerance(rel=rel)
    matched = differ(json.dumps(one), json.dumps(other), Tolerance(rel=rel, ignore_row_order=True)).is_equal
    tried = any(
        differ(json.dumps(one), json.dumps(list(order)), tolerance).is_equal for order in itertools.permutations(other)
    )
    assert matched == tried
