import importlib.util
import itertools
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXPLOITS = ("constant", "forge_the_verdict", "hard_coded", "link_to_the_grader", "read_the_grader")
METRICS = ("ndcg", "mrr", "map", "recall")
JUDGE = 'python -I -B "$FBENCH_GRADER/judge.py"'
# One rule of the prompt broken by each, and the group of cases that tells.
FAULTS = {
    "first_hash": ('passage.rsplit("#", 1)[0]', 'passage.split("#", 1)[0]', "distinct"),
    "last_passage_wins": ("if document not in best or score > best[document]:", "if True:", "distinct"),
    "linear_gain": ("gain + 2**grade - 1)", "gain + grade)", "distinct"),
    "ideal_not_cut": ("reverse=True)[:k]", "reverse=True)", "distinct"),
    "divided_by_r": ("min(len(relevant), k)", "len(relevant)", "distinct"),
    "ideal_of_the_retrieved": (
        "for ties in [tied(run.get(query, ()), relevant)]",
        "for ties in [tied(run[query], relevant)]",
        "corners",
    ),
    "skipped_unsorted": ('"skipped": sorted(query', '"skipped": list(query', "corners"),
    "negative_grades_count": ("if grade > 0}", "if grade}", "corners"),
    "mrr_beyond_the_tie": ("min(depth, size - hits + 1)", "min(size, size - hits + 1)", "tied_mrr"),
    "mrr_with_replacement": ("hits / (size - place + 1)", "hits / size", "tied_mrr"),
    "precision_as_if_independent": ("(hits - 1) / (size - 1) if size > 1 else 0.0", "hits / size", "tied_map"),
    "gain_of_the_whole_tie": ("gain / size *", "gain / max(1, len(inside)) *", "tied_ndcg"),
    "tie_inside_counts_whole": ("hits * len(inside) / size", "hits * (len(inside) > 0)", "tied_recall"),
}


@pytest.fixture
def task(open_builtin: Callable[[str], Any]) -> Any:
    return open_builtin("rag_metrics")


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"rag_metrics_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured(task: Any, group: str, workspace: Path) -> dict[str, Any]:
    found: dict[str, Any] = task.measure(f"{JUDGE} {group} a_seed", workspace)
    return found


def test_the_untouched_metrics_workspace_scores_nothing(task: Any) -> None:
    judged = task.judge(task.open_workspace())
    assert (judged.score, judged.passed) == (0.0, False)


def test_the_metrics_solution_passes_every_check(task: Any) -> None:
    judged = task.judge(task.solve())
    assert set(judged.checks.values()) == {1.0}
    assert (judged.score, judged.passed) == (1.0, True)


def test_metrics_with_ties_in_one_order_earn_a_part(task: Any) -> None:
    judged = task.judge(task.play_lazy())
    assert not judged.passed
    assert 0.25 < judged.score < 0.4
    assert judged.checks["distinct_scores"] == judged.checks["corner_cases"] == 1.0
    assert judged.checks["tied_map"] < 0.1


@pytest.mark.parametrize("name", EXPLOITS)
def test_a_metrics_exploit_gains_nothing(task: Any, name: str) -> None:
    judged = task.judge(task.exploit(f"exploits/{name}.sh"))
    assert (judged.score, judged.passed) == (0.0, False)


def test_the_metrics_manifest_lists_every_exploit(task: Any) -> None:
    assert set(task.manifest.exploits) == {f"exploits/{name}.sh" for name in EXPLOITS}
    assert {path.stem for path in (task.folder / "exploits").iterdir()} == set(EXPLOITS)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_rule_costs_numbers(task: Any, fault: str) -> None:
    workspace = task.open_workspace()
    old, new, group = FAULTS[fault]
    text = (task.folder / "solution" / "rag_eval.py").read_text(encoding="utf-8")
    assert old in text
    (workspace / "rag_eval.py").write_text(text.replace(old, new), encoding="utf-8")
    found = measured(task, group, workspace)
    assert 0.0 <= found["share_right"] < 1.0
    assert found["wrong"]


def test_without_the_descriptor_limit_reading_the_reference_would_pass(task: Any) -> None:
    workspace = task.exploit("exploits/read_the_grader.sh")
    probe = task.folder / "grader" / "probe.py"
    limit = "    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))\n"
    text = probe.read_text(encoding="utf-8")
    assert text.count(limit) == 1
    probe.write_text(text.replace(limit, ""), encoding="utf-8")
    assert measured(task, "distinct", workspace)["share_right"] == 1.0


def test_following_a_link_to_the_reference_would_pass(task: Any) -> None:
    workspace = task.open_workspace()
    shutil.copy(task.folder / "grader" / "reference.py", workspace / "rag_eval.py")
    assert measured(task, "tied_map", workspace)["share_right"] == 1.0
    (workspace / "rag_eval.py").unlink()
    (workspace / "rag_eval.py").symlink_to(task.folder / "grader" / "reference.py")
    assert "there is no file rag_eval.py" in measured(task, "tied_map", workspace)["problem"]


