"""pass@k and pass^k against what they estimate: every way to draw k runs of those there are."""

from itertools import combinations

import numpy as np
import pytest

from fbench.suites.pass_at_k import MeanAtK, Passes, mean_at_k, pass_at_k, pass_hat_k


@pytest.mark.parametrize("runs", range(1, 8))
def test_both_are_the_share_of_all_draws_of_k_runs(runs: int) -> None:
    for passed in range(runs + 1):
        outcomes = [True] * passed + [False] * (runs - passed)
        for k in range(1, runs + 1):
            draws = list(combinations(outcomes, k))
            assert pass_at_k(passed, runs, k) == pytest.approx(sum(map(any, draws)) / len(draws))
            assert pass_hat_k(passed, runs, k) == pytest.approx(sum(map(all, draws)) / len(draws))


@pytest.mark.parametrize(
    ("passed", "runs", "k"), [(3, 200, 1), (3, 200, 100), (0, 200, 10), (150, 200, 60), (37, 100, 5)]
)
def test_pass_at_k_is_the_product_that_its_paper_prints(passed: int, runs: int, k: int) -> None:
    """Chen et al. (2021), figure 3."""
    printed = 1.0 if runs - passed < k else 1 - np.prod(1 - k / np.arange(runs - passed + 1, runs + 1))
    assert pass_at_k(passed, runs, k) == pytest.approx(printed, abs=1e-12)


def test_the_example_of_hugging_face_s_code_eval() -> None:
    """One of two candidates is right: {"pass@1": 0.5, "pass@2": 1.0}, as its documentation prints."""
    assert (pass_at_k(1, 2, 1), pass_at_k(1, 2, 2)) == (0.5, 1.0)


def test_means_are_over_tasks_with_enough_runs() -> None:
    tasks = [Passes(1, 4), Passes(4, 4), Passes(1, 1), Passes(0, 0)]
    first = mean_at_k(tasks, 1)
    assert (first.pass_at_k, first.pass_hat_k) == pytest.approx((2.25 / 3, 2.25 / 3))
    assert first.tasks == 3
    assert mean_at_k(tasks, 4) == MeanAtK(4, 1.0, 0.5, 2)
    assert mean_at_k(tasks, 5) == MeanAtK(5, None, None, 0)


@pytest.mark.parametrize(("passed", "runs", "k"), [(2, 1, 1), (-1, 3, 1), (1, 3, 0), (1, 3, 4)])
def test_what_cannot_be_estimated_is_refused(passed: int, runs: int, k: int) -> None:
    with pytest.raises(ValueError, match="says nothing"):
        pass_at_k(passed, runs, k)
    with pytest.raises(ValueError, match="says nothing"):
        pass_hat_k(passed, runs, k)
