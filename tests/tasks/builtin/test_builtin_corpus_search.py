import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXPLOITS = ("constant", "forge_the_verdict", "hard_coded", "link_to_the_grader", "read_the_grader")
JUDGE = 'python -I -B "$FBENCH_GRADER/judge.py"'
NDCG, RECALL, WORST, CURRENT = (
    "ndcg_of_reference",
    "recall_of_reference",
    "worst_sort_of_reference",
    "queries_without_replaced",
)
# What is left out of the solution, and the measure that falls below its threshold.
FAULTS = {
    "forms": ('ENDINGS = ("ing", "ed", "s")', "ENDINGS = ()", NDCG, 0.975),
    "accents": ('unicodedata.normalize("NFKD", text)', "text", WORST, 0.93),
    "composed_accents_only": ('unicodedata.normalize("NFKD", text)', 'unicodedata.normalize("NFC", text)', WORST, 0.93),
    "names_in_programs": ('r"(?<=[a-z0-9])(?=[A-Z])", " "', '"x^", ""', WORST, 0.93),
    "snake_case": ('r"[a-z0-9]+"', 'r"\\w+"', WORST, 0.93),
    "abbreviations": ('index["aliases"].get(word.lower()) or', "", WORST, 0.93),
    "slips": ("else near(index, term)", "else ()", WORST, 0.93),
    "length": ("LENGTH = 1.5, 0.75", "LENGTH = 1.5, 0.0", NDCG, 0.98),
    "replaced": ('if document["id"] not in out_of_date', "if True", CURRENT, 1.0),
}


@pytest.fixture
def task(open_builtin: Callable[[str], Any]) -> Any:
    return open_builtin("corpus_search")


def measured(task: Any, size: str, workspace: Path) -> dict[str, Any]:
    found: dict[str, Any] = task.measure(f"{JUDGE} {size} a_seed", workspace)
    return found


def test_the_untouched_handbook_workspace_scores_nothing(task: Any) -> None:
    judged = task.judge(task.open_workspace())
    assert (judged.score, judged.passed) == (0.0, False)


def test_the_search_solution_passes_with_a_margin(task: Any) -> None:
    workspace = task.solve()
    judged = task.judge(workspace)
    assert set(judged.checks.values()) == {1.0}
    assert (judged.score, judged.passed) == (1.0, True)
    found = measured(task, "full", workspace)
    assert found[NDCG] > 0.99
    assert found[WORST] > 0.97


def test_a_textbooks_bm25_earns_a_part(task: Any) -> None:
    judged = task.judge(task.play_lazy())
    assert not judged.passed
    assert 0.2 < judged.score < 0.4


@pytest.mark.parametrize("name", EXPLOITS)
def test_a_search_exploit_gains_nothing(task: Any, name: str) -> None:
    judged = task.judge(task.exploit(f"exploits/{name}.sh"))
    assert (judged.score, judged.passed) == (0.0, False)


def test_the_search_manifest_lists_every_exploit(task: Any) -> None:
    assert set(task.manifest.exploits) == {f"exploits/{name}.sh" for name in EXPLOITS}
    assert {path.stem for path in (task.folder / "exploits").iterdir()} == set(EXPLOITS)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_search_leaves_out_costs(task: Any, fault: str) -> None:
    workspace = task.open_workspace()
    old, new, metric, threshold = FAULTS[fault]
    text = (task.folder / "solution" / "search.py").read_text(encoding="utf-8")
    assert text.count(old) == 1
    (workspace / "search.py").write_text(text.replace(old, new), encoding="utf-8")
    found = measured(task, "full", workspace)
    assert found["errors"] == []
    assert 0.0 <= found[metric] < threshold


def test_without_the_descriptor_limit_reading_the_grader_would_rank(task: Any) -> None:
    workspace = task.exploit("exploits/read_the_grader.sh")
    probe = task.folder / "grader" / "probe.py"
    limit = "    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))\n"
    text = probe.read_text(encoding="utf-8")
    assert text.count(limit) == 1
    probe.write_text(text.replace(limit, ""), encoding="utf-8")
    assert measured(task, "small", workspace)[NDCG] == 1.0


def test_a_linked_search_module_is_not_read(task: Any) -> None:
    workspace = task.solve()
    (workspace / "search.py").unlink()
    (workspace / "search.py").symlink_to(task.folder / "solution" / "search.py")
    assert "there is no file search.py" in measured(task, "small", workspace)["problem"]


@pytest.mark.parametrize(
    "source",
    [
        "",
        "raise SystemExit",
        "def build(documents, aliases): return 1\ndef search(index, query, count): return {'doc-0001': 1}",
        "def build(documents, aliases): return 1\ndef search(index, query, count): return [None, 1, [], 'x' * 10**6]",
        "def build(documents, aliases): return 1\ndef search(index, query, count): return ['doc-0001'] * 10**4",
    ],
)
def test_strange_rankings_are_judged_as_wrong(task: Any, source: str) -> None:
    workspace = task.open_workspace()
    (workspace / "search.py").write_text(source, encoding="utf-8")
    found = measured(task, "small", workspace)
    assert found[NDCG] < 0.1
    assert found[WORST] < 0.1


def test_a_search_that_never_answers_is_judged_in_bounded_time(task: Any) -> None:
    judge = task.folder / "grader" / "judge.py"
    text = judge.read_text(encoding="utf-8")
    assert text.count("PROBE_TIMEOUT_S = 50.0") == 1
    judge.write_text(text.replace("PROBE_TIMEOUT_S = 50.0", "PROBE_TIMEOUT_S = 0.5"), encoding="utf-8")
    workspace = task.open_workspace()
    (workspace / "search.py").write_text("while True:\n    pass\n", encoding="utf-8")
    assert "did not answer within 0.5 s" in measured(task, "small", workspace)["problem"]


def test_another_seed_is_a_handbook_of_other_words(task: Any) -> None:
    workspace = task.open_workspace()
    shutil.copy(task.folder / "solution" / "search.py", workspace)
    first, again = (task.run(f"{JUDGE} small {seed}", workspace).stdout for seed in ("a_seed", "a_seed"))
    assert first == again
    other = json.loads(task.run(f"{JUDGE} small b_seed", workspace).stdout)
    assert other["ndcg"] != json.loads(first)["ndcg"]


def test_the_shipped_handbook_is_what_the_generator_makes(task: Any) -> None:
    made = task.scratch / "made"
    made.mkdir()
    assert task.run(f'python -I -B "$FBENCH_GRADER/generate.py" "{made}"', task.scratch).returncode == 0
    shipped = task.folder / "workspace" / "data"
    assert {path.name: path.read_bytes() for path in made.iterdir()} == {
        path.name: path.read_bytes() for path in shipped.iterdir()
    }
    assert sum(path.stat().st_size for path in made.iterdir()) < 500_000
