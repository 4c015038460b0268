"""Means with an interval that knows which runs belong together, and shares with Wilson's interval.

Runs of one task resemble each other, so tasks are what was sampled and runs are not: the interval is clustered by task.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

from fbench.suites.distributions import t_quantile, t_two_sided_p

CONFIDENCE = 0.95
FEW_TASKS = 10
"""Below, an interval is said to rest on a small sample; cluster-robust errors are too small with few clusters (Cameron
& Miller (2015), section VI), which the t quantile mends only in part."""

_SAME = 1e-12
"""Relative difference below which means count as equal: rounding makes as much."""


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ClusteredMean:
    """The mean of the tasks' means.

    Attributes:
        observations: values it is made of, in `clusters` tasks.
        standard_error: None, as `interval` and `p_value`, with one task, or when all tasks have the same mean: then the
            data tell nothing of the error.
        p_value: of the mean being 0, by t with `clusters - 1` degrees of freedom.
    """

    mean: float
    clusters: int
    observations: int
    standard_error: float | None
    interval: Interval | None
    p_value: float | None


def clustered_mean(clusters: Sequence[Sequence[float]]) -> ClusteredMean | None:
    """The mean in which each cluster (task) counts the same, with its cluster-robust error; None without values.

    With G clusters of n_g values y_gi and weights w_gi = 1 / (G n_g):

        mean = sum w_gi y_gi,   V = G / (G - 1) * sum_g (sum_i w_gi (y_gi - mean))**2

    and the interval is mean ± t(0.975, G - 1) * sqrt(V). The sum over g is the clustered variance of Miller (2024),
    "Adding Error Bars to Evals", arXiv:2411.00640; G / (G - 1) and t with G - 1 degrees of freedom are the
    small-sample corrections (CR1) of Cameron & Miller (2015), "A Practitioner's Guide to Cluster-Robust Inference",
    J. Human Resources 50(2), sections II and VI. As each cluster weighs the same, this is the t interval of the G
    cluster means.
    """
    filled = [cluster for cluster in clusters if cluster]
    if not filled:
        return None
    count = len(filled)
    observations = sum(map(len, filled))
    means = [math.fsum(cluster) / len(cluster) for cluster in filled]
    mean = math.fsum(means) / count
    if count == 1 or max(means) - min(means) <= _SAME * max(map(abs, means)):
        return ClusteredMean(mean, count, observations, None, None, None)
    variance = count / (count - 1) * math.fsum(((of_task - mean) / count) ** 2 for of_task in means)
    error = math.sqrt(variance)
    half = t_quantile((1 + CONFIDENCE) / 2, count - 1) * error
    p_value = t_two_sided_p(mean / error, count - 1)
    return ClusteredMean(mean, count, observations, error, Interval(mean - half, mean + half), p_value)


def wilson_interval(successes: int, trials: int) -> Interval | None:
    """Wilson's score interval without continuity correction, method 3 of Newcombe (1998), Statistics in Medicine 17,
    857-872; for independent trials, so for one run a task. None without trials.

    >>> low, high = wilson_interval(81, 263)
    >>> f"{low:.4f} {high:.4f}"
    '0.2553 0.3662'
    """
    if trials == 0:
        return None
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share = successes / trials
    middle = 2 * trials * share + z * z
    half = z * math.sqrt(z * z + 4 * trials * share * (1 - share))
    below = 2 * (trials + z * z)
    low = 0.0 if successes == 0 else (middle - half) / below  # exactly, where rounding would leave a trace
    high = 1.0 if successes == trials else (middle + half) / below
    return Interval(low, high)
