import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("sklearn", reason="scikit-learn comes with the extra `mle`")

EXPLOITS = ("forge_the_verdict", "link_to_the_grader", "one_rate", "read_the_grader")
JUDGE = 'python -I -B "$FBENCH_GRADER/judge.py"'
ONE_THREAD = "export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1; "  # as the manifest and the judge have it
RUN = f"{ONE_THREAD}python predict.py --train data/train.csv --input data/input.csv --output out/expected.csv"


@pytest.fixture
def task(open_builtin: Callable[[str], Any]) -> Any:
    return open_builtin("claim_counts")


def measure(task: Any, what: str, workspace: Path) -> dict[str, Any]:
    done = task.run(f"{JUDGE} {what}", workspace)
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure_text(task: Any, text: str) -> dict[str, Any]:
    workspace = task.scratch / "written"
    (workspace / "out").mkdir(parents=True, exist_ok=True)
    (workspace / "out" / "expected.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    return measure(task, "visible", workspace)


def true_lines(task: Any) -> list[list[str]]:
    text = (task.folder / "grader" / "input_claims.csv").read_text(encoding="utf-8")
    return [line.split(",") for line in text.splitlines()[1:]]


def as_csv(lines: list[tuple[str, object]]) -> str:
    return "policy_id,expected_claims\n" + "".join(f"{policy},{value}\n" for policy, value in lines)


def test_the_untouched_fleet_scores_nothing(task: Any) -> None:
    judged = task.judge(task.open_workspace())
    assert (judged.score, judged.passed) == (0.0, False)


def test_the_fleets_solution_passes_every_check_with_a_margin(task: Any) -> None:
    workspace = task.open_workspace()
    done = task.run(f'{ONE_THREAD}bash "$FBENCH_SOLUTION/solve.sh"', workspace)
    assert done.returncode == 0, done.stderr.decode()
    judged = task.judge(workspace)
    assert (judged.score, judged.passed) == (1.0, True), judged.checks
    found = measure(task, "fresh one", workspace)
    assert found["skill"] > 0.70
    assert found["level"] > 0.85


@pytest.mark.parametrize("name", EXPLOITS)
def test_a_fleet_exploit_gains_nothing(task: Any, name: str) -> None:
    judged = task.judge(task.exploit(f"exploits/{name}.sh"))
    assert (judged.score, judged.passed) == (0.0, False)


def test_the_fleets_manifest_lists_every_exploit(task: Any) -> None:
    assert set(task.manifest.exploits) == {f"exploits/{name}.sh" for name in EXPLOITS}
    assert {path.stem for path in (task.folder / "exploits").iterdir()} == set(EXPLOITS)


def test_the_lazy_fleet_agent_earns_a_part(task: Any) -> None:
    turns = yaml.safe_load((task.folder / "lazy.yaml").read_text(encoding="utf-8"))["turns"]
    workspace = task.open_workspace()
    done = task.run(ONE_THREAD + turns[0]["tool_calls"][0]["arguments"]["command"], workspace)
    assert done.returncode == 0, done.stderr.decode()
    judged = task.judge(workspace)
    assert judged.passed is False
    assert 0.2 < judged.score < 0.7


@pytest.mark.parametrize(
    ("old", "new", "most"),
    [
        pytest.param('UNKNOWN_BEFORE = "file_notes"', 'UNKNOWN_BEFORE = "policy_id"', 0.0, id="late_notes"),
        pytest.param("rate * asked[DAYS]", "rate * train[DAYS].mean()", 0.5, id="counts_without_days"),
    ],
)
def test_a_trap_of_the_fleet_costs_its_price(task: Any, old: str, new: str, most: float) -> None:
    workspace = task.open_workspace()
    text = (task.folder / "solution" / "predict.py").read_text(encoding="utf-8")
    assert text.count(old) == 1
    text = text.replace(old, new).replace("columns=[ID, DAYS", "errors='ignore', columns=[ID, DAYS")
    (workspace / "predict.py").write_text(text, encoding="utf-8")
    assert task.run(RUN, workspace).returncode == 0
    assert measure(task, "visible", workspace)["d2"] < most


def test_the_true_expectations_have_all_the_skill_and_the_best_rate_none(task: Any) -> None:
    lines = true_lines(task)
    found = measure_text(task, as_csv([(policy, expected) for policy, _, _, expected in lines]))
    assert found["skill"] == pytest.approx(1.0)
    assert found["level"] == pytest.approx(1.0)
    mean = [(int(claims), float(expected)) for _, _, claims, expected in lines]
    by_hand = sum(
        2 * ((y * math.log(y / mu) if y else 0) - y + mu) for y, mu in ((y, max(mu, 1e-6)) for y, mu in mean)
    ) / len(mean)
    assert found["deviance"] == pytest.approx(by_hand)
    rate = sum(int(claims) for _, _, claims, _ in lines) / sum(int(days) for _, days, _, _ in lines)
    found = measure_text(task, as_csv([(policy, rate * int(days)) for policy, days, _, _ in lines]))
    assert found["skill"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("change", ["missing", "twice", "nan", "negative", "infinite", "text", "empty", "bytes"])
def test_expectations_that_cannot_be_used_count_nothing(task: Any, change: str) -> None:
    lines: list[tuple[str, object]] = [(policy, expected) for policy, _, _, expected in true_lines(task)]
    first = lines[0][0]
    changes: dict[str, list[tuple[str, object]]] = {
        "missing": lines[1:],
        "twice": [*lines, lines[0]],
        "nan": [(first, "nan"), *lines[1:]],
        "negative": [(first, -0.1), *lines[1:]],
        "infinite": [(first, "inf"), *lines[1:]],
        "text": [(first, "one"), *lines[1:]],
        "empty": [],
        "bytes": [("\udcff\x00", 1)],
    }
    found = measure_text(task, as_csv(changes[change]))
    assert (found["d2"], found["skill"], found["level"]) == (0.0, 0.0, 0.0)
    assert found["problem"]


def test_the_shipped_fleet_is_what_the_generator_makes(task: Any) -> None:
    made, answers = task.scratch / "made", task.scratch / "answers"
    made.mkdir()
    answers.mkdir()
    command = f'python -I -B "$FBENCH_GRADER/generate.py" visible "{made}" "{answers}"'
    assert task.run(command, task.scratch).returncode == 0
    for path in (*made.iterdir(), *answers.iterdir()):
        shipped = task.folder / ("grader" if path.parent == answers else "workspace/data") / path.name
        assert path.read_bytes() == shipped.read_bytes()
