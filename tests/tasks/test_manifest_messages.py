"""What a user reads: every fault of a manifest with file, line, key and advice, all at once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fbench.tasks.errors import ManifestError
from fbench.tasks.loading import inspect_task, load_task

WriteTask = Callable[..., Path]

CHECKS_LINE = 8


def messages(folder: Path) -> list[str]:
    """The problems as printed, without the folder's name."""
    with pytest.raises(ManifestError) as caught:
        load_task(folder)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.problems)
    return [line.removeprefix(f"{folder}/") for line in lines]


def test_every_problem_is_told_at_once_with_file_line_and_key(write_task: WriteTask) -> None:
    text = """\
id: other
titel: A small task
title: 2024
difficulty: esay
domain: "Two words"
environment:
  network: {allow: [github.com]}
  modules: pandas
  image: a
  build: b/
agent:
  promt: prompt.md
  max_turns: -3
budget:
  tokens: 6e4
  wall_time_s: "600"
  cost_usd: -1
grader:
  checks:
    - {id: a, type: metric_check, command: x, metric: m, op: ">=", treshold: 0.9}
    - {id: A, type: file_presnt, path: x}
    - {id: b, type: reference_output, path: out, reference: grader/missing.txt, weight: .nan}
solution: solution/solve.sh
exploits: ["exploits/*.sh"]
"""
    assert messages(write_task(text)) == [
        "task.yaml:1: id: 'other' is not the name of the task's folder, which is 'small'; rename one of the two",
        (
            "task.yaml:2: titel: unknown key; did you mean 'title'? valid keys here: id, title, "
            "description, difficulty, "
            "domain, tags, environment, model, agent, tools, budget, grader, solution, exploits"
        ),
        'task.yaml:3: title: must be a text, found the number 2024; put it in quotes: "2024"',
        "task.yaml:4: difficulty: 'esay' is not allowed; did you mean 'easy'? allowed: easy, medium, hard",
        "task.yaml:5: domain: 'Two words' must be lower-case letters, digits, '_' and '-'",
        (
            "task.yaml:7: environment.network.allow[0]: 'github.com' cannot be allowed: [internet] opens the network, "
            "[] keeps it to the services by name"
        ),
        "task.yaml:8: environment.modules: must be a list, found the text 'pandas'; write [pandas]",
        "task.yaml:10: environment.build: `image` and `build` exclude each other",
        "task.yaml:10: environment.build: 'b/' is no folder of the task; make it, with a Dockerfile in it",
        (
            "task.yaml:12: agent.promt: unknown key; did you mean 'prompt'? valid keys here: prompt, prompt_text, "
            "system_text, max_turns, turns"
        ),
        "task.yaml:13: agent.max_turns: -3 is out of range: must be above 0",
        (
            "task.yaml:15: budget.tokens: must be a whole number, found the text '6e4'; write 60000 "
            "(YAML reads an exponent "
            "only after a decimal point)"
        ),
        "task.yaml:16: budget.wall_time_s: must be a number, found the text '600'; write 600, without quotes",
        "task.yaml:17: budget.cost_usd: -1 is out of range: must be at least 0",
        (
            "task.yaml:20: grader.checks[0].treshold: unknown key; did you mean 'threshold'? valid keys "
            "here: id, weight, "
            "gating, timeout_s, type, command, path, predictions, labels, metric, id_column, label_column, "
            "prediction_column, positive_label, average, class_columns, group_column, k, op, threshold, baseline, "
            "medals"
        ),
        (
            "task.yaml:21: grader.checks[1].type: 'file_presnt' is not allowed; did you mean 'file_present'? allowed: "
            "file_present, command_exit_zero, pytest, metric_check, sql_check, reference_output, llm_rubric"
        ),
        "task.yaml:21: grader.checks[1].id: two checks have the id 'A' (case does not tell ids apart)",
        "task.yaml:22: grader.checks[2].weight: must be a finite number, found the number .nan",
        "task.yaml:22: grader.checks[2].reference: 'grader/missing.txt' does not exist; add it",
        "task.yaml:23: solution: 'solution/solve.sh' does not exist; add it",
        "task.yaml:24: exploits[0]: 'exploits/*.sh' matches no file of the task; add the files or remove the line",
    ]


