"""How well a model did on some tasks: mean score and share of passes with their intervals, pass@k and pass^k."""

from collections.abc import Iterable, Sequence

from fbench.engine.results import Record
from fbench.suites.intervals import FEW_TASKS, ClusteredMean, Interval, clustered_mean, wilson_interval
from fbench.suites.pass_at_k import MeanAtK, Passes, mean_at_k
from fbench.suites.standing import Sample


class Estimate(Record):
    """A mean over tasks.

    Attributes:
        value: None without a run to take it from.
        interval: 95 %, clustered by task, cut to what the quantity can be; `standard_error` gives it uncut.
        note: why there is no interval, or why not to trust it much; empty when there is nothing to say.
    """

    value: float | None
    interval: Interval | None
    standard_error: float | None
    tasks: int
    runs: int
    note: str


class Rates(Record):
    """What some runs say of a model.

    Attributes:
        pass_rate_wilson: where each task has one run at most, so that runs are independent.
    """

    passes: int
    runs: int
    score: Estimate
    pass_rate: Estimate
    pass_rate_wilson: Interval | None
    at_k: tuple[MeanAtK, ...]


def rates_of(tasks: Sequence[Sequence[Sample]], attempts: int) -> Rates:
    """Rates over the tasks' samples; `attempts` is how many each task was to have."""
    passes = [Passes(sum(sample.passed for sample in samples), len(samples)) for samples in tasks]
    passed, runs = sum(task.passed for task in passes), sum(task.runs for task in passes)
    is_one_each = all(task.runs <= 1 for task in passes)
    return Rates(
        passes=passed,
        runs=runs,
        score=estimate([[sample.score for sample in samples] for samples in tasks]),
        pass_rate=estimate([[float(sample.passed) for sample in samples] for samples in tasks]),
        pass_rate_wilson=wilson_interval(passed, runs) if is_one_each else None,
        at_k=tuple(mean_at_k(passes, k) for k in range(1, attempts + 1)),
    )


def estimate(clusters: Iterable[Sequence[float]]) -> Estimate:
    """The mean of values in [0, 1], each task counting the same."""
    found = clustered_mean(list(clusters))
    if found is None:
        return Estimate(value=None, interval=None, standard_error=None, tasks=0, runs=0, note="no run to judge by")
    cut = None if found.interval is None else Interval(max(0.0, found.interval.low), min(1.0, found.interval.high))
    return Estimate(
        value=found.mean,
        interval=cut,
        standard_error=found.standard_error,
        tasks=found.clusters,
        runs=found.observations,
        note=note_on(found),
    )


def note_on(found: ClusteredMean) -> str:
    """Why a mean has no interval, or a shaky one; empty when neither."""
    if found.clusters == 1:
        return "no interval: one task says nothing of others"
    if found.interval is None:
        return "no interval: all tasks have the same mean"
    if found.clusters < FEW_TASKS:
        return f"small sample: {found.clusters} tasks"
    return ""
