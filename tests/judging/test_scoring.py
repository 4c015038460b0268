"""From check results to a score."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbench.engine.results import CheckResult, CheckStatus
from fbench.judging.scoring import ALMOST_ONE, composite_score, make_verdict


def result(
    score: float, weight: float = 1.0, *, status: CheckStatus | None = None, gating: bool = False
) -> CheckResult:
    return CheckResult(
        id="x",
        type="file_present",
        tier="deterministic",
        status=status or ("passed" if score == 1.0 else "failed"),
        score=score,
        weight=weight,
        gating=gating,
    )


@pytest.mark.parametrize(
    ("pairs", "score"),
    [
        ([(1.0, 1.0)], 1.0),
        ([(1.0, 0.1), (1.0, 0.2), (1.0, 0.3)], 1.0),
        ([(1.0, 0.7), (1.0, 0.2), (0.0, 0.1)], 0.9),
        ([(1.0, 2.0), (0.0, 1.0), (0.0, 1.0)], 0.5),
        ([(0.0, 0.0), (1.0, 1.0)], 1.0),
        ([(0.25, 1.0), (0.75, 1.0)], 0.5),
        ([(1.0, 1e308), (1.0, 1e308), (0.0, 1e308), (0.0, 1e308)], 0.5),
        ([(1.0, 5e-324), (1.0, 5e-324)], 1.0),
        ([(ALMOST_ONE, 1.0), (1.0, 1e6)], ALMOST_ONE),
        ([(0.0, 1e-30), (1.0, 1.0)], ALMOST_ONE),
    ],
)
def test_the_score_is_the_weighted_mean(pairs: list[tuple[float, float]], score: float) -> None:
    assert composite_score([result(*pair) for pair in pairs]) == score


@given(st.lists(st.floats(0, 1e308), min_size=1, max_size=20).filter(any))
def test_all_passed_is_exactly_1(weights: list[float]) -> None:
    assert composite_score([result(1.0, weight) for weight in weights]) == 1.0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e6)), min_size=1, max_size=20))
def test_the_score_stays_between_0_and_1_and_is_1_only_when_nothing_is_missing(
    pairs: list[tuple[float, float]],
) -> None:
    score = composite_score([result(*pair) for pair in pairs])
    assert 0.0 <= score <= 1.0
    if score == 1.0:
        assert all(gained == 1.0 for gained, weight in pairs if weight > 0)


def test_a_run_passes_at_the_threshold() -> None:
    results = [result(1.0, 0.7), result(1.0, 0.2), result(0.0, 0.1)]
    assert make_verdict(results, 0.9).passed
    assert not make_verdict(results, 0.91).passed


@pytest.mark.parametrize("status", ["failed", "error", "skipped"])
def test_a_gating_check_that_did_not_pass_makes_the_score_0(status: CheckStatus) -> None:
    verdict = make_verdict([result(1.0), result(0.5, 0.0, status=status, gating=True)], 0.0)
    assert (verdict.score, verdict.passed) == (0.0, False)


def test_a_gating_check_that_passed_changes_nothing() -> None:
    assert make_verdict([result(1.0, gating=True), result(0.0)], 0.5).passed