def test_a_manifest_error_carries_each_problem_as_data(write_task: WriteTask, minimal: str) -> None:
    folder = write_task(minimal.replace("type: file_present, path", "type: file_present, pth"))
    with pytest.raises(ManifestError) as caught:
        load_task(folder)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.key) == (str(folder / "task.yaml"), 9, "grader.checks[0].pth")
    assert problem.message == "unknown key"
    assert problem.hint.startswith("did you mean 'path'?")
    assert caught.value.exit_code == 2


CASES = [
    # text traps
    ("title: yes", 'title: must be a text, found the boolean true (as YAML reads yes); put it in quotes: "yes"'),
    ("title: 1.10", 'title: must be a text, found the number 1.10; put it in quotes: "1.10"'),
    (
        "title: 2024-01-02",
        'title: must be a text, found a date (as YAML reads 2024-01-02); put it in quotes: "2024-01-02"',
    ),
    ("title:", "title: must be a text, found nothing; write a text, or leave the key out"),
    ('title: " "', "title: must not be blank"),
    ("title: [a]", "title: must be a text, found a list"),
    (
        "title: 1:30",
        (
            "title: YAML reads 1:30 as the number 90 (base 60); in quotes it is a text; a number is written "
            "without ':' and leading zeros"
        ),
    ),
    ("tags: [a, 5]", 'tags[1]: must be a text, found the number 5; put it in quotes: "5"'),
    # numbers
    ("budget: {tokens: 60000.0}", "budget.tokens: must be a whole number, found the number 60000.0; write 60000"),
    ("budget: {tokens: 6.0e+4}", "budget.tokens: must be a whole number, found the number 6.0e+4; write 60000"),
    ("budget: {tokens: true}", "budget.tokens: must be a whole number, found the boolean true"),
    (
        "budget: {tokens: '60,000'}",
        ("budget.tokens: must be a whole number, found the text '60,000'; write 60000, without quotes"),
    ),
    (
        "budget: {wall_time_s: 10m}",
        ("budget.wall_time_s: must be a number, found the text '10m'; write the plain number, without a unit"),
    ),
    (
        "budget: {wall_time_s: 10:00}",
        (
            "budget.wall_time_s: YAML reads 10:00 as the number 600 (base 60); in quotes it is a "
            "text; a number is written without ':' and leading zeros"
        ),
    ),
    (
        "budget: {tool_calls: 010}",
        (
            "budget.tool_calls: YAML reads 010 as the number 8 (octal); in quotes it is a text; a "
            "number is written without ':' and leading zeros"
        ),
    ),
    ("budget: {cost_usd: .inf}", "budget.cost_usd: must be a finite number, found the number .inf"),
    ("budget: {cost_usd: '1'}", "budget.cost_usd: must be a number, found the text '1'; write 1, without quotes"),
    ("budget: {cost_usd: 1.0e+300}", "budget.cost_usd: 1e+300 is out of range: must be at most 1000000000"),
    ("model: {top_p: 1.5}", "model.top_p: 1.5 is out of range: must be at most 1"),
    ("model: {seed: 1.5}", "model.seed: must be a whole number, found the number 1.5"),
    # booleans, shapes
    (
        'environment: {container_only: "yes"}',
        ("environment.container_only: must be true or false, found the text 'yes'; write true, without quotes"),
    ),
    (
        "environment: {container_only: 0}",
        ("environment.container_only: must be true or false, found the number 0; write false, without quotes"),
    ),
    ("budget:", "budget: must be a mapping, found nothing; write it out, or leave the key out"),
    ("budget: [tokens]", "budget: must be a mapping, found a list"),
    ("environment: {services: [db]}", "environment.services: must be a mapping, found a list"),
    (
        "environment: {services: {db: postgres}}",
        "environment.services.db: must be a mapping, found the text 'postgres'",
    ),
    (
        "environment: {services: {DB: {image: a}}}",
        ("environment.services.DB: 'DB' must be lower-case letters, digits, _ and -"),
    ),
    ("environment: {services: {db: {}}}", "environment.services.db: a service needs either `image` or `build`"),
    (
        "environment: {services: {db: {image: a, build: b/}}}",
        "environment.services.db.build: a service needs either `image` or `build`",
    ),
    (
        "environment: {services: {db: {image: a, healthcheck: {}}}}",
        "environment.services.db.healthcheck.command: is required, but missing; add `command:`",
    ),
    # values with rules of their own
    (
        "environment: {resources: {memory: lots}}",
        ("environment.resources.memory: 'lots' is no size: write a number above 0 and a unit, like 512m or 1g"),
    ),
    (
        "environment: {resources: {memory: 0}}",
        ("environment.resources.memory: 0 is no size: write a number above 0 and a unit, like 512m or 1g"),
    ),
    (
        "environment: {env: {FBENCH_X: a}}",
        ("environment.env: 'FBENCH_X' is reserved: names that begin with FBENCH_ are set by fbench"),
    ),
    (
        "environment: {env: {A: null}}",
        "environment.env.A: must be a text, found null; write a text, or leave the key out",
    ),
    ("environment: {workdir: work}", "environment.workdir: 'work' must be an absolute path other than /"),
    ("environment: {workdir: /a/../b}", "environment.workdir: `workdir` must not contain '..'"),
    (
        "environment: {workdir: //grader/x}",
        "environment.workdir: `workdir` must not lie in /grader, where fbench mounts that folder of the task",
    ),
    ('environment: {setup: [" "]}', "environment.setup[0]: ' ' must be a command: neither blank nor with a NUL byte"),
    ("tools: {allow: [bash, bash]}", "tools.allow[1]: the tool 'bash' is listed twice"),
    ("tools: {allow: [submit]}", "tools.allow[0]: `submit` is always there and is not listed"),
    # keys
    (
        "prompt: prompt.md",
        (
            "prompt: unknown key; it belongs to `agent.prompt`; valid keys here: id, title, description, "
            "difficulty, domain, tags, environment, model, agent, tools, budget, grader, solution, exploits"
        ),
    ),
    ("on: push", "on: YAML reads the key 'on' as a boolean, but keys are texts; put it in quotes: \"on\""),
    ("5: x", "5: YAML reads the key '5' as a number, but keys are texts; put it in quotes: \"5\""),
    ("[a]: x", "a list or mapping cannot be a key; keys are texts"),
    (
        "description: !!python/name:os.system x",
        (
            "description: the tag '!!python/name:os.system' is not supported; remove "
            "it: plain texts, numbers, lists and mappings only"
        ),
    ),
    ("id: again", "id: key given twice, first on line 1; keep one of the two"),
]