@pytest.mark.parametrize(
    "source",
    [
        "",
        "raise SystemExit",
        "evaluate = 3",
        "def evaluate(qrels, run, ks): return None",
        "def evaluate(qrels, run, ks): return {'queries': [], 'mean': 1, 'skipped': {}}",
        "def evaluate(qrels, run, ks): return {q: {'ndcg@1': float('nan')} for q in ('queries', 'mean', 'skipped')}",
        "def evaluate(qrels, run, ks):\n    x = []\n    x.append(x)\n    return x",
        "def evaluate(qrels, run, ks): return {'queries': {1: True}, 'mean': 'x' * 10**6}",
        "\\x00",
    ],
)
def test_a_strange_module_is_judged_as_wrong(task: Any, source: str) -> None:
    workspace = task.open_workspace()
    (workspace / "rag_eval.py").write_text(source, encoding="utf-8")
    assert measured(task, "distinct", workspace)["share_right"] == 0.0


def test_a_module_that_never_answers_is_judged_in_bounded_time(task: Any) -> None:
    judge = task.folder / "grader" / "judge.py"
    text = judge.read_text(encoding="utf-8")
    assert text.count("PROBE_TIMEOUT_S = 50.0") == 1
    judge.write_text(text.replace("PROBE_TIMEOUT_S = 50.0", "PROBE_TIMEOUT_S = 0.5"), encoding="utf-8")
    workspace = task.open_workspace()
    (workspace / "rag_eval.py").write_text("while True:\n    pass\n", encoding="utf-8")
    assert "did not answer within 0.5 s" in measured(task, "distinct", workspace)["problem"]


def test_a_module_may_begin_with_a_future_import_and_use_the_standard_library(task: Any) -> None:
    workspace = task.solve()
    module = workspace / "rag_eval.py"
    imports = (
        "from __future__ import annotations\nimport dataclasses, fractions, statistics, functools, itertools, typing\n"
    )
    text = module.read_text(encoding="utf-8").replace("import math\n", f"{imports}import math\n", 1)
    module.write_text(text, encoding="utf-8")
    assert measured(task, "distinct", workspace)["share_right"] == 1.0


def mean_over_every_order(case: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The prompt's definition, taken at its word."""
    found = {}
    for query, grades in case["qrels"].items():
        best: dict[str, float] = {}
        for passage, score in case["run"].get(query, []):
            document = passage.rpartition("#")[0] or passage
            best[document] = max(score, best.get(document, score))
        scores = sorted(set(best.values()), reverse=True)
        ties = [[name for name, score in best.items() if score == value] for value in scores]
        orders = [
            [max(0, grades.get(name, 0)) for part in parts for name in part]
            for parts in itertools.product(*(itertools.permutations(tie) for tie in ties))
        ]
        ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)
        if ideal:
            each = [in_one_order(order, ideal, case["ks"]) for order in orders]
            found[query] = {name: math.fsum(one[name] for one in each) / len(each) for name in each[0]}
    return found


def in_one_order(grades: list[int], ideal: list[int], ks: list[int]) -> dict[str, float]:
    def dcg(ranked: list[int]) -> float:
        return sum((2.0**grade - 1) / math.log2(rank + 1) for rank, grade in enumerate(ranked, 1))

    found = {}
    for k in ks:
        hits = [rank for rank, grade in enumerate(grades[:k], 1) if grade > 0]
        found[f"ndcg@{k}"] = dcg(grades[:k]) / dcg(ideal[:k])
        found[f"mrr@{k}"] = 1 / hits[0] if hits else 0.0
        found[f"map@{k}"] = sum(at / rank for at, rank in enumerate(hits, 1)) / min(len(ideal), k)
        found[f"recall@{k}"] = len(hits) / len(ideal)
    return found


def test_reference_and_solution_are_the_mean_over_every_order(task: Any) -> None:
    generate, reference = (load(task.folder / "grader" / f"{name}.py") for name in ("generate", "reference"))
    solution = load(task.folder / "solution" / "rag_eval.py")
    dice = generate.Dice("orders")
    for _ in range(40):
        count = 2 + dice.below(6)
        query = generate.a_query(dice, generate.tied_scores(dice, count), relevant=1 + dice.below(count - 1))
        case = generate.a_case([query], [1, 2, 3, 5, 9])
        right = mean_over_every_order(case)
        for found in (reference.evaluate(**case), solution.evaluate(**case)):
            assert found["queries"] == {name: pytest.approx(values, abs=1e-12) for name, values in right.items()}


def test_the_solution_agrees_with_the_reference_for_any_seed(task: Any) -> None:
    generate, reference = (load(task.folder / "grader" / f"{name}.py") for name in ("generate", "reference"))
    solution = load(task.folder / "solution" / "rag_eval.py")
    for group, seeds in (("distinct", 15), ("corners", 30), ("tied", 15), ("large", 1)):
        for seed in range(seeds):
            for case in generate.draw(group, f"{seed}"):
                right, found = reference.evaluate(**case), solution.evaluate(**case)
                assert found["skipped"] == right["skipped"]
                assert found["mean"] == pytest.approx(right["mean"], abs=1e-11)
                assert found["queries"] == {
                    query: pytest.approx(values, abs=1e-11) for query, values in right["queries"].items()
                }


def test_only_queries_whose_numbers_depend_on_the_order_are_asked_where_ties_count(task: Any) -> None:
    workspace = task.solve()
    asked = {name: measured(task, f"tied_{name}", workspace)["numbers"] for name in METRICS}
    assert min(asked.values()) > 40


def test_the_shipped_examples_are_what_the_generator_makes(task: Any) -> None:
    command = f'python -I -B "$FBENCH_GRADER/generate.py" "{task.scratch}"'
    assert task.run(command, task.scratch).returncode == 0
    made = (task.scratch / "examples.json").read_bytes()
    assert made == (task.folder / "workspace" / "examples.json").read_bytes()
