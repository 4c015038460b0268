"""Comparing systems: what is paired, what is left out, and what is said."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from scipy import stats

from fbench.suites.compare import Comparison, Difference, System, compare, is_solved
from fbench.suites.compare_text import comparison_text
from fbench.suites.outcomes import SuiteOutcome
from fbench.suites.standing import Sample

OutcomeOf = Callable[..., SuiteOutcome]


def compared(outcome: SuiteOutcome) -> Comparison:
    return compare([System(model, outcome, model) for model in outcome.models])


def one_each(passes: str) -> dict[str, list[int]]:
    """A task a letter, `p` or `f`."""
    return {f"t{number:02}": [int(letter == "p")] for number, letter in enumerate(passes)}


def test_the_difference_is_the_paired_t_test_of_task_means(outcome_of: OutcomeOf) -> None:
    first: dict[str, list[float]] = {"a": [1, 0.5], "b": [0, 0], "c": [0.25, 1], "d": [1, 1], "e": [0, 0.5]}
    second: dict[str, list[float]] = {"a": [1, 1], "b": [0.5, 0], "c": [1, 1], "d": [1, 1], "e": [0, 0.75]}
    found = compared(outcome_of({"m/x": first, "m/y": second})).pairs[0].errors_left_out.score
    means = [[sum(runs) / 2 for runs in tasks.values()] for tasks in (second, first)]
    expected: Any = stats.ttest_rel(means[0], means[1])
    assert found.difference == pytest.approx(0.2)
    assert (found.first, found.second) == pytest.approx((0.525, 0.725))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.bootstrap is not None
    assert found.bootstrap.low < 0.2 < found.bootstrap.high
    assert found.standard_error is not None
    assert found.smallest_detectable == pytest.approx((2.776445 + 0.940965) * found.standard_error, rel=1e-5)
    assert "small sample: 5 tasks" in found.note


def test_with_one_attempt_mcnemar_pairs_the_runs(outcome_of: OutcomeOf) -> None:
    found = compared(outcome_of({"m/x": one_each("ppppffffff"), "m/y": one_each("ppfpppppff")})).pairs[0]
    mcnemar = found.errors_left_out.mcnemar
    assert mcnemar.rule == "its run passed"
    assert (mcnemar.both, mcnemar.only_first, mcnemar.only_second, mcnemar.neither, mcnemar.ties) == (3, 1, 4, 2, 0)
    assert mcnemar.p_value == pytest.approx(stats.binomtest(1, 5).pvalue)
    flipped = {task.task_id: task.flipped for task in found.tasks if task.flipped}
    assert flipped == {"t02": "lost", "t04": "gained", "t05": "gained", "t06": "gained", "t07": "gained"}


def test_with_several_attempts_mcnemar_counts_tasks_and_leaves_ties_out(outcome_of: OutcomeOf) -> None:
    first = {"a": [1, 1, 0, 0], "b": [0, 0, 0, 1], "c": [1, 1, 1, 0], "d": [0, 0, 0, 0]}
    second = {"a": [1, 1, 1, 1], "b": [1, 1, 1, 0], "c": [1, 1, 1, 1], "d": [1, 1, 0, 0]}
    found = compared(outcome_of({"m/x": first, "m/y": second})).pairs[0]
    mcnemar = found.errors_left_out.mcnemar
    assert mcnemar.rule == "more than half of its runs passed"
    assert (mcnemar.both, mcnemar.only_first, mcnemar.only_second, mcnemar.neither, mcnemar.ties) == (1, 0, 1, 0, 2)
    assert [task.flipped for task in found.tasks] == [None, "gained", None, None]


def test_repeating_each_run_tells_mcnemar_nothing_new(outcome_of: OutcomeOf) -> None:
    once = {"m/x": one_each("ppffffff"), "m/y": one_each("fppppppp")}
    often = {model: {task: runs * 5 for task, runs in tasks.items()} for model, tasks in once.items()}
    few, many = (compared(outcome_of(runs)).pairs[0].errors_left_out for runs in (once, often))
    assert few.mcnemar.p_value == many.mcnemar.p_value
    assert few.pass_rate == many.pass_rate


@pytest.mark.parametrize(
    ("passes", "expected"), [("p", True), ("f", False), ("pf", None), ("ppf", True), ("pff", False)]
)
def test_a_task_is_solved_by_more_than_half(passes: str, expected: bool | None) -> None:
    assert is_solved([Sample(0.0, passed=letter == "p") for letter in passes]) is expected


def test_only_tasks_in_common_are_compared(outcome_of: OutcomeOf) -> None:
    first = outcome_of({"m/x": {"a": [1], "b": [0], "only_here": [1]}})
    second = outcome_of(
        {"m/x": {"b": [1], "a": [1], "other": [0]}}, suite_run_id="2026-05-14T20-40-00Z__suite__nightly__b1"
    )
    comparison = compare([System("A", first, "m/x"), System("B", second, "m/x")])
    assert comparison.pairs[0].errors_left_out.tasks == ("a", "b")
    notes = " ".join(comparison.notes)
    assert "A has tasks that another has no judged run of, and that are left out: only_here" in notes
    assert "Small sample: 2 tasks" in notes


def test_errors_are_left_out_and_counted_as_failures(outcome_of: OutcomeOf) -> None:
    outcome = outcome_of({"m/x": {"a": [1, 1], "b": [0, 1]}, "m/y": {"a": [1, "error"], "b": ["error", "error"]}})
    comparison = compared(outcome)
    pair = comparison.pairs[0]
    assert pair.errors_left_out.tasks == ("a",)
    assert pair.errors_left_out.score.difference == 0
    assert pair.errors_as_failures.tasks == ("a", "b")
    assert pair.errors_as_failures.score.difference == pytest.approx((-0.5 - 0.5) / 2)
    assert any("m/y has 3 of 4 runs in error" in note for note in comparison.notes)
    assert "errors as failures" in comparison_text(comparison)


def test_dollars_of_tasks_with_an_unknown_price_are_left_out_and_said(outcome_of: OutcomeOf) -> None:
    unknown = {"cost_usd": None, "cost_status": "unknown"}
    dear = {"cost_usd": 0.04, "duration_s": 30.0}
    pair = compared(
        outcome_of({"m/x": {"a": [1], "b": [1], "c": [1]}, "m/y": {"a": [unknown], "b": [dear], "c": [1]}})
    ).pairs[0]
    assert (pair.usd.tasks, pair.duration_s.tasks) == (2, 3)
    assert pair.usd.difference == pytest.approx(0.015)
    assert pair.duration_s.difference == pytest.approx(20 / 3)
    assert "1 tasks left out" in pair.usd.note


def test_p_values_are_adjusted_for_the_number_of_systems(outcome_of: OutcomeOf) -> None:
    runs = {"m/x": one_each("f" * 10), "m/y": one_each("p" * 8 + "ff"), "m/z": one_each("p" * 6 + "ffff")}
    first, second = compared(outcome_of(runs)).pairs
    assert first.errors_left_out.mcnemar.p_value == pytest.approx(2 / 2**8)
    assert first.errors_left_out.mcnemar.p_holm == pytest.approx(2 * 2 / 2**8)
    assert second.errors_left_out.mcnemar.p_holm == second.errors_left_out.mcnemar.p_value == pytest.approx(2 / 2**6)
    for pair in (first, second):
        score = pair.errors_left_out.score
        assert score.p_value is not None
        assert score.p_holm is not None
        assert score.p_holm >= score.p_value
    (alone,) = compared(outcome_of({"m/x": runs["m/x"], "m/y": runs["m/y"]})).pairs
    assert alone.errors_left_out.mcnemar.p_holm == alone.errors_left_out.mcnemar.p_value


def test_systems_that_never_differ_have_no_interval(outcome_of: OutcomeOf) -> None:
    pair = compared(outcome_of({"m/x": one_each("pfpf"), "m/y": one_each("pfpf")})).pairs[0]
    score = pair.errors_left_out.score
    assert score.difference == 0
    assert (score.interval, score.bootstrap, score.p_value, score.smallest_detectable) == (None, None, None, None)
    assert pair.errors_left_out.mcnemar.p_value == 1
    assert "all tasks differ by the same" in score.note


def test_nothing_in_common_is_said_and_shown(outcome_of: OutcomeOf) -> None:
    comparison = compared(outcome_of({"m/x": {"a": [1], "b": [None]}, "m/y": {"a": [None], "b": [1]}}))
    score = comparison.pairs[0].errors_left_out.score
    assert (score.tasks, score.difference, score.note) == (0, None, "no task in common")
    assert "no task in common" in comparison_text(comparison)
    assert any("unfinished: 1 of 2 runs are owed" in note for note in comparison.notes)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"task_hash": "other"}, "not the same everywhere (their files changed between the runs): a"),
        ({"sandbox": "local"}, "different sandboxes: m/x docker; m/y docker, local"),
        ({"fbench_version": "9"}, "different versions of fbench: m/x 0.1.0; m/y 0.1.0, 9"),
    ],
)
def test_what_makes_systems_unlike_is_said(outcome_of: OutcomeOf, change: dict[str, Any], note: str) -> None:
    comparison = compared(outcome_of({"m/x": {"a": [1], "b": [1]}, "m/y": {"a": [change], "b": [1]}}))
    assert any(note in said for said in comparison.notes)


def test_the_comparison_is_json_and_text(realistic: SuiteOutcome) -> None:
    comparison = compared(realistic)
    text = json.dumps(comparison.model_dump(mode="json"), allow_nan=False)
    assert Comparison.model_validate_json(text) == comparison
    shown = comparison_text(comparison)
    assert "openai/middle against openai/strong" in shown
    assert "local/weak against openai/strong" in shown
    assert "task_10 (4/4 to 1/4)" in shown
    assert "seed 20240613" in shown


def test_a_wide_spread_needs_a_large_difference() -> None:
    def detectable(outcome: Difference) -> float:
        assert outcome.smallest_detectable is not None
        return outcome.smallest_detectable

    from fbench.suites.compare import _difference

    calm = _difference([(0.5, 0.5 + 0.01 * n) for n in range(10)])
    wild = _difference([(0.5, 0.5 + 0.1 * n) for n in range(10)])
    assert detectable(wild) == pytest.approx(10 * detectable(calm))


def test_hostile_names_cannot_drive_a_terminal(outcome_of: OutcomeOf) -> None:
    outcome = outcome_of({"m/x\x1b[2J": {"a\x1b]0;": [1]}, "m/y": {"a\x1b]0;": [0]}})
    assert "\x1b" not in comparison_text(compared(outcome))