@pytest.mark.parametrize(("line", "message"), CASES, ids=[line for line, _ in CASES])
def test_a_fault_is_told_in_plain_words(write_task: WriteTask, minimal: str, line: str, message: str) -> None:
    key = line.split(":", maxsplit=1)[0]
    kept = (
        minimal
        if key == "id"
        else "".join(row for row in minimal.splitlines(keepends=True) if not row.startswith(f"{key}:"))
    )
    number = kept.count("\n") + 1
    assert f"task.yaml:{number}: {message}" in messages(write_task(kept + line + "\n"))


CHECK_CASES = [
    (
        "path: a",
        (
            "is required, but missing; add `type:`; allowed: file_present, command_exit_zero, pytest, metric_check, "
            "sql_check, reference_output, llm_rubric"
        ),
        ".type",
    ),
    (
        "typ: file_present, path: a",
        (
            "unknown key; did you mean 'type'? valid keys here: id, weight, gating, timeout_s, type, path, command, "
            "tests, pythonpath, predictions, labels, metric, id_column, label_column, prediction_column, "
            "positive_label, average, class_columns, group_column, k, op, threshold, baseline, medals, dsn, query, "
            "expect, ordered, reference, format, columns, tolerance, rubric, judge_model, votes"
        ),
        ".typ",
    ),
    ("type: file_present", "is required, but missing; add `path:`", ".path"),
    ("type: file_present, path: ../a", "'../a' must be a relative path that stays inside, without '..'", ".path"),
    ("type: file_present, path: /a", "'/a' must be a relative path that stays inside, without '..'", ".path"),
    (
        "type: file_present, path: a, threshold: 1",
        (
            "unknown key; it belongs to `grader.checks[].threshold`; valid keys "
            "here: id, weight, gating, timeout_s, type, path"
        ),
        ".threshold",
    ),
    (
        "type: [file_present], path: a",
        (
            "must be the type of a check, found a list; allowed: file_present, "
            "command_exit_zero, pytest, metric_check, sql_check, reference_output, llm_rubric"
        ),
        ".type",
    ),
    (
        "type: metric_check, path: a, metric: m, op: between, threshold: [1, 2, 3]",
        "must be a finite number, or [low, high] for op between; found [1, 2, 3]",
        ".threshold",
    ),
    (
        "type: metric_check, path: a, metric: m, op: between, threshold: 1",
        "`between` takes a threshold of [low, high], every other op a single number",
        ".threshold",
    ),
    (
        "type: metric_check, path: a, metric: m, op: between, threshold: [2, 1]",
        "the threshold [low, high] has low above high",
        ".threshold",
    ),
    (
        'type: metric_check, path: a, metric: m, op: "=>", threshold: 1',
        "'=>' is not allowed; did you mean '>='? allowed: >=, <=, >, <, ==, between",
        ".op",
    ),
    (
        'type: metric_check, path: a, command: b, metric: m, op: ">", threshold: 1',
        "a metric_check reads either `command`, `path` or `predictions`",
        ".path",
    ),
    (
        'type: metric_check, path: a, metric: m, op: ">", threshold: "0.9"',
        "must be a finite number, or [low, high] for op between; found '0.9'",
        ".threshold",
    ),
    (
        'type: metric_check, path: a, metric: m, op: ">", threshold: 1, baseline: 2',
        "with op '>' the baseline must lie on the worse side of the threshold",
        ".baseline",
    ),
    (
        'type: metric_check, path: a, metric: m, op: "==", threshold: 1, baseline: 2',
        "`baseline` goes with an open-ended op, not with '=='",
        ".baseline",
    ),
    (
        'type: metric_check, predictions: p.csv, metric: rmse, op: "<", threshold: 1',
        "`predictions` needs `labels`, a file of the task's grader/ folder",
        "",
    ),
    (
        'type: metric_check, predictions: p.csv, labels: task.yaml, metric: rmse, op: "<", threshold: 1',
        "'task.yaml' must lie in grader/; move it to grader/, which the agent never sees",
        ".labels",
    ),
    (
        'type: metric_check, path: a, labels: grader/l.csv, metric: rmse, op: "<", threshold: 1',
        "`labels` goes with `predictions`",
        ".labels",
    ),
    (
        'type: metric_check, predictions: p.csv, labels: grader/l.csv, metric: acuracy, op: ">", threshold: 1',
        (
            "of predictions these metrics can be computed: accuracy, f1, roc_auc, log_loss, rmse, mae, r2, ndcg; "
            "did you mean 'accuracy'?"
        ),
        ".metric",
    ),
    (
        'type: metric_check, predictions: p.csv, labels: grader/l.csv, metric: rmse, op: ">=", threshold: 1',
        "a lower rmse is better: use <= or <",
        ".op",
    ),
    (
        'type: metric_check, predictions: p.csv, labels: grader/l.csv, metric: mae, op: "<", threshold: 1, k: 3',
        "`k` goes with ndcg, not with mae",
        ".k",
    ),
    (
        (
            'type: metric_check, predictions: p.csv, labels: grader/l.csv, metric: f1, op: ">", threshold: 1, '
            "average: macro, positive_label: 1"
        ),
        "`average` and `positive_label` exclude each other",
        ".positive_label",
    ),
    (
        (
            'type: metric_check, predictions: p.csv, labels: grader/l.csv, metric: log_loss, op: "<", threshold: 1, '
            'class_columns: {"0": a}'
        ),
        "names the column of each class, two or more",
        ".class_columns",
    ),
    (
        'type: metric_check, path: a, metric: m, op: "<", threshold: 1, medals: {bronze: 1, silver: 2, gold: 3}',
        "with op '<' the medals must fall from bronze over silver to gold",
        ".medals",
    ),
    (
        'type: metric_check, path: a, metric: m, op: "==", threshold: 1, medals: {bronze: 1, silver: 2, gold: 3}',
        "`medals` go with an open-ended op, not with '=='",
        ".medals",
    ),
    (
        "type: reference_output, path: a, reference: task.yaml, columns: {x: text}",
        "`columns` goes with the format csv",
        ".columns",
    ),
    (
        "type: reference_output, path: a, reference: task.yaml, format: csv, columns: {x: txt}",
        "'txt' is not allowed; did you mean 'text'? allowed: text, number, integer, boolean, datetime",
        ".columns.x",
    ),
    (
        "type: sql_check, dsn: mysql://x, query: q, expect: [[1]]",
        "'mysql://x' must be a postgresql:// or sqlite:// address",
        ".dsn",
    ),
    (
        "type: sql_check, dsn: sqlite:///x, query: q, expect: [[2024-01-02]]",
        ("'2024-01-02' is neither a text, a finite number, true, false nor null; put a date in quotes"),
        ".expect[0][0]",
    ),
    (
        "type: sql_check, dsn: sqlite:///x, query: q, expect: [1]",
        "must be a list, found the number 1; write [1]",
        ".expect[0]",
    ),
    ("type: pytest", "'grader/tests' does not exist; add it", ".tests"),
    ("type: pytest, tests: tests", "'tests' must be a path in the task's grader/", ".tests"),
    (
        "type: llm_rubric, rubric: workspace/r.md",
        ("'workspace/r.md' lies in workspace/, which the agent sees; move it to grader/, which the agent never sees"),
        ".rubric",
    ),
    ("type: llm_rubric, rubric: grader/r.md, votes: 0", "0 is out of range: must be above 0", ".votes"),
    ("type: file_present, path: a, gating: maybe", "must be true or false, found the text 'maybe'", ".gating"),
    ("type: file_present, path: a, weight: -1", "-1 is out of range: must be at least 0", ".weight"),
    (
        "type: file_present, path: a, timeout_s: 60s",
        ("must be a number, found the text '60s'; write the plain number, without a unit"),
        ".timeout_s",
    ),
]


