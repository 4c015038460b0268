"""How likely one of k runs passes, and how likely all of k do."""

from collections.abc import Sequence
from math import comb
from typing import NamedTuple


class Passes(NamedTuple):
    """What is known of one task: how many of its runs passed."""

    passed: int
    runs: int


class MeanAtK(NamedTuple):
    """Means over the tasks that have at least k runs; None where no task has."""

    k: int
    pass_at_k: float | None
    pass_hat_k: float | None
    tasks: int


def pass_at_k(passed: int, runs: int, k: int) -> float:
    """The unbiased estimate of "at least one of k runs passes" from `passed` of `runs`: 1 - C(n-c, k) / C(n, k), Chen
    et al. (2021), "Evaluating Large Language Models Trained on Code", arXiv:2107.03374, equation 1.

    >>> pass_at_k(1, 4, 2)
    0.5
    """
    _check(passed, runs, k)
    return 1 - comb(runs - passed, k) / comb(runs, k)


def pass_hat_k(passed: int, runs: int, k: int) -> float:
    """The unbiased estimate of "all of k runs pass": C(c, k) / C(n, k), pass^k in Yao et al. (2024), "tau-bench",
    arXiv:2406.12045.

    >>> pass_hat_k(3, 4, 2)
    0.5
    """
    _check(passed, runs, k)
    return comb(passed, k) / comb(runs, k)


def mean_at_k(tasks: Sequence[Passes], k: int) -> MeanAtK:
    """Both, as means over the tasks with at least k runs: with fewer neither has an unbiased estimate."""
    able = [task for task in tasks if task.runs >= k]
    if not able:
        return MeanAtK(k, None, None, 0)
    return MeanAtK(
        k,
        sum(pass_at_k(task.passed, task.runs, k) for task in able) / len(able),
        sum(pass_hat_k(task.passed, task.runs, k) for task in able) / len(able),
        len(able),
    )


def _check(passed: int, runs: int, k: int) -> None:
    if not 0 <= passed <= runs or not 1 <= k <= runs:
        msg = f"{passed} of {runs} runs passed says nothing about k = {k}"
        raise ValueError(msg)
