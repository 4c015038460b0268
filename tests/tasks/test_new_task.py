"""`fbench new-task`: what it writes is a valid task, in every respect that can be checked."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from fbench.engine import Engine, RunOptions
from fbench.tasks.cli import new_task
from fbench.tasks.errors import TaskError
from fbench.tasks.folder_rules import exploit_files
from fbench.tasks.loading import load_task
from fbench.tasks.review import review_task
from fbench.tasks.skeleton import write_skeleton


async def test_a_new_task_is_valid_as_it_stands(tmp_path: Path) -> None:
    folder = tmp_path / "word_sums"
    write_skeleton(folder, "Sums of words")
    task = load_task(folder)
    assert (task.manifest.id, task.manifest.title) == ("word_sums", "Sums of words")
    assert list(review_task(task)) == []
    cheats = [
        f"fake/exploit:{path.relative_to(folder).as_posix()}" for path in exploit_files(folder, task.manifest.exploits)
    ]
    assert len(cheats) == 2
    scores = {}
    async with Engine(environ={}) as engine:
        for model in ("fake/oracle", "fake/nop", *cheats):
            options = RunOptions(task=folder, model=model, sandbox="local", runs_dir=tmp_path / "runs")
            scores[model] = (await engine.run(options)).score
    assert scores == {"fake/oracle": 1.0, "fake/nop": 0.0, **dict.fromkeys(cheats, 0.0)}


async def test_the_judge_of_a_new_task_cannot_be_changed_by_what_it_runs(
    tmp_path: Path, need_bubblewrap: Callable[[], None]
) -> None:
    need_bubblewrap()
    folder = tmp_path / "word_sums"
    write_skeleton(folder, "Sums of words")
    # Right only where the memory of the judge is open to it.
    solution = folder / "solution" / "solve.sh"
    look = 'import os\nopen(f"/proc/{os.getppid()}/mem", "r+b", 0)\n'
    solution.write_text(f"{solution.read_text()}\n(printf '%s' '{look}'; cat total.py) > b && mv b total.py\n")
    options = RunOptions(task=folder, model="fake/oracle", sandbox="bubblewrap", runs_dir=tmp_path / "runs")
    async with Engine(environ={}) as engine:
        result = await engine.run(options)
    assert [check.score for check in result.checks] == [1.0, 0.0]


def test_the_command_names_the_files_and_overwrites_nothing(tmp_path: Path) -> None:
    arguments = ["my_task", "--into", str(tmp_path)]
    first = CliRunner().invoke(new_task, arguments)
    assert first.exit_code == 0
    assert str(tmp_path / "my_task" / "task.yaml") in first.stdout.splitlines()
    (tmp_path / "my_task" / "prompt.md").write_text("mine")
    again = CliRunner().invoke(new_task, arguments)
    assert again.exit_code == 2
    assert "is there already" in again.stderr
    assert (tmp_path / "my_task" / "prompt.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("1", "1"),
        ("null", "true"),
        ("on", "Sums: of words # all"),
        ("0x1f", '"x'),
        ("2024", "a\nb"),
        ("b", "{a} \\d ü"),
    ],
)
def test_whatever_its_name_and_title_a_new_task_can_be_read(tmp_path: Path, name: str, title: str) -> None:
    write_skeleton(tmp_path / name, title)
    manifest = load_task(tmp_path / name).manifest
    assert (manifest.id, manifest.title) == (name, title)


@pytest.mark.parametrize("name", ["My-task", "a b", "..", "a" * 101, "ä"])
def test_a_name_that_is_no_id_makes_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(TaskError, match="is no id of a task"):
        write_skeleton(tmp_path / "sub" / name, "t")
    assert list(tmp_path.iterdir()) == []