@pytest.mark.parametrize(("check", "message", "key"), CHECK_CASES, ids=[check for check, _, _ in CHECK_CASES])
def test_a_fault_of_a_check_is_told_with_its_key(
    write_task: WriteTask, minimal: str, check: str, message: str, key: str
) -> None:
    told = messages(write_task(f"{minimal}    - {{id: x, {check}}}\n"))
    assert f"task.yaml:10: grader.checks[1]{key}: {message}" in told


def test_a_check_that_is_no_mapping_is_told(write_task: WriteTask, minimal: str) -> None:
    told = messages(write_task(f"{minimal}    - file_present\n"))
    assert told == ["task.yaml:10: grader.checks[1]: must be a mapping, found the text 'file_present'"]


def test_weights_that_are_all_zero_are_told(write_task: WriteTask, minimal: str) -> None:
    told = messages(write_task(minimal.replace("path: out.txt", "path: out.txt, weight: 0")))
    assert told == ["task.yaml:8: grader.checks: at least one check needs a weight above 0"]


def test_a_missing_key_is_told_with_the_line_of_its_parent(write_task: WriteTask, minimal: str) -> None:
    assert messages(write_task(minimal.replace("difficulty: easy\n", ""))) == [
        "task.yaml:1: difficulty: is required, but missing; add `difficulty:`; allowed: easy, medium, hard"
    ]
    text = minimal.replace("  prompt: prompt.md", "  max_turns: 3")
    assert messages(write_task(text, name="other").parent / "other")[1:] == [
        "task.yaml:5: agent: the agent needs either `prompt` (a file of the task) or `prompt_text`"
    ]


def test_what_holds_is_resolved_with_defaults_beside_the_problems(write_task: WriteTask, minimal: str) -> None:
    found = inspect_task(write_task(minimal + "budget: {tokens: many, tool_calls: 4}\nenvironment: {imagge: a}\n"))
    assert found.manifest is None
    assert found.resolved is not None
    assert found.resolved["budget"] == {
        "tool_calls": 4,
        "wall_time_s": None,
        "cost_usd": None,
        "judge_cost_usd": None,
    }
    assert found.resolved["environment"]["image"] == "fbench/mle:1"
    assert found.resolved["grader"]["checks"][0]["weight"] == 1.0
    assert [problem.key for problem in found.problems] == ["budget.tokens", "environment.imagge"]


def test_a_fault_behind_an_alias_is_told_once(write_task: WriteTask, minimal: str) -> None:
    base = "    - &a {id: b, type: file_present, path: p, wieght: 2}\n"
    text = minimal + base + "    - {<<: *a, id: c}\n    - {<<: *a, id: d}\n"
    (message,) = messages(write_task(text))
    assert message.startswith("task.yaml:10: grader.checks[1].wieght: unknown key; did you mean 'weight'?")
