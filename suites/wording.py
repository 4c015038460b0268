"""Figures in words, the same in every report: what is not known says so."""

import math
from collections.abc import Iterator, Mapping

from fbench.suites.figures import Counts, RunLine, SuiteSummary
from fbench.suites.intervals import Interval
from fbench.suites.rates import Estimate
from fbench.suites.standing import Spend, Standing

NOTHING = "-"
MARKS = "Runs are named by their attempt: P passed, F failed, E error, O owed; each links to its folder."
_SMALL_USD = 0.01
_SMALLEST_P = 1e-4
_MINUTE_S = 60
_HOUR_S = 3600


def say_number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where there is none."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def say_signed(value: float | None, digits: int = 3) -> str:
    """A difference, its sign always shown."""
    return NOTHING if value is None else f"{value:+.{digits}f}"


def say_interval(interval: Interval | None, digits: int = 3) -> str:
    """An interval in brackets, or a dash."""
    return NOTHING if interval is None else f"[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def say_estimate(estimate: Estimate) -> str:
    """A mean with its interval."""
    if estimate.interval is None:
        return say_number(estimate.value)
    return f"{say_number(estimate.value)} {say_interval(estimate.interval)}"


def say_usd(usd: float | None) -> str:
    """Dollars of one thing; small ones keep digits that tell them from 0.

    >>> say_usd(12.5), say_usd(0.00004), say_usd(0.0), say_usd(None)
    ('$12.50', '$0.00004', '$0', 'unknown')
    """
    if usd is None:
        return "unknown"
    if usd == 0:
        return "$0"
    if abs(usd) >= 1:
        return f"${usd:,.2f}"
    if abs(usd) >= _SMALL_USD:
        return f"${usd:.4f}"
    digits = 1 - math.floor(math.log10(abs(usd)))  # two that count
    return f"${usd:.{digits}f}".rstrip("0")


def say_spend(spend: Spend) -> str:
    """The dollars of runs, agent and judge together: `~` where tokens were estimated, a lower bound where some are
    unknown."""
    mark = "~" if spend.estimated_runs else ""
    if spend.total_usd is not None:
        return mark + say_usd(spend.total_usd)
    known = f", at least {mark}{say_usd(spend.known_usd)}" if spend.known_usd else ""
    return f"unknown{known}"


def say_duration(seconds: float | None) -> str:
    """A duration in the unit it is read in.

    >>> say_duration(3.25), say_duration(125), say_duration(7325)
    ('3.2 s', '2 m 05 s', '2 h 02 m')
    """
    if seconds is None:
        return NOTHING
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} m {whole % _MINUTE_S:02d} s"
    return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S:02d} m"


def say_p(p_value: float | None) -> str:
    """A p-value.

    >>> say_p(0.03216), say_p(0.00001), say_p(None)
    ('0.032', '< 0.0001', '-')
    """
    if p_value is None:
        return NOTHING
    return f"< {_SMALLEST_P:.4f}" if p_value < _SMALLEST_P else f"{p_value:.2g}"


def say_passes(counts: Counts) -> str:
    """Passes of the runs that were planned, and what became of the others."""
    told = f"{counts.passes}/{counts.planned}"
    rest = [f"{count} {word}" for count, word in ((counts.errors, "error"), (counts.owed, "owed")) if count]
    return f"{told} ({', '.join(rest)})" if rest else told


def say_counted(counts: Mapping[str, int]) -> str:
    """Names with how often each came.

    >>> say_counted({"budget_exceeded:tokens": 2, "sandbox_lost": 1})
    '2 budget_exceeded:tokens, 1 sandbox_lost'
    """
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def say_facts(summary: SuiteSummary) -> Iterator[str]:
    """What a report begins with."""
    counts = summary.counts
    ended = f"finished {summary.finished_at}" if summary.finished_at else "not finished"
    yield f"Suite run {summary.suite_run_id}, started {summary.started_at or 'at an unknown time'}, {ended}."
    yield (
        f"{len(summary.tasks)} tasks, {len(summary.models)} models, {summary.attempts} attempts each: "
        f"{counts.planned} runs, {counts.judged} judged, {counts.passes} passed, {counts.errors} in error, "
        f"{counts.owed} owed."
    )
    cap = "" if summary.max_cost_usd is None else f" of at most {say_usd(summary.max_cost_usd)}"
    spend = summary.spend
    yield f"Spent {say_spend(spend)}{cap}, {spend.tokens:,} tokens, {say_duration(spend.duration_s)} of runs."


def mark_of(run: RunLine) -> str:
    """A letter for how the run ended."""
    match run.standing:
        case Standing.JUDGED:
            return "P" if run.passed else "F"
        case Standing.ERROR:
            return "E"
        case Standing.OWED:
            return "O"
