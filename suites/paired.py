"""Two systems on the same tasks: how sure is a difference."""

import math
import random
from collections.abc import Sequence

from fbench.suites.distributions import t_quantile, two_sided_binomial_half_p
from fbench.suites.intervals import CONFIDENCE, Interval

BOOTSTRAP_DRAWS = 10_000
BOOTSTRAP_SEED = 20240613
"""Any number does; a fixed one makes a report come out the same twice."""
POWER = 0.8
"""The chance of seeing a difference that is there, by the convention of Cohen (1988)."""


def bootstrap_interval(differences: Sequence[float], draws: int = BOOTSTRAP_DRAWS) -> Interval | None:
    """The percentile interval of the mean of per-task differences: Efron & Tibshirani (1993), "An Introduction to the
    Bootstrap", section 13.3.

    Whole tasks are drawn, with replacement (the pairs cluster bootstrap of Cameron, Gelbach & Miller (2008), Review of
    Economics and Statistics 90(3)), so runs of a task stay together. None with fewer than two tasks.
    """
    count = len(differences)
    if count < 2:  # noqa: PLR2004 - one task drawn again and again is always itself
        return None
    generator = random.Random(BOOTSTRAP_SEED)  # noqa: S311 - a simulation that must come out the same
    means = sorted(math.fsum(generator.choices(differences, k=count)) / count for _ in range(draws))
    tail = (1 - CONFIDENCE) / 2
    return Interval(_percentile(means, tail), _percentile(means, 1 - tail))


def exact_mcnemar_p(only_first: int, only_second: int) -> float:
    """The two-sided p-value that neither system is better, from the tasks that just one of them solved.

    McNemar (1947), Psychometrika 12, in its exact form: if neither is, each of those tasks is a fair coin (Agresti,
    "Categorical Data Analysis", section 10.1). It is 1 when no task tells the two apart.
    """
    return two_sided_binomial_half_p(only_first, only_first + only_second)


def smallest_detectable_difference(standard_error: float, tasks: int) -> float:
    """The true difference that this many tasks, differing as much as these did, would have shown with 80 % power in a
    two-sided test at 5 %: (t(0.975) + t(0.8)) * SE with tasks - 1 degrees of freedom, Bloom (1995), "Minimum Detectable
    Effects", Evaluation Review 19(5)."""
    df = tasks - 1
    return (t_quantile((1 + CONFIDENCE) / 2, df) + t_quantile(POWER, df)) * standard_error


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for their number, in the order given: Holm (1979), Scandinavian Journal of Statistics 6.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    count = len(p_values)
    adjusted = [0.0] * count
    highest = 0.0
    for rank, place in enumerate(sorted(range(count), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (count - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def _percentile(ordered: Sequence[float], share: float) -> float:
    """The share's quantile, linear between neighbours: definition 7 of Hyndman & Fan (1996), numpy's default."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
