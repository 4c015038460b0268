"""Student's t and the binomial against published tables and scipy."""

import pytest
from scipy import special, stats

from fbench.suites.distributions import incomplete_beta, t_cdf, t_quantile, t_two_sided_p, two_sided_binomial_half_p


# Fisher & Yates, "Statistical Tables", table III; any textbook's table of t.
@pytest.mark.parametrize(
    ("probability", "df", "expected"),
    [
        (0.975, 1, 12.706),
        (0.975, 2, 4.303),
        (0.975, 4, 2.776),
        (0.975, 9, 2.262),
        (0.975, 30, 2.042),
        (0.995, 9, 3.250),
    ],
)
def test_quantiles_are_those_of_the_printed_table(probability: float, df: int, expected: float) -> None:
    assert round(t_quantile(probability, df), 3) == expected


@pytest.mark.parametrize("df", [1, 2, 3, 5, 11, 29, 99, 999, 1e5])
@pytest.mark.parametrize("probability", [1e-6, 0.025, 0.2, 0.5, 0.8, 0.975, 0.9999])
def test_quantiles_are_those_of_scipy(probability: float, df: float) -> None:
    assert t_quantile(probability, df) == pytest.approx(stats.t.ppf(probability, df), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("df", [1, 4, 27, 400])
@pytest.mark.parametrize("value", [-40.0, -2.5, -0.1, 0.0, 0.7, 3.0, 1e4])
def test_the_distribution_is_that_of_scipy(value: float, df: int) -> None:
    assert t_cdf(value, df) == pytest.approx(stats.t.cdf(value, df), rel=1e-10, abs=1e-15)
    assert t_two_sided_p(value, df) == pytest.approx(2 * stats.t.sf(abs(value), df), rel=1e-10, abs=1e-300)


def test_infinite_statistics_have_limits() -> None:
    assert (t_cdf(float("-inf"), 3), t_cdf(float("inf"), 3), t_two_sided_p(float("inf"), 3)) == (0, 1, 0)


@pytest.mark.parametrize("x", [0.0, 1e-12, 0.1, 0.5, 0.93, 1.0])
@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (2, 3), (0.5, 40), (500, 0.5), (5000, 5000)])
def test_the_incomplete_beta_is_that_of_scipy(a: float, b: float, x: float) -> None:
    assert incomplete_beta(a, b, x) == pytest.approx(special.betainc(a, b, x), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(("probability", "df"), [(0.0, 3), (1.0, 3), (0.5, 0)])
def test_a_quantile_that_is_none_is_refused(probability: float, df: float) -> None:
    with pytest.raises(ValueError, match="no t quantile"):
        t_quantile(probability, df)


@pytest.mark.parametrize("trials", [1, 2, 7, 20, 236, 2000])
def test_the_binomial_test_is_that_of_scipy(trials: int) -> None:
    for successes in {0, 1, trials // 3, trials // 2, trials}:
        expected = stats.binomtest(successes, trials, 0.5).pvalue
        assert two_sided_binomial_half_p(successes, trials) == pytest.approx(expected, rel=1e-9)


def test_no_trials_tell_nothing() -> None:
    assert two_sided_binomial_half_p(0, 0) == 1
