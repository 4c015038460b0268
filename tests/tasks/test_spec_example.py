"""The contract's section 2: every key and alternative it shows is read, and a dump of it loads again."""

import copy
import pickle
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from fbench.tasks.loading import dump_manifest, inspect_task, load_manifest, load_task
from fbench.tasks.manifest import ReferenceOutput, TaskManifest
from fbench.tasks.metric_checks import MetricCheck

WriteTask = Callable[..., Path]


def test_the_contracts_example_loads_whole(spec_task: Path) -> None:
    task = load_task(spec_task)
    manifest = task.manifest
    assert task.folder == spec_task.resolve()
    assert task.prompt == "Write out.txt.\n"
    assert task.task_hash.startswith("sha256:")
    assert manifest.environment.resources.memory == 1024**3
    assert manifest.environment.services["db"].resources.memory == 512 * 1024**2
    assert manifest.environment.services["db"].files == {"services/init.sql": "/docker-entrypoint-initdb.d/init.sql"}
    assert manifest.environment.needs_compose
    assert manifest.budget.cost_usd == Decimal("0.5")
    assert manifest.agent.max_turns == 30
    assert [check.type for check in manifest.grader.checks] == [
        "file_present",
        "command_exit_zero",
        "metric_check",
        "sql_check",
        "reference_output",
        "llm_rubric",
    ]
    metric, reference = manifest.grader.checks[2], manifest.grader.checks[4]
    assert isinstance(metric, MetricCheck)
    assert (metric.threshold, metric.baseline, metric.op) == (0.9, 0.5, ">=")
    assert isinstance(reference, ReferenceOutput)
    assert reference.tolerance.rel == 1e-6


def test_a_dumped_manifest_loads_again_to_an_equal_one(spec_task: Path) -> None:
    manifest = load_task(spec_task).manifest
    assert load_manifest(dump_manifest(manifest)) == manifest


def test_a_manifest_with_overrides_dumps_and_loads_too(spec_task: Path) -> None:
    manifest = load_task(spec_task).manifest
    tighter = manifest.model_copy(update={"budget": manifest.budget.model_copy(update={"cost_usd": Decimal("0.1")})})
    assert load_manifest(dump_manifest(tighter)) == tighter


def test_a_manifest_can_be_copied_deeply_and_pickled(spec_task: Path) -> None:
    manifest = load_task(spec_task).manifest
    assert copy.deepcopy(manifest) == manifest
    assert pickle.loads(pickle.dumps(manifest)) == manifest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  image: fbench/mle:1 ", "  build: environment/ "),
        ("      image: postgres:16-alpine", "      build: services/db/"),
        ("{allow: []}", "{allow: [internet]}"),
        ("  prompt: prompt.md ", '  prompt_text: "Do it: now." '),
        ("  style: native", "  style: json_text"),
        ("sandbox: fresh", "sandbox: same"),
        ('command: "python /grader/score.py"', "path: metrics.json"),
        ('dsn: "postgresql://postgres:bench@db/postgres"', "dsn: sqlite:///out/app.db"),
        ('command: "python main.py"', "path: out/summary.csv"),
        ("format: csv", "format: text"),
        ("format: csv", "format: json"),
        ("judge_model: openai/gpt-4o", "judge_model: null"),
        ('op: ">="', "op: '>'"),
    ],
)
def test_every_alternative_of_the_example_loads(spec_task: Path, spec_example: str, old: str, new: str) -> None:
    for folder in ("environment", "services/db"):
        (spec_task / folder).mkdir()
        (spec_task / folder / "Dockerfile").write_text("FROM scratch\n")
    assert old in spec_example
    (spec_task / "task.yaml").write_text(spec_example.replace(old, new))
    manifest = load_task(spec_task).manifest
    assert load_manifest(dump_manifest(manifest)) == manifest


@pytest.mark.parametrize(
    ("op", "threshold", "expected"),
    [("<=", "3", 3.0), ("<", "3.5", 3.5), ("==", "1", 1.0), ("between", "[0.25, 4]", (0.25, 4.0))],
)
def test_every_op_takes_its_threshold(
    write_task: WriteTask, minimal: str, op: str, threshold: str, expected: object
) -> None:
    check = f'    - {{id: m, type: metric_check, path: m.json, metric: a, op: "{op}", threshold: {threshold}}}\n'
    check_read = load_task(write_task(minimal + check)).manifest.grader.checks[1]
    assert isinstance(check_read, MetricCheck)
    assert check_read.threshold == expected


def test_defaults_are_filled_in_what_describe_shows(write_task: WriteTask) -> None:
    resolved = inspect_task(write_task()).resolved
    assert resolved is not None
    assert resolved["environment"]["image"] == "fbench/mle:1"
    assert resolved["environment"]["resources"] == {"cpus": 1.0, "memory": 1024**3, "pids": 256, "disk": 5 * 1024**3}
    assert resolved["tools"] == {"style": "native", "allow": ["bash", "python", "text_editor", "git_diff"]}
    assert resolved["grader"]["checks"][0]["timeout_s"] == 60.0
    assert set(resolved) == set(TaskManifest.model_fields)


def test_anchors_and_merge_keys_work(write_task: WriteTask) -> None:
    text = """\
id: small
title: A small task
difficulty: easy
domain: software
agent: {prompt: prompt.md}
grader:
  checks:
    - &base {id: one, type: file_present, path: a.txt, weight: 2}
    - {<<: *base, id: two}
"""
    checks = load_task(write_task(text)).manifest.grader.checks
    assert [(check.id, check.weight) for check in checks] == [("one", 2.0), ("two", 2.0)]


def test_an_environment_variable_is_the_text_that_was_written(write_task: WriteTask, minimal: str) -> None:
    text = (
        f"{minimal}environment:\n  env: {{PYTHON: 3.10, MODE: 0755, AT: 1:30, ON: yes, PORT: 5432, DAY: 2024-01-02}}\n"
    )
    manifest = load_task(write_task(text)).manifest
    expected = {"PYTHON": "3.10", "MODE": "0755", "AT": "1:30", "ON": "yes", "PORT": "5432", "DAY": "2024-01-02"}
    assert manifest.environment.env == expected
    assert load_manifest(dump_manifest(manifest)) == manifest


def test_a_byte_order_mark_is_no_part_of_manifest_or_prompt(write_task: WriteTask, minimal: str) -> None:
    folder = write_task(b"\xef\xbb\xbf" + minimal.encode())
    (folder / "prompt.md").write_bytes(b"\xef\xbb\xbfDo it.")
    assert load_task(folder).prompt == "Do it."
