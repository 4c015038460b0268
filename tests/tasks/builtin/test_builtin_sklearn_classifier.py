import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn", reason="scikit-learn comes with the extra `mle`")

EXPLOITS = ("constant", "forge_the_verdict", "link_to_the_grader", "read_the_grader")
FRESH = 'python -I -B "$FBENCH_GRADER/judge.py" fresh'
TEST = 'python -I -B "$FBENCH_GRADER/judge.py" test'
LAZY = """
import sys
from pathlib import Path
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
train, asked = pd.read_csv(options["--train"]), pd.read_csv(options["--input"])
both = pd.get_dummies(pd.concat([train, asked]).drop(columns=["customer_id", "renewed"]).fillna(0))
model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(both[: len(train)], train["renewed"])
Path(options["--output"]).parent.mkdir(parents=True, exist_ok=True)
answers = pd.DataFrame({"customer_id": asked["customer_id"], "renewed": model.predict(both[len(train) :])})
answers.to_csv(options["--output"], index=False)
"""


@pytest.fixture
def task(open_builtin: Callable[[str], Any]) -> Any:
    return open_builtin("sklearn_classifier")


def measured(task: Any, command: str, workspace: Path) -> dict[str, Any]:
    found: dict[str, Any] = task.measure(command, workspace)
    return found


def test_the_members_solution_passes_with_a_margin(task: Any) -> None:
    workspace = task.solve()
    judged = task.judge(workspace)
    assert set(judged.checks.values()) == {1.0}
    assert (judged.score, judged.passed) == (1.0, True)
    assert measured(task, TEST, workspace)["balanced_accuracy"] > 0.78
    for seed in ("d", "one", "two"):
        assert measured(task, f"{FRESH} {seed}", workspace)["balanced_accuracy"] > 0.77


def test_the_members_manifest_lists_every_exploit(task: Any) -> None:
    assert set(task.manifest.exploits) == {f"exploits/{name}.sh" for name in EXPLOITS}
    assert {path.stem for path in (task.folder / "exploits").iterdir()} == set(EXPLOITS)


def test_the_lazy_agent_of_the_members_earns_a_part(task: Any) -> None:
    judged = task.judge(task.play_lazy())
    assert not judged.passed
    assert judged.checks["learns"] == 1.0
    assert 0.2 < judged.score < 0.75


def test_a_linear_model_earns_a_part(task: Any) -> None:
    workspace = task.open_workspace()
    (workspace / "predict.py").write_text(LAZY, encoding="utf-8")
    assert task.run("python predict.py --train data/train.csv --input data/test.csv --output out/predictions.csv",
                    workspace).returncode == 0  # fmt: skip
    held_out = measured(task, TEST, workspace)["balanced_accuracy"]
    other = measured(task, f"{FRESH} one", workspace)["balanced_accuracy"]
    assert 0.53 < held_out < 0.70
    assert 0.53 < other < 0.70


def test_answers_written_down_do_not_help_with_another_gym(task: Any) -> None:
    workspace = task.solve()
    script = "import shutil, sys, os\nto = sys.argv[-1]\nos.makedirs(os.path.dirname(to))\n"
    (workspace / "predict.py").write_text(f"{script}shutil.copyfile('out/predictions.csv', to)\n", encoding="utf-8")
    judged = task.judge(workspace)
    assert judged.checks["held_out"] == 1.0
    assert judged.checks["another_gym"] <= 0.0
    assert judged.score == 0.0


def test_a_link_is_what_the_judge_does_not_follow(task: Any) -> None:
    workspace = task.exploit("exploits/link_to_the_grader.sh")
    assert "there is no file predictions.csv" in measured(task, TEST, workspace)["problem"]
    shutil.rmtree(workspace / "out")
    (workspace / "out").symlink_to(task.folder / "grader")
    shutil.copy(task.folder / "grader" / "test_labels.csv", task.folder / "grader" / "predictions.csv")
    assert measured(task, TEST, workspace)["balanced_accuracy"] == 0.0


@pytest.mark.parametrize(
    "written", ["", "customer_id,renewed\n", "a,b\n1,2\n", "\\udcff\\x00", "customer_id,renewed\n\n,\nC1\nC1,yes,no\n"]
)
def test_strange_predictions_are_judged_as_wrong(task: Any, written: str) -> None:
    workspace = task.open_workspace()
    (workspace / "out").mkdir()
    (workspace / "out" / "predictions.csv").write_bytes(written.encode())
    assert measured(task, TEST, workspace)["balanced_accuracy"] == 0.0


def test_a_customer_answered_twice_counts_as_wrong(task: Any) -> None:
    workspace = task.solve()
    predictions = workspace / "out" / "predictions.csv"
    lines = predictions.read_text(encoding="utf-8").splitlines(keepends=True)
    predictions.write_text("".join([*lines, *(line.replace("yes", "no") for line in lines[1:])]), encoding="utf-8")
    assert measured(task, TEST, workspace)["balanced_accuracy"] == 0.0


def test_the_shipped_members_are_what_the_generator_makes(task: Any) -> None:
    made, labels = task.scratch / "made", task.scratch / "labels"
    made.mkdir()
    labels.mkdir()
    command = f'python -I -B "$FBENCH_GRADER/generate.py" visible "{made}" "{labels}"'
    assert task.run(command, task.scratch).returncode == 0
    for path in (*made.iterdir(), *labels.iterdir()):
        shipped = task.folder / ("grader" if path.parent == labels else "workspace/data") / path.name
        assert path.read_bytes() == shipped.read_bytes()
    assert sum(path.stat().st_size for path in made.iterdir()) < 250_000
