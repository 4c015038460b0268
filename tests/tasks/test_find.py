"""A task is found by folder, by its task.yaml or by id; near ids are offered."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fbench.tasks.errors import TaskError, UnknownTask
from fbench.tasks.find import builtin_tasks, find_task
from fbench.tasks.loading import load_task

WriteTask = Callable[..., Path]


def test_a_folder_and_its_task_yaml_both_name_the_task(write_task: WriteTask) -> None:
    folder = write_task()
    assert find_task(str(folder)) == folder
    assert find_task(f"{folder}/") == folder
    assert find_task(str(folder / "task.yaml")) == folder


def test_the_current_folder_can_be_the_task(write_task: WriteTask, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_task()
    monkeypatch.chdir(folder)
    assert find_task(".").resolve() == folder.resolve()
    assert find_task("task.yaml").resolve() == folder.resolve()


def test_every_built_in_task_is_found_by_its_id_and_loads() -> None:
    folders = builtin_tasks()
    assert {"hello_repo_fix", "pandas_transform"} <= {folder.name for folder in folders}
    for folder in folders:
        assert find_task(folder.name) == folder
        assert load_task(folder).manifest.id == folder.name


def test_a_folder_without_a_task_yaml_does_not_hide_a_built_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hello_repo_fix").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_task("hello_repo_fix") in builtin_tasks()


def test_further_folders_are_searched_first(write_task: WriteTask, tmp_path: Path) -> None:
    folder = write_task(name="hello_repo_fix")
    assert find_task("hello_repo_fix", [tmp_path / "absent", tmp_path]) == folder


@pytest.mark.parametrize("ref", ["helo_repo_fix", "hello-repo-fix", "Hello_Repo", "hello_repo_fix "])
def test_an_unknown_id_is_answered_with_near_ones(ref: str) -> None:
    with pytest.raises(UnknownTask, match=r"unknown task .*; did you mean 'hello_repo_fix'") as caught:
        find_task(ref)
    assert caught.value.near[0] == "hello_repo_fix"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("ref", ["", " ", "\0", "zzz", "x" * 5000])
def test_an_id_like_nothing_is_answered_with_all(ref: str) -> None:
    known = ", ".join(folder.name for folder in builtin_tasks())
    assert "hello_repo_fix" in known
    with pytest.raises(UnknownTask, match=re.escape(f"built-in tasks: {known} (")):
        find_task(ref)


def test_a_folder_that_is_no_task_is_told(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"has no task\.yaml; a task is a folder"):
        find_task(str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(TaskError, match=r"file' is no task; a task is a folder"):
        find_task(str(tmp_path / "file"))


def test_an_unknown_task_survives_pickling() -> None:
    error = UnknownTask("smal", ["small"])
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
