from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("sklearn", reason="scikit-learn comes with the extra `mle`")

EXPLOITS = ("forge_the_verdict", "hand_the_scores_back", "one_chance_for_all", "read_the_grader")
JUDGE = 'python -I -B "$FBENCH_GRADER/judge.py"'
# What is overlooked, and the metrics that tell.
MISTAKES = {
    "weights": ('own["weight"].to_numpy(dtype=float)', "np.ones(len(own))", {"error_removed", "worst_segment"}),
    "segments": ('known["segment"] == segment', 'known["segment"] != ""', {"error_removed", "worst_segment"}),
    "rounding": ("1.0 / (1.0 + np.exp(-odds))\n\n\ndef main", "np.round(1 / (1 + np.exp(-odds)), 6)\n\n\ndef main",
                 {"order", "decisions"}),
    "cutoffs": ('cutoffs.loc[row, "cutoff"] = turned[-1]', "pass", {"decisions"}),
}  # fmt: skip


@pytest.fixture
def task(open_builtin: Callable[[str], Any]) -> Any:
    return open_builtin("calibrate_scores")


def measure(task: Any, what: str, workspace: Path) -> dict[str, Any]:
    found: dict[str, Any] = task.measure(f"{JUDGE} {what}", workspace)
    return found


def missed(task: Any, found: dict[str, Any]) -> set[str]:
    """The metrics that do not reach what the manifest asks."""
    checks = [check for check in task.manifest.grader.checks if check.type == "metric_check" and not check.gating]
    return {check.metric for check in checks if found[check.metric] < check.threshold}


def test_the_untouched_scores_workspace_scores_nothing(task: Any) -> None:
    judged = task.judge(task.open_workspace())
    assert (judged.score, judged.passed) == (0.0, False)


def test_the_scores_solution_passes_every_check(task: Any) -> None:
    judged = task.judge(task.solve())
    assert (judged.score, judged.passed) == (1.0, True), judged.checks


@pytest.mark.parametrize("name", EXPLOITS)
def test_a_scores_exploit_ends_at_a_gate(task: Any, name: str) -> None:
    judged = task.judge(task.exploit(f"exploits/{name}.sh"))
    assert (judged.score, judged.passed) == (0.0, False)


def test_the_scores_manifest_lists_every_exploit(task: Any) -> None:
    assert set(task.manifest.exploits) == {f"exploits/{name}.sh" for name in EXPLOITS}
    assert {path.stem for path in (task.folder / "exploits").iterdir()} == set(EXPLOITS)


def test_the_lazy_scores_agent_earns_a_part(task: Any) -> None:
    turns = yaml.safe_load((task.folder / "lazy.yaml").read_text(encoding="utf-8"))["turns"]
    workspace = task.open_workspace()
    done = task.run(turns[0]["tool_calls"][0]["arguments"]["command"], workspace)
    assert done.returncode == 0, done.stderr.decode()
    judged = task.judge(workspace)
    assert not judged.passed
    assert 0.3 < judged.score < 0.7


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_overlooked_in_scores_shows_in_its_metric(task: Any, mistake: str) -> None:
    old, new, metrics = MISTAKES[mistake]
    workspace = task.open_workspace()
    text = (task.folder / "solution" / "calibrate.py").read_text(encoding="utf-8")
    assert text.count(old) == 1
    (workspace / "calibrate.py").write_text(text.replace(old, new), encoding="utf-8")
    assert missed(task, measure(task, "fresh one", workspace)) == metrics


def test_outputs_of_scores_that_are_links_are_not_read(task: Any) -> None:
    workspace = task.solve()
    for name in ("probabilities.csv", "cutoffs.csv"):
        (workspace / "out" / name).rename(workspace / name)
        (workspace / "out" / name).symlink_to(f"../{name}")
    assert "there is no file" in measure(task, "visible", workspace)["problem"]
    assert task.judge(workspace).checks["calibrated"] <= 0.0


@pytest.mark.parametrize("written", ["", "application,probability\n", "a,b\n1,2\n", "application,probability\nA,nan\n"])
def test_strange_probabilities_earn_nothing(task: Any, written: str) -> None:
    workspace = task.solve()
    (workspace / "out" / "probabilities.csv").write_text(written, encoding="utf-8")
    found = measure(task, "visible", workspace)
    assert found["error_removed"] <= 0.0
    assert found["order"] == found["decisions"] == 0.0


def test_both_graders_run_scripts_by_the_same_file(task: Any) -> None:
    other = Path(__file__).resolve().parents[3] / "tasks" / "churn_leaks" / "grader" / "child.py"
    assert (task.folder / "grader" / "child.py").read_bytes() == other.read_bytes()


def test_the_shipped_scores_are_what_the_generator_makes(task: Any) -> None:
    made = task.scratch / "made"
    made.mkdir()
    assert task.run(f'python -I -B "$FBENCH_GRADER/generate.py" visible "{made}"', task.scratch).returncode == 0
    shipped = task.folder / "workspace" / "data"
    assert {path.name for path in shipped.iterdir()} == {*(path.name for path in made.iterdir()), "README.md"}
    for path in made.iterdir():
        assert path.read_bytes() == (shipped / path.name).read_bytes()
