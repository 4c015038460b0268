"""Whatever task.yaml holds, reading it ends in a task or in a ManifestError, and the two readers agree."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fbench.tasks.diagnosis import diagnose
from fbench.tasks.errors import ManifestError, Problem
from fbench.tasks.loading import dump_manifest, load_manifest, load_task
from fbench.tasks.manifest import TaskManifest
from fbench.tasks.yaml_lines import read_yaml

KEYS = st.sampled_from(
    """id title difficulty domain tags environment model agent tools budget grader solution exploits image build env
    workdir resources memory cpus network allow services db command healthcheck files setup modules prompt prompt_text
    max_turns turns style tokens wall_time_s cost_usd checks pass_threshold type path metric op threshold baseline
    predictions labels medals reference rubric weight gating timeout_s expect tolerance titel""".split()  # noqa: SIM905 - a list of words
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.dates(), st.binary(max_size=3),
    st.integers(min_value=-(10**290), max_value=10**290),
    st.sampled_from(["file_present", "metric_check", "between", ">=", "a/b", "../x", "easy", "1g", "6e4", "prompt.md"]),
)  # fmt: skip
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=5),
        st.dictionaries(SCALARS, inner, max_size=2),
    ),
    max_leaves=25,
)
VALID: dict[str, Any] = {
    "id": "small",
    "title": "t",
    "difficulty": "easy",
    "domain": "d",
    "tags": ["a"],
    "environment": {
        "env": {"A": "b"},
        "resources": {"memory": "1g", "cpus": 1.5},
        "network": {"allow": ["internet"]},
        "services": {"db": {"image": "x", "files": {"f": "/f"}, "healthcheck": {"command": "c"}}},
        "setup": ["true"],
        "modules": ["a.b"],
    },
    "model": {"temperature": 0.5, "seed": 3},
    "agent": {"prompt_text": "p", "turns": ["more"]},
    "tools": {"style": "json_text", "allow": ["bash"]},
    "budget": {"tokens": 5, "wall_time_s": 3, "cost_usd": 0.5},
    "grader": {
        "checks": [
            {"id": "a", "type": "file_present", "path": "p", "gating": True},
            {"id": "b", "type": "metric_check", "path": "p", "metric": "m", "op": "between", "threshold": [1, 2]},
            {"id": "c", "type": "sql_check", "dsn": "sqlite:///x", "query": "q", "expect": [[1, "a", None, 1.5]]},
            {"id": "d", "type": "reference_output", "command": "c", "reference": "grader/r", "tolerance": {"rel": 0.1}},
            {
                "id": "e",
                "type": "metric_check",
                "command": "p",
                "metric": "m",
                "op": ">",
                "threshold": 1,
                "baseline": 0,
            },
            {
                "id": "f",
                "type": "metric_check",
                "predictions": "p",
                "labels": "grader/l.csv",
                "class_columns": {"a": "x", "b": "y"},
                "metric": "log_loss",
                "op": "<",
                "threshold": 1,
                "medals": {"bronze": 3, "silver": 2, "gold": 1.5},
            },
        ]
    },
}
FAST = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def paths_of(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path] * bool(path) + [found for key, value in inner for found in paths_of(value, (*path, key))]


def spoilt(path: tuple[Any, ...], value: Any, *, remove: bool) -> Any:
    """The valid manifest with one value replaced or removed."""
    tree: Any = yaml.safe_load(yaml.safe_dump(VALID))
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    if remove:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return tree


def read_both_ways(text: str) -> tuple[bool, bool]:
    """Whether the walk finds no fault, and whether pydantic finds none."""
    document = read_yaml(text)
    if document.findings:  # the YAML itself is at fault, which pydantic never sees
        return False, False
    try:
        TaskManifest.model_validate(document.data)
    except ValidationError:
        return not diagnose(document).findings, False
    return not diagnose(document).findings, True


def load_text(text: bytes) -> None:
    """Load a task with this task.yaml; nothing but a ManifestError may come out."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "small")
        (folder / "workspace").mkdir(parents=True)
        (folder / "task.yaml").write_bytes(text)
        problems: tuple[Problem, ...] = ()
        try:
            load_task(folder)
        except ManifestError as error:
            problems = error.problems
        assert problems, "no random document is a task"
        assert all(problem.message and str(problem).startswith(str(folder)) for problem in problems)


def test_the_valid_manifest_is_valid() -> None:
    assert read_both_ways(yaml.safe_dump(VALID)) == (True, True)


@FAST
@given(TREES)
def test_a_random_document_raises_nothing_but_a_manifest_error(tree: Any) -> None:
    load_text(yaml.safe_dump(tree, allow_unicode=True).encode())


@FAST
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_random_bytes_raise_nothing_but_a_manifest_error(text: bytes) -> None:
    load_text(text)


@FAST
@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@`,?#<= \n\t0123456789.~", max_size=80))
def test_random_yaml_punctuation_raises_nothing_but_a_manifest_error(text: str) -> None:
    load_text(text.encode())


@settings(parent=FAST, max_examples=400)
@given(st.sampled_from(paths_of(VALID)), TREES, st.booleans())
def test_the_walk_finds_a_fault_exactly_when_pydantic_does(path: tuple[Any, ...], value: Any, remove: bool) -> None:
    walked, validated = read_both_ways(yaml.safe_dump(spoilt(path, value, remove=remove), allow_unicode=True))
    assert walked == validated


LAYOUT = st.text(alphabet=" \n\t\r\x85\u2028\ufeffab:#-|>'\"\\%&*!@", max_size=40)


@FAST
@given(
    st.one_of(st.text(max_size=40), LAYOUT),
    st.floats(allow_nan=False, allow_infinity=False),
    st.one_of(st.text(max_size=10), LAYOUT),
)
def test_texts_and_numbers_survive_a_dump(text: str, number: float, cell: str) -> None:
    tree = spoilt(("agent", "turns"), ["more", f"x{text}"], remove=False)
    tree["description"] = text
    tree["grader"]["checks"][2]["expect"] = [[cell, number, True, None, -1]]
    manifest = TaskManifest.model_validate(tree)
    assert load_manifest(dump_manifest(manifest)) == manifest


@pytest.mark.parametrize("path", paths_of(VALID), ids=str)
def test_every_value_of_a_manifest_can_be_wrong(path: tuple[Any, ...]) -> None:
    """An object in place of any value is a fault that both readers see, at a line of the file."""
    text = yaml.safe_dump(spoilt(path, {"nonsense": [{"deep": None}]}, remove=False))
    walked, validated = read_both_ways(text)
    assert walked == validated
    if path[:5] != ("grader", "checks", 2, "expect", 0) or len(path) == 5:  # a cell may be a JSON object
        assert not walked
