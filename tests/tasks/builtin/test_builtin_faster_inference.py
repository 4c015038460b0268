import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

EXPLOITS = ("constant", "forge_the_answer", "read_the_grader")
KINDS = ("plain", "gaps", "ties", "priced")
JUDGE = 'python -I -B "$FBENCH_GRADER/judge.py"'


@pytest.fixture
def task(open_builtin: Callable[[str], Any]) -> Any:
    return open_builtin("faster_inference")


def measure(task: Any, workspace: Path, kind: str = "plain") -> dict[str, Any]:
    done = task.run(f"{JUDGE} {kind} a_seed", workspace)
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def append(workspace: Path, text: str) -> None:
    with (workspace / "scorer.py").open("a", encoding="utf-8") as stream:
        stream.write(f"\n\n{text}\n")


def test_the_shipped_scorer_saves_exactly_nothing_and_is_right(task: Any) -> None:
    workspace = task.open_workspace()
    for kind in KINDS:
        found = measure(task, workspace, kind)
        assert (found["saving"], found["wrong"]) == (0.0, 0)
        assert found["cost"] == found["shipped_cost"]


def test_the_scorers_solution_passes_every_check(task: Any) -> None:
    judged = task.judge(task.solve())
    assert (judged.score, judged.passed) == (1.0, True), judged.checks


@pytest.mark.parametrize("name", EXPLOITS)
def test_a_scorer_exploit_ends_at_the_gate(task: Any, name: str) -> None:
    # With a seed of the judge's own: one on its command line is in reach of whoever reads that.
    done = task.run(f"{JUDGE} plain", task.exploit(f"exploits/{name}.sh"))
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["saving"] == 0.0


def test_the_scorers_manifest_lists_every_exploit(task: Any) -> None:
    assert set(task.manifest.exploits) == {f"exploits/{name}.sh" for name in EXPLOITS}
    assert {path.stem for path in (task.folder / "exploits").iterdir()} == set(EXPLOITS)


def test_the_lazy_scorer_earns_a_part(task: Any) -> None:
    turns = yaml.safe_load((task.folder / "lazy.yaml").read_text(encoding="utf-8"))["turns"]
    workspace = task.open_workspace()
    done = task.run(turns[0]["tool_calls"][0]["arguments"]["command"], workspace)
    assert done.returncode == 0, done.stderr.decode()
    judged = task.judge(workspace)
    assert judged.passed is False
    assert 0.1 < judged.score < 0.7


def test_one_wrong_class_makes_a_saving_worthless(task: Any) -> None:
    workspace = task.solve()
    append(
        workspace, "right = classify\n\n\ndef classify(*given):\n    a, *b = right(*given)\n    return [1 - a % 2, *b]"
    )
    found = measure(task, workspace)
    assert (found["saving"], found["wrong"]) == (0.0, 1)


def test_values_bought_again_are_billed_again(task: Any) -> None:
    workspace = task.open_workspace()
    append(
        workspace,
        "once = classify\n\n\ndef classify(forest, ids, fetch):\n"
        "    return once(forest, ids, lambda *asked: (fetch(*asked), fetch(*asked))[1])",
    )
    found = measure(task, workspace)
    assert found["cost"] == 2 * found["shipped_cost"]
    assert found["saving"] == 0.0


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        pytest.param("return []", "another number of classes", id="too_few"),
        pytest.param("fetch('r9999', 'f00')", "a value was asked for that there is not", id="no_such_row"),
        pytest.param("fetch(['r0000'], {})", "a value was asked for that there is not", id="no_such_kind_of_row"),
        pytest.param("while True: fetch('r0000', 'f00')", "30 times", id="without_end"),
        pytest.param("raise SystemExit(0)", "ended without an answer", id="leaves"),
        pytest.param("return 1 / 0", "ZeroDivisionError", id="fails"),
        pytest.param("say([1]); say('{')", "no question and no answer", id="other_words"),
        pytest.param("import os; os.write(ASK, b'x' * 300000)", "ended without an answer", id="a_line_too_long"),
    ],
)
def test_a_scorer_that_does_not_answer_saves_nothing(task: Any, body: str, problem: str) -> None:
    workspace = task.open_workspace()
    text = f"from __main__ import ASK, say\n\n\ndef classify(forest, row_ids, fetch):\n    {body}\n"
    (workspace / "scorer.py").write_text(text, encoding="utf-8")
    found = measure(task, workspace)
    assert found["saving"] == 0.0
    assert problem in found["problem"]


def test_a_scorer_that_is_a_link_is_not_followed(task: Any) -> None:
    workspace = task.solve()
    (workspace / "scorer.py").rename(workspace / "other.py")
    (workspace / "scorer.py").symlink_to("other.py")
    assert "there is no file scorer.py" in measure(task, workspace)["problem"]


def test_the_shipped_forest_is_what_the_generator_makes(task: Any) -> None:
    made = task.scratch / "made"
    made.mkdir()
    assert task.run(f'python -I -B "$FBENCH_GRADER/generate.py" visible "{made}"', task.scratch).returncode == 0
    assert {path.name for path in made.iterdir()} == {"forest.json", "store.json", "row_ids.json"}
    for path in made.iterdir():
        assert path.read_bytes() == (task.folder / "workspace" / path.name).read_bytes()
