"""From check results to a verdict: the weighted mean, the gates and the threshold."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import nextafter

from fbench.engine.results import CheckResult, Verdict

ALMOST_ONE = nextafter(1.0, 0.0)
"""The most that anything but a full pass can score."""


def composite_score(checks: Sequence[CheckResult]) -> float:
    """`sum(weight * score) / sum(weight)`, computed on the decimals as written and rounded once.

    It is 1.0 exactly when every check with a weight scored 1.0, and below 1.0 otherwise.

    >>> from fbench.engine.results import CheckResult
    >>> def check(score, weight):
    ...     return CheckResult(
    ...         id="x", type="t", tier="reference", status="passed", score=score, weight=weight, gating=False
    ...     )
    >>> composite_score([check(1.0, 0.7), check(1.0, 0.2), check(0.0, 0.1)])
    0.9
    """
    mean = weighted_mean((check.weight, as_written(check.score)) for check in checks)
    return 1.0 if mean == 1 else min(float(mean), ALMOST_ONE)


def make_verdict(checks: Sequence[CheckResult], pass_threshold: float) -> Verdict:
    """The verdict over results in the manifest's order; a gating check that did not pass makes it 0 and no pass."""
    if any(check.gating and check.status != "passed" for check in checks):
        return Verdict(score=0.0, passed=False, checks=tuple(checks))
    score = composite_score(checks)
    return Verdict(score=score, passed=score >= pass_threshold, checks=tuple(checks))


def weighted_mean(weighed: Iterable[tuple[float, Fraction]]) -> Fraction:
    """The mean of scores by their weights, exact; 0 without any weight."""
    total = gained = Fraction()
    for weight, score in weighed:
        total += as_written(weight)
        gained += as_written(weight) * score
    return gained / total if total else Fraction()


def as_written(number: float) -> Fraction:
    """The decimal that a number is written as, exact."""
    return Fraction(str(number))
