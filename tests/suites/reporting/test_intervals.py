"""Means clustered by task and Wilson's interval, against published numbers, scipy, numpy and statsmodels."""

import random

import numpy as np
import pytest
from scipy import stats

from fbench.suites.intervals import clustered_mean, wilson_interval

# Student (1908), Biometrika 6, "The probable error of a mean": additional hours of sleep by two drugs.
SLEEP_1 = (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)
SLEEP_2 = (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4)


def test_one_value_a_task_is_student_s_own_paired_example() -> None:
    found = clustered_mean([[second - first] for first, second in zip(SLEEP_1, SLEEP_2, strict=True)])
    assert found is not None
    assert found.interval is not None
    assert found.mean == pytest.approx(1.58)
    # As R prints t.test(extra ~ group, data = sleep, paired = TRUE): 0.7001142 2.4598858, p-value = 0.002833.
    assert found.interval == pytest.approx((0.7001142, 2.4598858), abs=5e-8)
    assert found.p_value == pytest.approx(0.002833, abs=5e-7)


def test_equal_attempts_give_what_statsmodels_gives() -> None:
    """OLS on a constant, cov_type="cluster", use_t: statsmodels 0.15.0."""
    found = clustered_mean([[1, 1, 0], [0, 0, 0], [1, 0, 1], [1, 1, 1], [0, 1, 0]])
    assert found is not None
    assert found.mean == pytest.approx(0.5333333333333333)
    assert found.standard_error == pytest.approx(0.16996731711975954)
    assert found.interval == pytest.approx((0.06142841, 1.00523826), abs=5e-9)
    assert found.p_value == pytest.approx(0.03491971, abs=5e-9)


def test_unequal_attempts_give_what_statsmodels_gives_with_each_task_weighing_the_same() -> None:
    """WLS on a constant with weights 1 / attempts, cov_type="cluster", use_t: statsmodels 0.15.0."""
    found = clustered_mean([[1, 1, 0, 1], [0, 0, 0], [1], [0.5, 1], [0, 1, 1, 0], [0.25, 0.75, 1, 1]])
    assert found is not None
    assert (found.clusters, found.observations) == (6, 18)
    assert found.mean == pytest.approx(0.625)
    assert found.standard_error == pytest.approx(0.14068285846778447)
    assert found.interval == pytest.approx((0.2633632, 0.9866368), abs=5e-8)


def test_the_error_is_the_sandwich_written_out() -> None:
    chance = random.Random(7)
    tasks = [[chance.random() for _ in range(chance.randint(1, 5))] for _ in range(23)]
    found = clustered_mean(tasks)
    assert found is not None
    scores = np.concatenate([np.array(task) for task in tasks])
    weights = np.concatenate([np.full(len(task), 1 / (len(tasks) * len(task))) for task in tasks])
    groups = np.concatenate([np.full(len(task), number) for number, task in enumerate(tasks)])
    together = np.equal.outer(groups, groups)
    residuals = weights * (scores - weights @ scores)
    variance = len(tasks) / (len(tasks) - 1) * (np.outer(residuals, residuals) * together).sum()
    assert found.standard_error == pytest.approx(variance**0.5)


def test_the_interval_is_scipy_s_of_the_task_means() -> None:
    chance = random.Random(3)
    tasks = [[float(chance.random() < share) for _ in range(4)] for share in (0.1, 0.4, 0.5, 0.9, 0.95, 0.2)]
    found = clustered_mean(tasks)
    assert found is not None
    expected = stats.ttest_1samp([np.mean(task) for task in tasks], 0).confidence_interval(0.95)
    assert found.interval == pytest.approx((expected.low, expected.high))


def test_attempts_of_a_task_that_agree_add_no_certainty() -> None:
    once = clustered_mean([[1.0], [0.0], [1.0], [0.0], [1.0]])
    often = clustered_mean([[score] * 50 for score in (1.0, 0.0, 1.0, 0.0, 1.0)])
    assert once is not None
    assert often is not None
    assert once.interval == pytest.approx(often.interval)


@pytest.mark.parametrize("tasks", [[[0.25, 0.5]], [[1.0], [1.0, 1.0]], [[0.1, 0.2, 0.3]] * 3, [[0.0], [0.0]]])
def test_one_task_or_equal_ones_have_a_mean_and_no_interval(tasks: list[list[float]]) -> None:
    found = clustered_mean(tasks)
    assert found is not None
    assert found.mean == pytest.approx(np.mean(tasks[0]))
    assert (found.interval, found.standard_error, found.p_value) == (None, None, None)


def test_tasks_without_values_are_no_clusters() -> None:
    assert clustered_mean([]) is None
    assert clustered_mean([[], []]) is None
    found = clustered_mean([[], [1.0], [0.0]])
    assert found is not None
    assert found.clusters == 2


# Newcombe (1998), Statistics in Medicine 17, table I, method 3.
@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_s_interval_is_that_of_newcombe_s_table(successes: int, trials: int, low: float, high: float) -> None:
    found = wilson_interval(successes, trials)
    assert found is not None
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@pytest.mark.parametrize("trials", [1, 2, 12, 1000])
def test_wilson_s_interval_is_scipy_s(trials: int) -> None:
    for successes in {0, 1, trials // 2, trials}:
        expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
        assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_no_trials_have_no_interval() -> None:
    assert wilson_interval(0, 0) is None
