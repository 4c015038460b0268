from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("sklearn", reason="scikit-learn comes with the extra `mle`")

EXPLOITS = ("forge_the_verdict", "link_to_the_grader", "name_every_column", "read_the_grader")
JUDGE = 'python -I -B "$FBENCH_GRADER/judge.py"'
LEAKS = ("days_since_app_login", "open_tickets", "invoices_paid", "account_team", "newsletter", "segment_churn")


@pytest.fixture
def task(open_builtin: Callable[[str], Any]) -> Any:
    return open_builtin("churn_leaks")


def measure(task: Any, what: str, workspace: Path) -> dict[str, Any]:
    found: dict[str, Any] = task.measure(f"{JUDGE} {what}", workspace)
    return found


def f1(task: Any, text: str) -> float:
    workspace = task.scratch / "named"
    (workspace / "out").mkdir(parents=True, exist_ok=True)
    (workspace / "out" / "leaks.txt").write_text(text, encoding="utf-8")
    return float(measure(task, "leaks", workspace)["f1"])


def test_the_untouched_churn_workspace_scores_nothing(task: Any) -> None:
    judged = task.judge(task.open_workspace())
    assert (judged.score, judged.passed) == (0.0, False)


def test_the_churn_solution_passes_every_check_with_a_margin(task: Any) -> None:
    workspace = task.solve()
    judged = task.judge(workspace)
    assert (judged.score, judged.passed) == (1.0, True), judged.checks
    assert measure(task, "visible", workspace)["auc"] > 0.81
    assert measure(task, "fresh one", workspace)["auc"] > 0.81


@pytest.mark.parametrize("name", EXPLOITS)
def test_a_churn_exploit_gains_nothing(task: Any, name: str) -> None:
    judged = task.judge(task.exploit(f"exploits/{name}.sh"))
    assert (judged.score, judged.passed) == (0.0, False)


def test_the_churn_manifest_lists_every_exploit(task: Any) -> None:
    assert set(task.manifest.exploits) == {f"exploits/{name}.sh" for name in EXPLOITS}
    assert {path.stem for path in (task.folder / "exploits").iterdir()} == set(EXPLOITS)


def test_the_lazy_churn_agent_earns_a_part(task: Any) -> None:
    turns = yaml.safe_load((task.folder / "lazy.yaml").read_text(encoding="utf-8"))["turns"]
    workspace = task.open_workspace()
    done = task.run(turns[0]["tool_calls"][0]["arguments"]["command"], workspace)
    assert done.returncode == 0, done.stderr.decode()
    judged = task.judge(workspace)
    assert not judged.passed
    assert 0.3 < judged.score < 0.7


def test_keeping_one_leak_costs_auc_on_the_day_of_scoring(task: Any) -> None:
    workspace = task.solve()
    clean = measure(task, "fresh one", workspace)["auc"]
    script = workspace / "score.py"
    text = script.read_text(encoding="utf-8")
    assert text.count(', "segment_churn"]') == 1
    script.write_text(text.replace(', "segment_churn"]', "]"), encoding="utf-8")
    assert measure(task, "fresh one", workspace)["auc"] < clean - 0.02


def test_a_missing_and_a_wrong_leak_cost_the_list(task: Any) -> None:
    right = "\n".join(LEAKS)
    assert f1(task, f"{right}\n\n") == f1(task, right.replace("\n", "\r\n")) == 1.0
    for left_out in LEAKS:
        assert 0.85 < f1(task, "\n".join(leak for leak in LEAKS if leak != left_out)) < 1.0
    assert f1(task, f"{right}\ncancel_page_views_30d") < 1.0
    assert f1(task, "") == f1(task, "account team\nnothing") == 0.0


@pytest.mark.parametrize(
    "written", ["", "customer_id,score\n", "a,b\n1,2\n", "\udcff\x00", "customer_id,score\nC1,nan\n"]
)
def test_strange_scores_earn_nothing(task: Any, written: str) -> None:
    workspace = task.open_workspace()
    (workspace / "out").mkdir()
    (workspace / "out" / "scores.csv").write_bytes(written.encode("utf-8", "surrogateescape"))
    assert measure(task, "visible", workspace)["auc"] == 0.0


def test_a_customer_scored_twice_or_infinitely_has_the_worst_score(task: Any) -> None:
    workspace = task.solve()
    scores = workspace / "out" / "scores.csv"
    header, *lines = scores.read_text(encoding="utf-8").splitlines()
    for spoiled in ([*lines, *lines], [f"{line.split(',')[0]},inf" for line in lines]):
        scores.write_text("\n".join([header, *spoiled]), encoding="utf-8")
        assert measure(task, "visible", workspace)["auc"] == 0.0


def test_the_shipped_churn_tables_are_what_the_generator_makes(task: Any) -> None:
    made, labels = task.scratch / "made", task.scratch / "labels"
    made.mkdir()
    labels.mkdir()
    command = f'python -I -B "$FBENCH_GRADER/generate.py" visible "{made}" "{labels}"'
    assert task.run(command, task.scratch).returncode == 0
    for path in (*made.iterdir(), *labels.iterdir()):
        shipped = task.folder / ("grader" if path.parent == labels else "workspace/data") / path.name
        assert path.read_bytes() == shipped.read_bytes()
