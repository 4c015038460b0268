"""Paired statistics against published numbers, scipy and statsmodels."""

import random
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fbench.suites.paired import bootstrap_interval, exact_mcnemar_p, holm, smallest_detectable_difference


def test_mcnemar_of_the_approval_ratings() -> None:
    """Agresti (1990), p. 350: 150 changed one way, 86 the other. statsmodels 0.15.0, mcnemar(exact=True)."""
    assert exact_mcnemar_p(150, 86) == pytest.approx(3.7159361395713866e-05)
    assert exact_mcnemar_p(86, 150) == exact_mcnemar_p(150, 86)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (0, 5), (0, 6), (3, 9), (10, 10), (1, 400)])
def test_mcnemar_is_scipy_s_binomial_test(first: int, second: int) -> None:
    assert exact_mcnemar_p(first, second) == pytest.approx(stats.binomtest(first, first + second, 0.5).pvalue)


def test_no_task_that_differs_is_no_evidence() -> None:
    assert exact_mcnemar_p(0, 0) == 1


def test_five_tasks_can_never_reach_five_percent() -> None:
    assert exact_mcnemar_p(0, 5) == 0.0625
    assert exact_mcnemar_p(0, 6) < 0.05


def test_the_bootstrap_is_the_one_that_draws_every_sample_once() -> None:
    differences = [0.5, 0.0, -0.25, 1.0, 0.75]
    every = [float(np.mean(drawn)) for drawn in product(differences, repeat=len(differences))]
    expected = [float(limit) for limit in np.percentile(every, [2.5, 97.5])]
    assert bootstrap_interval(differences) == pytest.approx(expected, abs=0.051)  # one step of the lattice


def test_the_bootstrap_is_close_to_scipy_s() -> None:
    chance = random.Random(11)
    differences = [chance.gauss(0.1, 0.4) for _ in range(40)]
    expected: Any = stats.bootstrap((differences,), np.mean, n_resamples=10_000, method="percentile", rng=1)
    found = bootstrap_interval(differences)
    assert found == pytest.approx(
        (expected.confidence_interval.low, expected.confidence_interval.high), abs=0.1 * expected.standard_error
    )


def test_the_bootstrap_comes_out_the_same_twice_and_leaves_others_chance_alone() -> None:
    random.seed(5)
    expected = random.Random(5).random()
    assert bootstrap_interval([0.0, 1.0, 0.5], 500) == bootstrap_interval([0.0, 1.0, 0.5], 500)
    assert random.random() == expected


def test_one_task_has_no_bootstrap() -> None:
    assert bootstrap_interval([0.5]) is None
    assert bootstrap_interval([]) is None


def test_the_smallest_difference_is_the_one_a_power_analysis_solves_for() -> None:
    """statsmodels 0.15.0: TTestPower().solve_power(nobs=20, alpha=0.05, power=0.8) = 0.66044, in standard deviations
    and by the noncentral t that the formula stands for."""
    assert smallest_detectable_difference(1 / 20**0.5, 20) == pytest.approx(0.66044, abs=2e-3)


def test_the_smallest_difference_of_many_tasks_is_2_8_errors() -> None:
    """Bloom (1995), table 1: the multiplier at 80 % power and 5 %, two-sided."""
    assert smallest_detectable_difference(1, 100_000) == pytest.approx(2.80, abs=5e-3)


def test_that_difference_is_found_four_times_in_five() -> None:
    chance = np.random.default_rng(4)
    tasks, spread = 15, 0.3
    true = smallest_detectable_difference(spread / tasks**0.5, tasks)
    trials = chance.normal(true, spread, size=(4000, tasks))
    statistic = trials.mean(axis=1) / (trials.std(axis=1, ddof=1) / tasks**0.5)
    found = (abs(statistic) > stats.t.ppf(0.975, tasks - 1)).mean()
    assert found == pytest.approx(0.8, abs=0.03)


def test_holm_is_that_of_statsmodels() -> None:
    """statsmodels 0.15.0, multipletests(method="holm")."""
    assert holm([0.01, 0.04, 0.03, 0.005, 0.2, 0.2]) == pytest.approx([0.05, 0.12, 0.12, 0.03, 0.4, 0.4])
    assert holm([0.7, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
