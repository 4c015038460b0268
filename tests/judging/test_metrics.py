"""Numbers against thresholds: whatever a program may write is judged, never crashed on."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbench.engine.seams import CheckOutcome
from fbench.judging.evidence import as_json
from fbench.judging.metrics import judge_metric
from fbench.judging.scoring import ALMOST_ONE
from fbench.tasks.metric_checks import MetricCheck


def check(**fields: Any) -> MetricCheck:
    values = {"id": "m", "type": "metric_check", "metric": "accuracy", "op": ">=", "threshold": 0.9, "path": "m.json"}
    return MetricCheck.model_validate({**values, **fields})


def judge(document: str | bytes, **fields: Any) -> CheckOutcome:
    source = document if isinstance(document, bytes) else document.encode("utf-8", errors="surrogatepass")
    outcome = judge_metric(check(**fields), source, {})
    json.dumps(as_json(outcome.output), allow_nan=False)
    return outcome


@pytest.mark.parametrize(
    ("op", "threshold", "value", "status"),
    [
        (">=", 0.9, "0.9", "passed"),
        (">=", 0.9, "0.90", "passed"),
        (">=", 0.9, "9e-1", "passed"),
        (">=", 0.9, "0.8999999999999999999999", "failed"),
        (">", 0.9, "0.9", "failed"),
        (">", 0.9, "0.90000000000000000000001", "passed"),
        ("<=", 0.9, "0.9", "passed"),
        ("<=", 0.9, "0.91", "failed"),
        ("<", 0.9, "0.9", "failed"),
        ("<", 0.9, "-1", "passed"),
        ("==", 0.3, "0.3", "passed"),
        ("==", 0.3, "0.30000000000000004", "failed"),
        ("==", 3, "3.0", "passed"),
        ("between", [0.1, 0.2], "0.1", "passed"),
        ("between", [0.1, 0.2], "0.2", "passed"),
        ("between", [0.1, 0.2], "0.2000001", "failed"),
        ("between", [0.1, 0.2], "0.0999999", "failed"),
        (">=", 0.9, "1" * 400, "passed"),
        (">=", 0.9, "-" + "1" * 400, "failed"),
        ("<=", 0.9, "1" * 400, "failed"),
        (">=", 0.9, "1" * 6000, "passed"),
        (">=", 0.9, "1e999", "passed"),
        ("<=", 0.9, "1e-999", "passed"),
        (">=", 1e308, "1e309", "passed"),
    ],
)
def test_the_operator_is_applied_to_the_number_as_it_was_written(
    op: str, threshold: Any, value: str, status: str
) -> None:
    outcome = judge(f'{{"accuracy": {value}}}', op=op, threshold=threshold)
    assert (outcome.status, outcome.score) == (status, 1.0 if status == "passed" else 0.0)
    assert len(outcome.detail) < 200


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ('{"accuracy": NaN}', "NaN, not a finite number"),
        ('{"accuracy": Infinity}', "Infinity, not a finite number"),
        ('{"accuracy": -Infinity}', "-Infinity, not a finite number"),
        ('{"accuracy": "0.99"}', "is a string, not a number"),
        ('{"accuracy": true}', "is a boolean, not a number"),
        ('{"accuracy": null}', "is null, not a number"),
        ('{"accuracy": [1]}', "is an array, not a number"),
        ('{"accuracy": {"x": 1}}', "is an object, not a number"),
        ('{"loss": 1}', "'accuracy' is missing; the keys are 'loss'"),
        ("{}", "'accuracy' is missing; the keys are none"),
        ("[]", "the document is an array"),
        ("0.99", "the document is a number"),
        ("", "no JSON"),
        ("accuracy: 1", "no JSON"),
        ('{"accuracy": 1, "accuracy": 0}', "stands twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"accuracy": 1e' + "9" * 30 + "}", "beyond all measure"),
        ('{"accuracy": 01}', "no JSON"),
        ('{"accuracy": 1', "no JSON"),
        (b'{"accuracy": \xff}', "not UTF-8: byte 13 is 0xff"),
    ],
)
def test_what_is_no_finite_number_is_an_error(document: str | bytes, reason: str) -> None:
    outcome = judge(document)
    assert (outcome.status, outcome.score) == ("error", 0.0)
    assert reason in outcome.detail


def test_a_plain_key_with_dots_comes_before_a_path_of_keys() -> None:
    nested = '{"test": {"accuracy": 0.95}}'
    assert judge(nested, metric="test.accuracy").status == "passed"
    assert judge('{"test.accuracy": 0.5, "test": {"accuracy": 0.95}}', metric="test.accuracy").status == "failed"
    assert judge('{"test": 5}', metric="test.accuracy").status == "error"


def test_nan_beside_the_metric_does_not_matter() -> None:
    assert judge('{"accuracy": 0.95, "loss": NaN}').status == "passed"


@pytest.mark.parametrize(
    ("op", "baseline", "threshold", "value", "score"),
    [
        (">=", 0.5, 0.9, "0.5", 0.0),
        (">=", 0.5, 0.9, "0.4", 0.0),
        (">=", 0.5, 0.9, "0.7", 0.5),
        (">=", 0.5, 0.9, "0.6", 0.25),
        (">=", 0.5, 0.9, "0.9", 1.0),
        (">=", 0.5, 0.9, "7", 1.0),
        (">=", 0.5, 0.9, "0.89999999999999999999999", ALMOST_ONE),
        (">", 0.5, 0.9, "0.9", ALMOST_ONE),
        ("<=", 10, 2, "6", 0.5),
        ("<=", 10, 2, "11", 0.0),
        ("<", 10, 2, "2", ALMOST_ONE),
        (">=", 0.5, 0.9, "-1e999", 0.0),
        ("<=", 10, 2, "1e999", 0.0),
        (">=", -1e308, 1e308, "0", 0.5),
    ],
)
def test_partial_credit_is_linear_from_the_baseline_and_below_1_unless_passed(
    op: str, baseline: float, threshold: float, value: str, score: float
) -> None:
    outcome = judge(f'{{"accuracy": {value}}}', op=op, baseline=baseline, threshold=threshold)
    assert outcome.score == score
    assert outcome.status == ("passed" if score == 1.0 else "failed")


RISING = {"bronze": 0.8, "silver": 0.85, "gold": 0.9}
FALLING = {"bronze": 30, "silver": 20, "gold": 20}


@pytest.mark.parametrize(
    ("op", "threshold", "medals", "value", "status", "medal"),
    [
        (">=", 0.8, RISING, "0.7999999999999999999999", "failed", None),
        (">=", 0.8, RISING, "0.8", "passed", "bronze"),
        (">=", 0.8, RISING, "0.86", "passed", "silver"),
        (">", 0.9, RISING, "0.90", "failed", "gold"),
        ("<=", 25, FALLING, "30.5", "failed", None),
        ("<=", 25, FALLING, "30", "failed", "bronze"),
        ("<", 25, FALLING, "20", "passed", "gold"),
        ("<", 25, FALLING, "-1e999", "passed", "gold"),
    ],
)
def test_the_best_medal_reached_is_told_and_changes_no_score(
    op: str, threshold: float, medals: dict[str, float], value: str, status: str, medal: str | None
) -> None:
    document = f'{{"accuracy": {value}}}'
    outcome = judge(document, op=op, threshold=threshold, medals=medals)
    assert (outcome.status, outcome.output["medal"]) == (status, medal)
    assert outcome.detail.endswith(f" ({medal or 'no'} medal)")
    plain = judge(document, op=op, threshold=threshold)
    assert (plain.status, plain.score) == (outcome.status, outcome.score)
    assert "medal" not in plain.output


@pytest.mark.parametrize(
    ("stdout", "status"),
    [
        ('{"accuracy": 0.95}\n', "passed"),
        ('{\n  "accuracy": 0.95\n}\n', "passed"),
        ('loading...\n{"accuracy": 0.95}\nbye\n', "passed"),
        ('{"epoch": 1}\n{"accuracy": 0.95}\n', "passed"),
        ('{"accuracy": 0.95}\n{"accuracy": 0.950}\r\n\r\n', "passed"),
        ('{"accuracy": 0.1}\n{"accuracy": 0.95}\n', "error"),
        ('{"accuracy": 0.95}\n{"accuracy": 0.1}\r\n\r\n', "error"),
        ('\x00\udcff{noise}\n  {"accuracy": 0.95}  \n', "passed"),
        ("0.95\n", "error"),
        ('[{"accuracy": 0.95}]\n', "error"),
        ("", "error"),
        ("{}{}", "error"),
    ],
)
def test_a_commands_stdout_is_the_object_or_else_its_last_line_that_is_one(stdout: str, status: str) -> None:
    outcome = judge(stdout.encode("utf-8", errors="surrogateescape"), command="score", path=None)
    assert outcome.status == status


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["accuracy", "a", "é"]), inner),
    max_leaves=8,
)


documents = st.one_of(
    st.dictionaries(st.just("accuracy"), values).map(json.dumps),
    values.map(json.dumps),
    st.text(max_size=40),
    st.from_regex(r'\{"accuracy": [+-]?[0-9.eE]{1,30}\}', fullmatch=True),
)
operators = st.sampled_from([">=", "<=", ">", "<", "==", "between"])


@settings(max_examples=1000, deadline=None)
@given(document=documents, op=operators, from_command=st.booleans())
def test_no_metric_file_crashes_the_judging(document: str, op: str, *, from_command: bool) -> None:
    source = {"command": "score", "path": None} if from_command else {}
    outcome = judge(document, op=op, threshold=[0.1, 0.9] if op == "between" else 0.5, **source)
    assert outcome.status in {"passed", "failed", "error"}
    assert outcome.score == (1.0 if outcome.status == "passed" else 0.0)


@settings(max_examples=500, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_floats_compare_as_python_compares_them(value: float, threshold: float) -> None:
    passed = judge(json.dumps({"accuracy": value}), threshold=threshold).status == "passed"
    assert passed == (value >= threshold)
