"""What can be held against a task that has not run: commands the agent can speak through, files that leak."""

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fbench.tasks.loading import load_task
from fbench.tasks.review import review_task

if TYPE_CHECKING:
    from tests.tasks.conftest import WriteTask

LOADING = (
    "import os, sys\n# sys.path and the workspace\nsys.path.insert(0, os.environ['FBENCH_WORKSPACE'])\nimport work\n"
)
SECRET = "region,total\nnorth,120\nsouth,64\neast,71\n"


def review(write_task: "WriteTask", check: dict[str, Any], files: dict[str, str] | None = None) -> list[str]:
    """What is held against a task with one check, beside a measured one."""
    manifest = {
        "id": "small",
        "title": "A small task",
        "difficulty": "easy",
        "domain": "software",
        "agent": {"prompt": "prompt.md"},
        "grader": {
            "checks": [
                {"id": "it", **check},
                {"id": "measured", "type": "command_exit_zero", "command": 'python -I "$FBENCH_GRADER/good.py"'},
            ]
        },
    }
    text = yaml.safe_dump(manifest, sort_keys=False)
    found = review_task(load_task(write_task(text, files={"grader/good.py": "print(1)\n", **(files or {})})))
    return [line.removeprefix("grader.checks 'it': ") for line in found]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("python -m mychecks", "`python -m mychecks` imports from the workspace first"),
        ("cd /tmp && true; python -m mychecks", ""),
        ('cd src && python -m pytest -q "$FBENCH_GRADER/tests"', "`python -m pytest` runs in one process"),
        ('cd src && pytest -q "$FBENCH_GRADER/tests"', "`pytest` runs in one process"),
        ("python3 -Bc 'import json'", "`python3 -c` imports from the workspace first"),
        ("python -X dev -W error -mjson.tool out.json", "`python -m json.tool` imports"),
        ("FOO=1 timeout -k 1 5 python -m mychecks", "imports from the workspace first"),
        ("test -f x &&\npython -m mychecks", "imports from the workspace first"),
        ("python -I -m mychecks", ""),
        ("python -IBm mychecks", ""),
        ("python -P -c 'import json'", ""),
        ("python -m pytest -q $FBENCH_GRADER/tests", "`python -m pytest` runs in one process"),
        ("pytest -q /grader/tests", "`pytest` runs in one process"),
        ("python -I -m pytest /grader/tests", "runs in one process"),
        ("python main.py --selftest", "main.py is the agent's own program"),
        ("! python main.py no-such-file 2>/dev/null", "main.py is the agent's own program"),
        ("./run.sh", "./run.sh is the agent's own program"),
        ("bash tools/check.sh", "tools/check.sh is the agent's own program"),
        ("make test", "make is the agent's own program"),
        ('python "$FBENCH_GRADER/loads.py"', "grader/loads.py:3 loads the workspace's code"),
        ('python -I "${FBENCH_GRADER}/loads.py" x', "grader/loads.py:3 loads the workspace's code"),
        ("python -I -B /grader/good.py", ""),
        ("bash $FBENCH_GRADER/check.sh", ""),
        ("diff out.txt $FBENCH_GRADER/expected", ""),
        ("python --version", ""),
        ("python -", ""),
        ("grep -q 'python -m x' notes.txt", ""),
        ("echo 'never ended", ""),
    ],
)
def test_a_command_whose_verdict_the_agent_can_make_is_named(write_task: "WriteTask", command: str, words: str) -> None:
    check = {"type": "command_exit_zero", "command": command}
    found = review(write_task, check, {"grader/loads.py": LOADING})
    assert len(found) == bool(words), found
    assert words in "".join(found)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"path": "metrics.json"}, "the number is read from metrics.json"),
        ({"command": "cat out/metrics.json"}, "`cat` prints out/metrics.json"),
        ({"command": "jq . metrics.json"}, "`jq` prints metrics.json"),
        ({"command": "python score.py"}, "score.py is the agent's own program"),
        ({"command": 'cat "$FBENCH_GRADER/known.json"'}, ""),
        ({"command": 'python -I "$FBENCH_GRADER/good.py"'}, ""),
    ],
)
def test_a_number_that_the_agent_states_itself_is_named(
    write_task: "WriteTask", source: dict[str, str], words: str
) -> None:
    found = review(write_task, {"type": "metric_check", "metric": "accuracy", "op": ">=", "threshold": 0.9, **source})
    assert len(found) == bool(words), found
    assert words in "".join(found)


