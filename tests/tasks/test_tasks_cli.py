"""`fbench list-tasks` and `fbench describe`: data on stdout, problems on stderr, exit code 2 for problems."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml
from click.testing import CliRunner

from fbench.tasks.cli import describe, list_tasks
from fbench.tasks.hashing import hash_task
from fbench.tasks.loading import load_manifest, load_task

WriteTask = Callable[..., Path]


def test_describe_prints_a_manifest_that_loads_again(spec_task: Path) -> None:
    result = CliRunner().invoke(describe, ["--task", str(spec_task)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert load_manifest(result.stdout) == load_task(spec_task).manifest


def test_describe_prints_every_problem_and_what_could_be_resolved(write_task: WriteTask, minimal: str) -> None:
    folder = write_task(minimal.replace("easy", "esay") + "tagz: [a]\nsolution: solution/solve.sh\n")
    result = CliRunner().invoke(describe, ["--task", str(folder)])
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"{folder}/task.yaml:3: difficulty: 'esay' is not allowed; did you mean 'easy'? allowed: easy, medium, hard",
        (
            f"{folder}/task.yaml:10: tagz: unknown key; did you mean 'tags'? valid keys here: id, title, description, "
            "difficulty, domain, tags, environment, model, agent, tools, budget, grader, solution, exploits"
        ),
        f"{folder}/task.yaml:11: solution: 'solution/solve.sh' does not exist; add it",
    ]
    shown = yaml.safe_load(result.stdout)
    assert shown["title"] == "A small task"
    assert "difficulty" not in shown
    assert shown["grader"]["pass_threshold"] == 1.0


def test_describe_as_json_is_one_document(write_task: WriteTask, minimal: str) -> None:
    folder = write_task(minimal + "tagz: [a]\n")
    result = CliRunner().invoke(describe, ["--task", str(folder), "--json"])
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert document["task"] == "small"
    assert document["task_hash"] == hash_task(folder)
    assert document["resolved"]["title"] == "A small task"
    (problem,) = document["problems"]
    assert (problem["file"], problem["line"], problem["key"]) == (str(folder / "task.yaml"), 10, "tagz")


def test_describe_of_an_unknown_task_names_near_ones() -> None:
    result = CliRunner().invoke(describe, ["--task", "helo_repo_fix"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: unknown task 'helo_repo_fix'")
    assert "did you mean 'hello_repo_fix'" in result.stderr
    as_json = CliRunner().invoke(describe, ["--task", "helo_repo_fix", "--json"])
    assert as_json.exit_code == 2
    assert json.loads(as_json.stdout)["problems"][0]["message"].startswith("unknown task")


def test_describe_of_a_file_that_is_no_yaml_prints_no_data(write_task: WriteTask) -> None:
    folder = write_task("id: [")
    result = CliRunner().invoke(describe, ["--task", str(folder)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{folder}/task.yaml:1: no valid YAML" in result.stderr


def test_list_tasks_shows_each_built_in_task_on_a_line() -> None:
    result = CliRunner().invoke(list_tasks)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["TASK", "DIFFICULTY", "DOMAIN", "TITLE"]
    assert [line.split()[0] for line in lines[1:]] == sorted(line.split()[0] for line in lines[1:])
    assert any(line.startswith("hello_repo_fix ") for line in lines)


def test_list_tasks_as_json_holds_what_lists_need() -> None:
    tasks = json.loads(CliRunner().invoke(list_tasks, ["--json"]).stdout)["tasks"]
    by_id = {task["id"]: task for task in tasks}
    task = by_id["pandas_transform"]
    assert set(task) == {"id", "title", "description", "difficulty", "domain", "tags", "folder", "problems"}
    assert task["problems"] == []


def test_the_commands_load_neither_pydantic_nor_yaml_until_they_run() -> None:
    program = "import sys, fbench.tasks.cli; print(sorted({'pydantic', 'yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
