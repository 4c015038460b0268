"""A suite run's figures: what counts, what does not, and what is said about it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fbench.suites.figures import Cell, ModelSummary, SuiteSummary, mean_score, summarize
from fbench.suites.outcomes import SuiteOutcome

OutcomeOf = Callable[..., SuiteOutcome]
TEN = {f"t{number}": [1, 0.5, 0, 1] for number in range(10)}


def only_model(outcome: SuiteOutcome) -> ModelSummary:
    (model,) = summarize(outcome).models
    return model


def cell_of(summary: SuiteSummary, task: str, model: str) -> Cell:
    return next(cell for cell in summary.cells if (cell.task_id, cell.model) == (task, model))


def test_both_rates_differ_by_the_errors_and_by_nothing_else(outcome_of: OutcomeOf) -> None:
    model = only_model(outcome_of({"m/x": {"a": [1, "error"], "b": [0.5, 1]}}))
    assert (model.errors_left_out.passes, model.errors_left_out.runs) == (2, 3)
    assert model.errors_left_out.score.value == pytest.approx((1 + 0.75) / 2)
    assert model.errors_left_out.pass_rate.value == pytest.approx((1 + 0.5) / 2)
    assert (model.errors_as_failures.passes, model.errors_as_failures.runs) == (2, 4)
    assert model.errors_as_failures.score.value == pytest.approx((0.5 + 0.75) / 2)
    assert model.errors_as_failures.pass_rate.value == pytest.approx((0.5 + 0.5) / 2)
    assert model.error_kinds == {"model_unavailable": 1}


def test_cancelled_and_missing_runs_are_owed_and_count_in_no_rate(outcome_of: OutcomeOf) -> None:
    summary = summarize(outcome_of({"m/x": {"a": [1, "cancelled"], "b": [1, None]}}))
    (model,) = summary.models
    assert (model.counts.planned, model.counts.judged, model.counts.owed) == (4, 2, 2)
    for rates in (model.errors_left_out, model.errors_as_failures):
        assert (rates.runs, rates.pass_rate.value) == (2, 1.0)
    assert "2 of 4 runs are owed, 1 cancelled and 1 without a result" in summary.notes[0]


def test_a_killed_run_counts_with_its_score(outcome_of: OutcomeOf) -> None:
    killed = {"status": "killed", "kill_reason": "budget_exceeded:turns", "passed": True, "score": 1.0}
    summary = summarize(outcome_of({"m/x": {"a": [killed, 0]}}))
    assert summary.models[0].errors_left_out.passes == 1
    assert cell_of(summary, "a", "m/x").kill_reasons == {"budget_exceeded:turns": 1}


def test_a_run_without_a_score_is_an_error_whatever_its_status(outcome_of: OutcomeOf) -> None:
    model = only_model(outcome_of({"m/x": {"a": [{"score": None, "passed": None}], "b": [1]}}))
    assert (model.counts.errors, model.error_kinds) == (1, {"no_verdict": 1})


def test_unknown_dollars_make_totals_unknown_and_never_zero(outcome_of: OutcomeOf) -> None:
    unknown = {"cost_usd": None, "cost_status": "unknown"}
    summary = summarize(outcome_of({"m/x": {"a": [unknown, 1]}, "m/y": {"a": [1, 1]}}))
    first, second = summary.models
    assert (first.spend.total_usd, first.usd_per_pass, first.usd_per_solved_task) == (None, None, None)
    assert (first.spend.known_usd, first.spend.unknown_runs) == (0.01, 1)
    assert second.spend.total_usd == pytest.approx(0.02)
    assert summary.spend.total_usd is None
    assert any("unknown" in note for note in summary.notes)


def test_dollars_of_judges_failures_and_earlier_tries_count(outcome_of: OutcomeOf) -> None:
    outcome = outcome_of(
        {"m/x": {"a": [{"cost_usd": 1.0, "judge_cost_usd": 0.5}, 0], "b": ["error", 0]}},
        earlier=[("m/x", "b", {"status": "cancelled", "passed": None, "score": None, "cost_usd": 2.0})],
    )
    model = only_model(outcome)
    assert model.spend.total_usd == pytest.approx(1.5 + 3 * 0.01 + 2)
    assert (model.earlier.runs, model.earlier.total_usd) == (1, 2.0)
    assert model.usd_per_pass == model.usd_per_solved_task == pytest.approx(3.53)
    assert (model.solved_tasks, model.tasks) == (1, 2)
    assert summarize(outcome).spend.total_usd == pytest.approx(3.53)
    assert cell_of(summarize(outcome), "b", "m/x").spend.agent_usd == pytest.approx(2.02)


def test_dollars_of_runs_without_a_result_are_in_the_total_only(outcome_of: OutcomeOf) -> None:
    summary = summarize(outcome_of({"m/x": {"a": [1, None]}}, lost_cost_usd=2.0))
    assert (summary.spend.total_usd, summary.lost_usd, summary.models[0].spend.total_usd) == (2.01, 2.0, 0.01)
    unknown = summarize(outcome_of({"m/x": {"a": [1, None]}}, lost_cost_usd=None))
    assert (unknown.spend.total_usd, unknown.spend.known_usd, unknown.models[0].usd_per_pass) == (None, 0.01, 0.01)
    for found in (summary, unknown):
        assert any("ended without a result" in note for note in found.notes)


def test_nothing_solved_costs_no_amount_each(outcome_of: OutcomeOf) -> None:
    model = only_model(outcome_of({"m/x": {"a": [0], "b": [0]}}))
    assert (model.usd_per_pass, model.usd_per_solved_task) == (None, None)


def test_pass_at_k_is_there_for_each_k(outcome_of: OutcomeOf) -> None:
    model = only_model(outcome_of({"m/x": {"a": [1, 0, 0, 0], "b": [1, 1, 1, "error"]}}))
    left_out, as_failures = model.errors_left_out.at_k, model.errors_as_failures.at_k
    assert [at.k for at in left_out] == [1, 2, 3, 4]
    assert [at.tasks for at in left_out] == [2, 2, 2, 1]
    assert [at.pass_at_k for at in left_out] == pytest.approx([0.625, 0.75, 0.875, 1.0])
    assert [at.pass_hat_k for at in left_out] == pytest.approx([0.625, 0.5, 0.5, 0.0])
    assert [at.pass_hat_k for at in as_failures] == pytest.approx([0.5, 0.25, 0.125, 0.0])


def test_pass_at_one_is_the_pass_rate(realistic: SuiteOutcome) -> None:
    for model in summarize(realistic).models:
        for rates in (model.errors_left_out, model.errors_as_failures):
            assert rates.at_k[0].pass_at_k == pytest.approx(rates.pass_rate.value)
            assert rates.at_k[0].pass_hat_k == pytest.approx(rates.pass_rate.value)


@pytest.mark.parametrize(
    ("tasks", "note"),
    [
        ({"a": [1, 0.5]}, "one task"),
        ({"a": [0.5], "b": [0.5]}, "same mean"),
        ({"a": [0.5], "b": [1]}, "small sample: 2 tasks"),
        (TEN | {"t9": [0, 0, 0, 0]}, ""),
    ],
)
def test_small_samples_say_so(outcome_of: OutcomeOf, tasks: dict[str, Any], note: str) -> None:
    summary = summarize(outcome_of({"m/x": tasks}))
    score = summary.models[0].errors_left_out.score
    assert note in score.note
    assert bool(note) == bool(score.note)
    assert (score.interval is None) == ("no interval" in score.note)
    assert any("Small sample" in said for said in summary.notes) == (len(tasks) < 10)


def test_wilson_s_interval_stands_only_where_tasks_have_one_run(outcome_of: OutcomeOf) -> None:
    once = only_model(outcome_of({"m/x": {"a": [1], "b": [1], "c": [1]}}))
    assert once.errors_left_out.pass_rate.interval is None
    assert once.errors_left_out.pass_rate_wilson == pytest.approx((0.4385, 1.0), abs=1e-4)
    assert only_model(outcome_of({"m/x": {"a": [1, 1]}})).errors_left_out.pass_rate_wilson is None


def test_rollups_are_over_the_tasks_of_their_kind(outcome_of: OutcomeOf) -> None:
    tasks = {"a": ("hard", "nlp"), "b": ("easy", "sql"), "c": ("easy", "nlp"), "d": ("odd", "sql")}
    summary = summarize(outcome_of({"m/x": {"a": [0], "b": [1], "c": [0.5], "d": [1]}}, tasks=tasks))
    found = {(rollup.by, rollup.name): rollup for rollup in summary.rollups}
    assert [name for by, name in found if by == "difficulty"] == ["easy", "hard", "odd"]
    assert found["difficulty", "easy"].task_ids == ("b", "c")
    assert found["difficulty", "easy"].models[0].errors_left_out.score.value == 0.75
    assert found["domain", "nlp"].models[0].counts.passes == 0
    for by in ("difficulty", "domain"):
        assert sum(rollup.models[0].counts.planned for rollup in summary.rollups if rollup.by == by) == 4


@pytest.mark.parametrize(
    ("first", "note"),
    [
        ({"isolated": False}, "1 runs were not isolated"),
        ({"task_hash": "other"}, "changed while the suite ran, so their runs are not alike: a"),
        ({"fbench_version": "0.2.0"}, "several versions of fbench: 0.1.0, 0.2.0"),
        ({"sandbox": "bubblewrap"}, "more than one kind of sandbox: a"),
        ({"cost_status": "estimated"}, "rest on estimated tokens"),
    ],
)
def test_what_makes_runs_unlike_is_said(outcome_of: OutcomeOf, first: dict[str, Any], note: str) -> None:
    notes = " ".join(summarize(outcome_of({"m/x": {"a": [first, 1], "b": [1, 0]}})).notes)
    assert note in notes
    assert note not in " ".join(summarize(outcome_of({"m/x": {"a": [1, 1], "b": [1, 0]}})).notes)


def test_the_document_is_json_with_nothing_but_finite_numbers(realistic: SuiteOutcome) -> None:
    text = json.dumps(summarize(realistic, Path("runs/suite")).model_dump(mode="json"), allow_nan=False)
    assert SuiteSummary.model_validate_json(text) == summarize(realistic, Path("runs/suite"))
    assert json.loads(text)["schema_version"] == 1


def test_links_are_relative_to_the_report(outcome_of: OutcomeOf) -> None:
    outcome = outcome_of({"m/x": {"a": [1, None]}})
    (cell,) = summarize(outcome, Path("runs") / outcome.suite_run_id).cells
    first, second = cell.runs
    assert first.folder == f"../{first.run_id}"
    assert (second.run_id, second.folder, second.standing) == (None, None, "owed")
    assert summarize(outcome).cells[0].runs[0].folder is None


def test_the_mean_score_weighs_each_task_of_each_model_the_same(outcome_of: OutcomeOf) -> None:
    assert mean_score(outcome_of({"m/x": {"a": [1, "error"]}, "m/y": {"a": [0, 0.5]}})) == pytest.approx(0.625)
    assert mean_score(outcome_of({"m/x": {"a": ["error"]}})) is None


def test_a_suite_run_with_no_result_at_all_has_a_summary(outcome_of: OutcomeOf) -> None:
    summary = summarize(outcome_of({"m/x": {"a": [None], "b": [None]}}))
    (model,) = summary.models
    assert (model.errors_left_out.score.value, model.spend.total_usd, model.counts.owed) == (None, 0.0, 2)