def test_the_output_of_the_agents_program_may_be_compared_with_a_reference(write_task: "WriteTask") -> None:
    check = {"type": "reference_output", "command": "python main.py", "reference": "grader/expected.csv"}
    assert review(write_task, check, {"grader/expected.csv": SECRET}) == []


def test_a_task_that_runs_nothing_is_named(write_task: "WriteTask") -> None:
    (found,) = review_task(load_task(write_task()))
    assert "no check runs anything" in found


def leaks(write_task: "WriteTask", files: dict[str, str]) -> list[str]:
    """What is said of the files of a task whose checks are beyond doubt."""
    return review(write_task, {"type": "command_exit_zero", "command": "true"}, files)


def test_a_copy_of_hidden_material_is_named_with_both_places(write_task: "WriteTask") -> None:
    (found,) = leaks(write_task, {"grader/rows": SECRET, "workspace/data/sample": SECRET})
    assert found.startswith("workspace/data/sample equals grader/rows")


def test_copies_of_a_hidden_folder_are_named_together(write_task: "WriteTask") -> None:
    files = {f"{home}/t{n}": f"{SECRET}{n}" for n in range(5) for home in ("grader/shown", "workspace/a")}
    (found,) = leaks(write_task, files)
    assert "workspace/a/t0, workspace/a/t1, workspace/a/t2 and 2 more equal files in grader/shown/" in found


@pytest.mark.parametrize("readme", ["`grader/shown` holds what the agent gets too.", "See grader/shown/rows."])
def test_a_copy_that_the_readme_explains_is_known(write_task: "WriteTask", readme: str) -> None:
    assert leaks(write_task, {"grader/shown/rows": SECRET, "workspace/rows": SECRET, "README.md": readme}) == []


def test_a_copy_that_the_readme_only_seems_to_name_is_not(write_task: "WriteTask") -> None:
    readme = "grader/shown_to_nobody is in grader/ and grader/shown.d"
    assert len(leaks(write_task, {"grader/shown/rows": SECRET, "workspace/rows": SECRET, "README.md": readme})) == 1


def test_files_that_are_alike_by_chance_are_no_copies(write_task: "WriteTask") -> None:
    assert (
        leaks(write_task, {"grader/empty": "", "workspace/empty": "", "solution/a": "1\n", "workspace/a": "1\n"}) == []
    )


@pytest.mark.parametrize(
    "name", ["expected.csv", "hidden/x.csv", "test_labels.csv", "Answers.md", "answer_key", "task.lock", "solution"]
)
def test_a_name_like_a_graders_is_named_unless_prompt_or_readme_does(write_task: "WriteTask", name: str) -> None:
    shown = name.partition("/")[0]
    files = {f"workspace/{name}": "1\n"}
    (found,) = leaks(write_task, files)
    assert found.startswith(f"workspace/{shown} is called like grader material")


@pytest.mark.parametrize("file", ["prompt.md", "README.md"])
def test_a_name_that_is_mentioned_is_known(write_task: "WriteTask", file: str) -> None:
    files = {"workspace/data/expected.csv": "1\n", file: "The result of an example is in data/expected.csv.\n"}
    assert leaks(write_task, files) == []


@pytest.mark.parametrize("name", ["unexpected.csv", "labelling.py", "resolution.py", "uv.lock", "hiddenite"])
def test_other_names_are_not(write_task: "WriteTask", name: str) -> None:
    assert leaks(write_task, {f"workspace/{name}": "1\n"}) == []
