"""The tables of a report as plain text, for whoever lays them out: report.md and report.html say the same."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from fbench.suites.figures import ModelSummary, SuiteSummary
from fbench.suites.rates import Rates
from fbench.suites.wording import (
    NOTHING,
    say_counted,
    say_duration,
    say_estimate,
    say_interval,
    say_number,
    say_passes,
    say_spend,
    say_usd,
)

METHODS = (
    (
        "Scores and pass rates are means over tasks, each task counting the same. Intervals are 95 %, clustered by "
        "task: CR1 errors, Student's t with one degree of freedom less than tasks (Miller 2024, Cameron & Miller 2015),"
        " cut to [0, 1]. Where each task has one run, the pass rate has Wilson's interval besides."
    ),
    (
        "pass@k is the unbiased estimate that one of k runs passes (Chen et al. 2021), pass^k that all of k do (Yao et "
        "al. 2024), over the tasks with at least k runs."
    ),
    (
        "Dollars are those of agent and judge, of failed and of replaced runs too. Per pass: all dollars by passed "
        "runs. Per solved task: all dollars by tasks with at least one pass."
    ),
)


_ENDS = "Killed or in error"
_NOTE = "Note"
_WORDS = frozenset({_ENDS, _NOTE})


class Table(NamedTuple):
    """Plain text in rows. The first `text_columns` columns are words, most others figures."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int

    def is_figure(self, column: int) -> bool:
        """Whether the column reads best with its last digits below each other."""
        return column >= self.text_columns and self.head[column] not in _WORDS


def all_tables(summary: SuiteSummary) -> Iterator[Table]:
    """What a report shows before it comes to single tasks."""
    yield _rates_table(summary)
    if summary.attempts > 1:
        yield _at_k_table(summary)
    yield _money_table(summary)
    for by in ("difficulty", "domain"):
        yield _rollup_table(summary, by)


def _rates_table(summary: SuiteSummary) -> Table:
    has_wilson = any(rates.pass_rate_wilson for model in summary.models for _, rates in _both(model))
    head = ("Model", "Errors", "Passes", "Mean score", "Pass rate", *(["Pass rate, Wilson"] if has_wilson else []))
    rows = [
        (
            model.model,
            errors,
            f"{rates.passes}/{rates.runs}",
            say_estimate(rates.score),
            say_estimate(rates.pass_rate),
            *([say_interval(rates.pass_rate_wilson)] if has_wilson else []),
            rates.score.note,
        )
        for model in summary.models
        for errors, rates in _both(model)
    ]
    return Table("Models", (*head, _NOTE), tuple(rows), 2)


def _at_k_table(summary: SuiteSummary) -> Table:
    ks = range(1, summary.attempts + 1)
    head = (
        "Model",
        "Errors",
        *(f"pass@{k}" for k in ks),
        *(f"pass^{k}" for k in ks),
        f"Tasks with {summary.attempts} runs",
    )
    rows = [
        (
            model.model,
            errors,
            *(say_number(at.pass_at_k) for at in rates.at_k),
            *(say_number(at.pass_hat_k) for at in rates.at_k),
            f"{rates.at_k[-1].tasks}/{model.tasks}",
        )
        for model in summary.models
        for errors, rates in _both(model)
    ]
    return Table("One of k runs, all of k runs", head, tuple(rows), 2)


def _money_table(summary: SuiteSummary) -> Table:
    head = (
        "Model",
        "Dollars",
        "Of it judge",
        "Of it earlier tries",
        "Per pass",
        "Per solved task",
        "Solved",
        "Tokens",
        "Time",
    )
    rows = [
        (
            model.model,
            say_spend(model.spend),
            say_usd(model.spend.judge_usd),
            say_spend(model.earlier) if model.earlier.runs else NOTHING,
            say_usd(model.usd_per_pass) if model.counts.passes else NOTHING,
            say_usd(model.usd_per_solved_task) if model.solved_tasks else NOTHING,
            f"{model.solved_tasks}/{model.tasks}",
            f"{model.spend.tokens:,}",
            say_duration(model.spend.duration_s),
            say_counted({**model.kill_reasons, **model.error_kinds}) or NOTHING,
        )
        for model in summary.models
    ]
    return Table("Cost", (*head, _ENDS), tuple(rows), 1)


def _rollup_table(summary: SuiteSummary, by: Literal["difficulty", "domain"]) -> Table:
    head = (
        by.capitalize(),
        "Model",
        "Tasks",
        "Passes",
        "Mean score",
        "Pass rate",
        "Score, errors as failures",
        "Dollars",
    )
    rows = [
        (
            rollup.name,
            model.model,
            str(model.tasks),
            say_passes(model.counts),
            say_estimate(model.errors_left_out.score),
            say_estimate(model.errors_left_out.pass_rate),
            say_number(model.errors_as_failures.score.value),
            say_spend(model.spend),
            model.errors_left_out.score.note,
        )
        for rollup in summary.rollups
        if rollup.by == by
        for model in rollup.models
    ]
    return Table(f"By {by}", (*head, _NOTE), tuple(rows), 2)


def _both(model: ModelSummary) -> Iterator[tuple[str, Rates]]:
    """The model's rates: twice where runs ended in an error, since then they differ."""
    if not model.counts.errors:
        yield "none", model.errors_left_out
        return
    yield f"{model.counts.errors} left out", model.errors_left_out
    yield f"{model.counts.errors} as failures", model.errors_as_failures
