"""Student's t and the binomial, in plain Python: fbench's core carries no numerical library."""

import math

_TINY = 1e-300
_EPSILON = 1e-15
_MAX_TERMS = 10_000
_BISECTIONS = 200


def t_cdf(value: float, df: float) -> float:
    """P(T <= value) of Student's t with `df` degrees of freedom: Abramowitz & Stegun (1964), 26.7.1 by 26.5.27."""
    if math.isinf(value):
        return 0.0 if value < 0 else 1.0
    tail = incomplete_beta(df / 2, 0.5, df / (df + value * value)) / 2
    return tail if value < 0 else 1 - tail


def t_two_sided_p(value: float, df: float) -> float:
    """P(|T| >= |value|): the p-value of a t statistic."""
    return 0.0 if math.isinf(value) else incomplete_beta(df / 2, 0.5, df / (df + value * value))


def t_quantile(probability: float, df: float) -> float:
    """The value with P(T <= value) = probability, by bisection.

    >>> round(t_quantile(0.975, 9), 3)
    2.262
    """
    if not 0 < probability < 1 or df <= 0:
        msg = f"no t quantile for probability {probability} and {df} degrees of freedom"
        raise ValueError(msg)
    if probability < 0.5:  # noqa: PLR2004 - the distribution is symmetric around 0
        return -t_quantile(1 - probability, df)
    tail = 2 * (1 - probability)
    low, high = 0.0, 1.0
    while t_two_sided_p(high, df) > tail:
        high *= 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if middle in {low, high}:
            break
        low, high = (middle, high) if t_two_sided_p(middle, df) > tail else (low, middle)
    return (low + high) / 2


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized I_x(a, b): its continued fraction (Abramowitz & Stegun (1964), 26.5.8) by Lentz's method, as in
    Press et al., Numerical Recipes, 6.4."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # where the fraction of the other end converges faster
        return 1 - incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * _beta_fraction(a, b, x) / a


def two_sided_binomial_half_p(successes: int, trials: int) -> float:
    """The exact two-sided p-value of `successes` in `trials` where each has probability 1/2; 1 without trials.

    The distribution is symmetric, so doubling the smaller tail is the same as summing what is no likelier.
    """
    smaller = min(successes, trials - successes)
    tail = sum(math.comb(trials, count) for count in range(smaller + 1))
    return min(1.0, 2 * tail / (1 << trials))  # integers of any size: the quotient is rounded once


def _beta_fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    product = d
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            product *= c * d
        if abs(c * d - 1) < _EPSILON:
            return product
    msg = f"the incomplete beta function did not converge for a={a}, b={b}, x={x}"
    raise ArithmeticError(msg)


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
