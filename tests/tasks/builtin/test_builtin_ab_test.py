from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy", reason="scipy comes with the extra `mle`")

EXPLOITS = ("forge_the_verdict", "hard_coded", "huge_intervals", "link_to_the_grader", "read_the_grader")
# What is left out of the solution; the group and count of experiments that tell, the measure, and what it stays below.
FAULTS = {
    "visits_as_the_unit": (
        "customers.setdefault(name,",
        "customers.setdefault(len(customers),",
        "single 100",
        "coverage",
        0.85,
    ),
    "looks_not_planned_for": (' / experiment["looks_planned"]', "", "peeking 80", "coverage", 0.89),
    "mismatch_at_five_percent": ("0.05, 0.001", "0.05, 0.05", "mismatch 60", "mismatch_right", 1.0),
    "both_variants_kept": ("if len(one[0]) == 1]", "]", "mismatch 60", "mismatch_right", 1.0),
}


@pytest.fixture
def task(open_builtin: Callable[[str], Any]) -> Any:
    return open_builtin("ab_test")


def measured(task: Any, arguments: str, workspace: Path) -> dict[str, Any]:
    found: dict[str, Any] = task.measure(f'python -I -B "$FBENCH_GRADER/judge.py" {arguments}', workspace)
    return found


def test_the_ab_test_solution_passes_every_check(task: Any) -> None:
    judged = task.judge(task.solve())
    assert set(judged.checks.values()) == {1.0}
    assert (judged.score, judged.passed) == (1.0, True)


def test_a_t_test_of_visits_earns_a_part(task: Any) -> None:
    judged = task.judge(task.play_lazy())
    assert not judged.passed
    assert 0.05 < judged.score < 0.5
    assert judged.checks["tells_apart"] == 1.0


@pytest.mark.parametrize("name", ["nothing", *EXPLOITS])
def test_an_ab_test_exploit_or_nothing_ends_at_a_gate(task: Any, name: str) -> None:
    workspace = task.open_workspace() if name == "nothing" else task.exploit(f"exploits/{name}.sh")
    gates = [task.judge_one(check, workspace) for check in task.manifest.grader.checks if check.gating]
    assert min(gates) < 1.0


def test_the_ab_test_manifest_lists_every_exploit(task: Any) -> None:
    assert set(task.manifest.exploits) == {f"exploits/{name}.sh" for name in EXPLOITS}
    assert {path.stem for path in (task.folder / "exploits").iterdir()} == set(EXPLOITS)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_flaw_of_the_analysis_shows(task: Any, fault: str) -> None:
    workspace = task.open_workspace()
    old, new, group, metric, limit = FAULTS[fault]
    text = (task.folder / "solution" / "analysis.py").read_text(encoding="utf-8")
    assert text.count(old) == 1
    (workspace / "analysis.py").write_text(text.replace(old, new), encoding="utf-8")
    found = measured(task, f"{group} a_seed", workspace)
    assert found["error"] is None
    assert found[metric] < limit


def test_without_the_past_intervals_are_too_wide(task: Any) -> None:
    workspace = task.open_workspace()
    text = (task.folder / "solution" / "analysis.py").read_text(encoding="utf-8")
    old = "past = np.where(is_new, 0.0,"
    assert text.count(old) == 1
    (workspace / "analysis.py").write_text(text.replace(old, "past = 0.0 * np.where(is_new, 0.0,"), encoding="utf-8")
    found = measured(task, "single 60 a_seed", workspace)
    assert found["coverage"] > 0.85
    assert found["width_where_valid"] > 1.4


@pytest.mark.parametrize(
    "source",
    [
        "raise SystemExit",
        "def analyse(experiment): return {'sample_ratio_mismatch': 0, 'effect': '0', 'low': True, 'high': 1e999}",
        "def analyse(experiment): return [experiment] * 3",
        "def analyse(experiment): return {'effect': 'x' * 10**6}",
        "import os\nos.write(3, b'\\xff' * 10)\nanalyse = len",
    ],
)
def test_a_strange_analysis_is_judged_as_wrong(task: Any, source: str) -> None:
    workspace = task.open_workspace()
    (workspace / "analysis.py").write_text(source, encoding="utf-8")
    assert measured(task, "single 10", workspace)["coverage"] == 0.0
    assert measured(task, "mismatch 10", workspace)["mismatch_right"] == 0.0


def test_an_analysis_that_never_answers_is_judged_in_bounded_time(task: Any) -> None:
    judge = task.folder / "grader" / "judge.py"
    text = judge.read_text(encoding="utf-8")
    assert text.count("SCRIPT_TIMEOUT_S = 240.0") == 1
    judge.write_text(text.replace("SCRIPT_TIMEOUT_S = 240.0", "SCRIPT_TIMEOUT_S = 0.5"), encoding="utf-8")
    workspace = task.open_workspace()
    (workspace / "analysis.py").write_text("while True:\n    pass\n", encoding="utf-8")
    assert "did not end within 0.5 s" in measured(task, "single 10", workspace)["problem"]


def test_the_shipped_experiments_are_what_the_generator_makes(task: Any) -> None:
    made = task.scratch / "made"
    made.mkdir()
    assert task.run(f'python -I -B "$FBENCH_GRADER/generate.py" "{made}"', task.scratch).returncode == 0
    shipped = task.folder / "workspace" / "data"
    assert {path.name: path.read_bytes() for path in made.iterdir()} == {
        path.name: path.read_bytes() for path in shipped.iterdir()
    }
