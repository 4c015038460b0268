"""From check results to a verdict: the weighted mean, the gates and the threshold."""

from collections.abc import Sequence
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
    total = sum((_written(check.weight) for check in checks), Fraction())
    if not total:
        return 0.0
    gained = sum((_written(check.weight) * _written(check.score) for check in checks), Fraction())
    score = float(gained / total)
    return score if gained == total else min(score, ALMOST_ONE)


def make_verdict(checks: Sequence[CheckResult], pass_threshold: float) -> Verdict:
    """The verdict over results in the manifest's order; a gating check that did not pass makes it 0 and no pass."""
    if any(check.gating and check.status != "passed" for check in checks):
        return Verdict(score=0.0, passed=False, checks=tuple(checks))
    score = composite_score(checks)
    return Verdict(score=score, passed=score >= pass_threshold, checks=tuple(checks))


def _written(number: float) -> Fraction:
    return Fraction(str(number))
