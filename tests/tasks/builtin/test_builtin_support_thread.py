import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fbench.engine import Engine, RunOptions

EXPLOITS = ("edit_the_tests", "forge_the_verdict", "link_to_the_grader", "read_the_grader")
GROUPS = ("last_batch", "shares", "epochs", "ensembles", "resumed", "old_states", "nothing_broken")
# A wrong turn taken at one of the messages, and the check that tells.
FAULTS = {
    "drop_last_forgotten": ("if self.drop_last and", "if False and", "nothing_broken"),
    "all_extra_ones_to_the_last": (" + min(self.worker, extra)", "", "shares"),
    "every_nth_position": (
        "return self.order()[start : start + length + (self.worker < extra)]",
        "return self.order()[self.worker :: self.workers]",
        "nothing_broken",
    ),
    "the_first_epoch_changes": ("self.seed if self.epoch == 0 else ", "", "nothing_broken"),
    "epoch_added_to_the_seed": ('f"seed {self.seed!r}, epoch {self.epoch}"', "self.seed + self.epoch", "ensembles"),
    "seed_times_a_thousand": ('f"seed {self.seed!r}, epoch {self.epoch}"', "self.seed * 2 + self.epoch", "ensembles"),
    "epoch_alone": ('f"seed {self.seed!r}, epoch {self.epoch}"', "str(self.epoch)", "ensembles"),
    "one_generator_for_all": ("random.Random(key).shuffle", "random.shuffle", "epochs"),
    "batch_counted_too_late": (
        "            self.taken += 1\n            yield batch\n",
        "            yield batch\n            self.taken += 1\n",
        "resumed",
    ),
    "epoch_not_stored": ('"epoch": self.epoch, ', "", "resumed"),
    "old_states_refused": ('state.get("epoch", 0)', 'state["epoch"]', "old_states"),
    "state_renamed": ('"taken": self.taken}', '"done": self.taken, "taken": -1}', "nothing_broken"),
}


@pytest.fixture
def task(open_builtin: Callable[[str], Any]) -> Any:
    return open_builtin("support_thread")


def measured(task: Any, group: str, workspace: Path) -> dict[str, Any]:
    found: dict[str, Any] = task.measure(f'python -I -B "$FBENCH_GRADER/judge.py" {group} a_seed', workspace)
    return found


def test_the_untouched_feed_scores_nothing_and_breaks_nothing(task: Any) -> None:
    judged = task.judge(task.open_workspace())
    assert (judged.score, judged.passed) == (0.0, False)
    assert {name for name, score in judged.checks.items() if score == 1.0} == {"nothing_broken"}


def test_the_feeds_solution_passes_every_check(task: Any) -> None:
    judged = task.judge(task.solve())
    assert set(judged.checks.values()) == {1.0}
    assert (judged.score, judged.passed) == (1.0, True)


def test_obvious_fixes_earn_a_part(task: Any) -> None:
    judged = task.judge(task.play_lazy())
    assert not judged.passed
    assert 0.4 < judged.score < 0.6
    assert judged.checks["nothing_broken"] == judged.checks["ensembles"] == judged.checks["old_states"] == 0.0


@pytest.mark.parametrize("name", EXPLOITS)
def test_a_feed_exploit_gains_nothing(task: Any, name: str) -> None:
    judged = task.judge(task.exploit(f"exploits/{name}.sh"))
    assert (judged.score, judged.passed) == (0.0, False)


def test_the_feeds_manifest_lists_every_exploit(task: Any) -> None:
    assert set(task.manifest.exploits) == {f"exploits/{name}.sh" for name in EXPLOITS}
    assert {path.stem for path in (task.folder / "exploits").iterdir()} == set(EXPLOITS)


def test_without_the_descriptor_limit_what_the_grader_knows_would_open_the_gate(task: Any) -> None:
    workspace = task.exploit("exploits/read_the_grader.sh")
    probe = task.folder / "grader" / "probe.py"
    limit = "    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))\n"
    text = probe.read_text(encoding="utf-8")
    assert text.count(limit) == 1
    probe.write_text(text.replace(limit, ""), encoding="utf-8")
    assert measured(task, "last_batch", workspace)["share_right"] == 1.0


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_turn_costs_its_check(task: Any, fault: str) -> None:
    workspace = task.open_workspace()
    old, new, group = FAULTS[fault]
    text = (task.folder / "solution" / "feed.py").read_text(encoding="utf-8")
    assert text.count(old) == 1
    (workspace / "feed.py").write_text(text.replace(old, new), encoding="utf-8")
    found = measured(task, group, workspace)
    assert "problem" not in found
    assert found["share_right"] < 1.0


@pytest.mark.parametrize(
    "source", ["", "raise SystemExit", "class Feed:\n    def __init__(self, *a, **k): pass", "\\x00"]
)
def test_a_strange_feed_is_judged_as_wrong(task: Any, source: str) -> None:
    workspace = task.open_workspace()
    (workspace / "feed.py").write_text(source, encoding="utf-8")
    assert measured(task, "last_batch", workspace)["share_right"] == 0.0


def test_the_solution_is_right_for_any_seed(task: Any) -> None:
    def load(path: Path) -> Any:
        spec = importlib.util.spec_from_file_location(f"support_thread_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    cases, feed = load(task.folder / "grader" / "cases.py"), load(task.folder / "solution" / "feed.py")
    probe = (task.folder / "grader" / "probe.py").read_text(encoding="utf-8").rpartition("main()")[0]
    names: dict[str, Any] = {}
    exec(compile(probe, "probe.py", "exec"), names)
    assert set(cases.GROUPS) == set(GROUPS)
    for seed in range(15):
        for group in GROUPS:
            for steps, is_right in cases.draw(group, f"{seed}"):
                assert is_right(names["play"](feed, steps)), (seed, group, steps)


@pytest.mark.parametrize("style", ["native", "json_text"])
@pytest.mark.parametrize(("model", "score"), [("fake/nop", 0.0), ("fake/oracle", 1.0), ("lazy", 8 / 15)])
async def test_fakes_hear_every_message_and_are_told_apart(
    task: Any, tmp_path: Path, style: str, model: str, score: float
) -> None:
    manifest = task.folder / "task.yaml"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace("  style: native\n", f"  style: {style}\n"), encoding="utf-8")
    name = f"fake/script:{task.folder / 'lazy.yaml'}" if model == "lazy" else model
    options = {"task": task.folder, "model": name, "sandbox": "local", "runs_dir": tmp_path / "runs"}
    async with Engine(environ={}) as engine:
        result = await engine.run(RunOptions.model_validate(options))
    assert (result.status, result.end_reason) == ("completed", "submitted")
    assert result.score == pytest.approx(score)
    lines = (tmp_path / "runs" / result.run_id / "transcript.jsonl").read_text(encoding="utf-8").splitlines()
    said = [line["content"] for line in map(json.loads, lines) if line.get("role") == "user"]
    assert [text for text in said if text in task.manifest.agent.turns] == list(task.manifest.agent.turns)
