"""The rules over the runs of a validation: what a rubric has to tell apart, and what a judge's failure means."""

from typing import Any

import pytest

from fbench.engine.results import CheckResult, CheckStatus, ErrorInfo
from fbench.engine.validation import (
    Part,
    ValidationRun,
    describe_rubrics,
    find_doubts,
    find_faults,
    find_troubles,
)
from fbench.tasks.manifest import TaskManifest

HASH = "sha256:0"
Given = float | CheckStatus


@pytest.fixture
def manifest() -> TaskManifest:
    """A task with a gate, a rubric and an exploit."""
    return TaskManifest.model_validate(
        {
            "id": "essay",
            "title": "Write",
            "difficulty": "easy",
            "domain": "writing",
            "agent": {"prompt_text": "Write."},
            "grader": {
                "pass_threshold": 0.8,
                "checks": [
                    {"id": "there", "type": "file_present", "path": "essay.md"},
                    {"id": "quality", "type": "llm_rubric", "rubric": "grader/rubric.md"},
                ],
            },
            "solution": "solution/solve.sh",
            "exploits": ["exploits/*.sh"],
        }
    )


def run(part: Part, given: Given, *, there: float = 1.0, name: str = "", **changes: Any) -> ValidationRun:
    """A run in which the rubric gave a score, or ended otherwise."""
    score = 0.0 if isinstance(given, str) else given
    status: CheckStatus = given if isinstance(given, str) else "passed" if score >= 1 else "failed"
    checks = (
        _check("there", "file_present", "passed" if there else "failed", there),
        _check("quality", "llm_rubric", status, score),
    )
    total = (there + score) / 2
    facts: dict[str, Any] = {
        "part": part,
        "name": name,
        "run_id": "r",
        "status": "completed",
        "kill_reason": None,
        "error": None,
        "passed": total >= 0.8,
        "score": total,
        "checks": checks,
        "script_exit_code": None if part == "untouched" else 0,
        "sandbox": "docker",
        "isolated": True,
        "task_hash": HASH,
    }
    return ValidationRun.model_validate({**facts, **changes})


def _check(name: str, kind: str, status: CheckStatus, score: float) -> CheckResult:
    detail = {"skipped": "the gating check 'there' did not pass", "error": "the judge is away"}.get(status, "")
    tier = "rubric" if kind == "llm_rubric" else "deterministic"
    return CheckResult.model_validate(
        {"id": name, "type": kind, "tier": tier, "status": status, "score": score, "weight": 1.0, "gating": False}
        | {"detail": detail}
    )


def cheat(given: Given, *, there: float = 0.0) -> ValidationRun:
    """A run of the exploit, which no other check gives anything."""
    return run("exploit", given, there=there, name="exploits/praise.sh")


@pytest.mark.parametrize(
    ("solution", "untouched", "exploit", "told"),
    [
        (1.0, 0.0, 0.0, []),
        (0.9, 0.7, 0.7, []),
        (0.9, 0.71, 0.7, ["the untouched workspace"]),
        (1.0, 0.0, 0.85, ["exploits/praise.sh"]),
        (0.8, 0.8, 1.0, ["the untouched workspace", "exploits/praise.sh"]),
    ],
)
def test_a_rubric_must_put_the_solution_a_step_above_all_else(
    manifest: TaskManifest, solution: float, untouched: float, exploit: float, told: list[str]
) -> None:
    runs = [run("untouched", untouched, there=0.0), run("solution", solution), cheat(exploit)]
    faults = [fault for fault in find_faults(manifest, runs) if "rubric" in fault]
    assert [fault.partition("does not tell ")[2].partition(" from")[0] for fault in faults] == told
    assert all("'quality'" in fault and f"and {solution:g}" in fault for fault in faults)


def test_it_must_do_so_also_where_other_checks_hide_it(manifest: TaskManifest) -> None:
    gated: dict[str, Any] = {"score": 0.0, "passed": False}
    runs = [run("untouched", 0.9, there=0.0, **gated), run("solution", 0.9)]
    assert len(list(find_faults(manifest, runs))) == 1


def test_of_several_runs_of_the_solution_the_worst_counts(manifest: TaskManifest) -> None:
    runs = [run("untouched", 0.5, there=0.0), run("solution", 1.0), run("solution", 0.65)]
    assert "0.5 and 0.65" in next(find_faults(manifest, runs))


def test_a_rubric_that_a_gate_kept_from_being_asked_has_told_apart_and_it_is_said(manifest: TaskManifest) -> None:
    runs = [run("untouched", "skipped", there=0.0), run("solution", 0.9), cheat("skipped")]
    assert list(find_faults(manifest, runs)) == []
    (said,) = describe_rubrics(manifest, runs)
    assert "the untouched workspace not asked, the gating check 'there' did not pass" in said
    assert "the solution 0.9" in said


def test_a_judge_that_fails_on_the_solution_decides_nothing(manifest: TaskManifest) -> None:
    runs = [run("untouched", 0.0, there=0.0), run("solution", "error"), cheat(0.0)]
    assert list(find_faults(manifest, runs)) == []
    assert list(find_troubles(HASH, runs)) == [
        "the solution: the judge could not evaluate 'quality': the judge is away"
    ]


def test_a_judge_that_an_exploit_upsets_has_given_it_nothing_and_it_is_said(manifest: TaskManifest) -> None:
    runs = [run("untouched", 0.0, there=0.0), run("solution", 0.9), cheat("error")]
    assert list(find_faults(manifest, runs)) == []
    assert list(find_troubles(HASH, runs)) == []
    (doubt,) = find_doubts(manifest, runs)
    assert doubt.startswith("exploits/praise.sh: the judge could not evaluate 'quality'")


def test_errors_of_some_runs_are_told_once_each_with_the_runs_they_met(manifest: TaskManifest) -> None:
    lost: dict[str, Any] = {"status": "error", "score": None, "passed": None, "checks": ()}
    away = ErrorInfo(kind="sandbox_lost", message="gone")
    runs = [
        run("untouched", 0.0, there=0.0, error=away, **lost),
        run("solution", 1.0),
        run("exploit", 0.0, name="exploits/a.sh", error=away, **lost),
    ]
    assert list(find_troubles(HASH, runs)) == ["the untouched workspace, exploits/a.sh: sandbox_lost: gone"]
    assert list(find_faults(manifest, runs)) == []


def test_a_solution_that_passes_at_times_is_at_fault(manifest: TaskManifest) -> None:
    runs = [run("untouched", 0.0, there=0.0), run("solution", 1.0), run("solution", 0.4), run("solution", 1.0)]
    assert list(find_faults(manifest, runs)) == ["the solution passes only 2 of 3 times: quality failed"]


def test_runs_without_isolation_and_a_task_without_exploits_are_said(manifest: TaskManifest) -> None:
    alone = manifest.model_copy(update={"exploits": ()})
    doubts = list(find_doubts(alone, [run("untouched", 0.0, there=0.0, isolated=False)]))
    assert [doubt.partition(":")[0] for doubt in doubts] == ["the task has no `exploits`", "the runs were not isolated"]
