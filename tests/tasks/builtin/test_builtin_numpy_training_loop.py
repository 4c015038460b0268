from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("numpy", reason="NumPy comes with the extra `mle`")

EXPLOITS = ("forge_the_answers", "memorise_the_rows", "read_the_grader")
PARTS = ("loss", "layer_norm", "relu", "optimizer", "batches", "snapshot")
JUDGE = 'python -I -B "$FBENCH_GRADER/judge.py"'
# Repairs that are none: what they leave wrong shows in the part's own questions.
HALF_REPAIRS = {
    "weights_of_the_mean": ("loss", "losses.py", "weights[labels][:, None] * (", "weights[labels].mean() * ("),
    "divided_by_rows": ("loss", "losses.py", "- targets) / total", "- targets) / count"),
    "variance_without_its_slope": ("layer_norm", "layers.py", "(centred - along) / self", "centred / self"),
    "copy_after_the_change": ("relu", "layers.py", "np.maximum(x, 0.0)", "np.maximum(x, 0.0, out=x).copy()"),
    "decay_of_everything": ("optimizer", "optim.py", "if array.ndim > 1:", "if True:"),
    "no_decay": ("optimizer", "optim.py", "if array.ndim > 1:", "if gradient is None:"),
    "an_empty_last_batch": ("batches", "data.py", "range(0, len(x), size)", "range(0, len(x) + 1, size)"),
    "a_shallow_snapshot": ("snapshot", "network.py", "name: array.copy()", "name: array[...]"),
}


@pytest.fixture
def task(open_builtin: Callable[[str], Any]) -> Any:
    return open_builtin("numpy_training_loop")


def measure(task: Any, group: str, workspace: Path) -> dict[str, Any]:
    found: dict[str, Any] = task.measure(f"{JUDGE} {group} a_seed", workspace)
    return found


def apply_fixes(task: Any, workspace: Path, names: tuple[str, ...]) -> None:
    command = f'cd "{workspace}" && python -I -c "import sys; sys.path.insert(0, \'$FBENCH_SOLUTION\'); import fixes; '
    done = task.run(f'{command}fixes.apply({names!r})"', workspace)
    assert done.returncode == 0, done.stderr.decode()


def test_the_untouched_loop_has_nothing_right(task: Any) -> None:
    found = measure(task, "any", task.open_workspace())
    assert found["right"] == 0.0
    assert set(found["wrong"]) == set(PARTS)


def test_the_loops_solution_passes_every_check(task: Any) -> None:
    judged = task.judge(task.solve())
    assert (judged.score, judged.passed) == (1.0, True), judged.checks


@pytest.mark.parametrize("left_out", PARTS)
def test_a_fault_left_in_the_loop_costs_its_own_part_and_no_other(task: Any, left_out: str) -> None:
    workspace = task.open_workspace()
    apply_fixes(task, workspace, tuple(part for part in PARTS if part != left_out))
    assert set(measure(task, "any", workspace)["wrong"]) == {left_out}


@pytest.mark.parametrize("half", HALF_REPAIRS)
def test_half_a_repair_of_the_loop_is_wrong(task: Any, half: str) -> None:
    workspace = task.open_workspace()
    apply_fixes(task, workspace, PARTS)
    part, name, old, new = HALF_REPAIRS[half]
    path = workspace / "tinynet" / name
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    assert measure(task, part, workspace)["right"] == 0.0


@pytest.mark.parametrize("name", EXPLOITS)
def test_a_loop_exploit_ends_at_the_gate(task: Any, name: str) -> None:
    workspace = task.exploit(f"exploits/{name}.sh")
    assert measure(task, "any", workspace)["right"] == 0.0


def test_the_loops_manifest_lists_every_exploit_and_gates_on_a_part(task: Any) -> None:
    assert set(task.manifest.exploits) == {f"exploits/{name}.sh" for name in EXPLOITS}
    assert {path.stem for path in (task.folder / "exploits").iterdir()} == set(EXPLOITS)
    (gate,) = [check for check in task.manifest.grader.checks if check.gating]
    assert 0.0 < gate.threshold <= 1 / len(PARTS)


def test_the_lazy_agent_of_the_loop_repairs_two_parts(task: Any) -> None:
    turns = yaml.safe_load((task.folder / "lazy.yaml").read_text(encoding="utf-8"))["turns"]
    workspace = task.open_workspace()
    assert task.run(turns[0]["tool_calls"][0]["arguments"]["command"], workspace).returncode == 0
    judged = task.judge(workspace)
    assert not judged.passed
    assert judged.checks["optimizer"] == judged.checks["batches"] == 1.0
    assert 0.3 < judged.score < 0.5


def test_a_package_that_is_a_link_is_not_read(task: Any) -> None:
    workspace = task.solve()
    (workspace / "tinynet").rename(workspace / "elsewhere")
    (workspace / "tinynet").symlink_to("elsewhere")
    assert "is a link" in measure(task, "loss", workspace)["problem"]


def test_the_shipped_rows_are_what_the_generator_makes(task: Any) -> None:
    made = task.scratch / "train.csv"
    assert task.run(f'python -I -B "$FBENCH_GRADER/generate.py" visible "{made}"', task.scratch).returncode == 0
    assert made.read_bytes() == (task.folder / "workspace" / "data" / "train.csv").read_bytes()
