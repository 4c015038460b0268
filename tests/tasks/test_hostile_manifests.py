"""Files that are no manifests: each ends in a ManifestError with a clear sentence, quickly, never in a traceback."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fbench.tasks.errors import ManifestError
from fbench.tasks.loading import inspect_task, load_task

WriteTask = Callable[..., Path]


def first_message(folder: Path) -> str:
    with pytest.raises(ManifestError) as caught:
        load_task(folder)
    return str(caught.value).splitlines()[0].removeprefix(f"{folder}/")


def _bomb() -> str:
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    return "\n".join(["a0: &a0 [x]", *levels]) + "\n"


def _merge_bomb() -> str:
    levels = [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 12)]
    return "\n".join(["a0: &a0 {x: 1}", *levels]) + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "task.yaml: the file is empty; "),
        ("# only a remark\n", "task.yaml: the file is empty; "),
        ("[1, 2]", "task.yaml:1: must be a mapping of keys like `id:` and `grader:`, found a list"),
        ("just words", "task.yaml:1: must be a mapping of keys like `id:` and `grader:`, found the text 'just words'"),
        (
            "id: a\n\ttitle: b",
            (
                "task.yaml:2: no valid YAML: found a tab character that violates indentation (while scanning a plain "
                "scalar); indent with spaces"
            ),
        ),
        (
            "id: a\ntitle: b: c",
            "task.yaml:2: no valid YAML: mapping values are not allowed in this context; put a text ",
        ),
        ("id: a\ntitle: 'b", "task.yaml:2: no valid YAML: found unexpected end of stream (while scanning a quoted"),
        ("id: a\n---\nid: b", "task.yaml:2: no valid YAML: but found another document"),
        ("id: *a", "task.yaml:1: no valid YAML: found undefined alias; put a text that begins with * in quotes"),
        ("id: &a [*a]", "task.yaml:1: an alias stands inside its own anchor; write the value out"),
        ("a: &a {<<: *a}", "task.yaml:1: an alias stands inside its own anchor; write the value out"),
        (_bomb(), "task.yaml:1: aliases multiply to more than 100000 values; write the values out"),
        (_merge_bomb(), "task.yaml:1: aliases multiply to more than 100000 values; write the values out"),
        ("[" * 100_000, "task.yaml:1: nested deeper than 40 levels; make it flatter"),
        ("a: " + "{b: " * 50, "task.yaml:1: nested deeper than 40 levels; make it flatter"),
        ("- x\n" * 200_000, "task.yaml:99999: more than 100000 values; keep data in files of their own"),
        ("id: a\x00b", "task.yaml:1: the character '\\x00' is not allowed in YAML; remove it"),
        ("id: a\ntitle: \x1b[31m", "task.yaml:2: the character '\\x1b' is not allowed in YAML; remove it"),
        (b"id: a\ntitle: caf\xe9\n", "task.yaml: is not UTF-8 text: byte 0xe9 on line 2; a task is"),
        (b"\xff\xfei\x00d\x00", "task.yaml: is not UTF-8 text: byte 0xff on line 1; a task is"),
        ("id: a\nbudget: {tokens: " + "9" * 5000 + "}", "task.yaml:2: budget.tokens: a number of 5000 characters; "),
        (
            "id: a\ntitle: 2024-13-45",
            "task.yaml:2: title: '2024-13-45' looks like a date but is none; put it in quotes",
        ),
        ("id: a\nbudget: {tokens: !!int x}", "task.yaml:2: budget.tokens: 'x' looks like a number but is none"),
        ('id: a\ntitle: "\\ud800"', "task.yaml:2: no valid YAML: found invalid Unicode character escape code"),
        ("id: a\n<<: 5", "task.yaml:2: <<: only mappings can be merged; write <<: *name"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_manifest_is_refused_in_a_sentence(write_task: WriteTask, text: str | bytes, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load_task(write_task(text))
    assert message in str(caught.value)


def test_a_file_of_100_mb_is_refused_unread(write_task: WriteTask) -> None:
    folder = write_task()
    with (folder / "task.yaml").open("r+b") as stream:
        stream.truncate(100_000_000)
    assert first_message(folder).startswith("task.yaml: is larger than 1,000,000 bytes; a task is")


def test_a_folder_named_task_yaml_is_refused(write_task: WriteTask) -> None:
    folder = write_task()
    (folder / "task.yaml").unlink()
    (folder / "task.yaml").mkdir()
    assert first_message(folder).startswith("task.yaml: is a folder; a task is")


def test_a_fifo_named_task_yaml_is_refused_without_waiting(write_task: WriteTask) -> None:
    folder = write_task()
    (folder / "task.yaml").unlink()
    os.mkfifo(folder / "task.yaml")
    assert first_message(folder).startswith("task.yaml: is no regular file; a task is")


def test_a_missing_task_yaml_is_told(write_task: WriteTask) -> None:
    folder = write_task()
    (folder / "task.yaml").unlink()
    assert first_message(folder).startswith("task.yaml: does not exist; a task is a folder with a task.yaml")


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"nowhere: no such folder; a task is a folder with a task\.yaml"):
        load_task(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_a_name_the_system_refuses_is_no_folder(name: str) -> None:
    assert "no such folder" in str(inspect_task(Path(name)).problems[0])


def test_a_task_yaml_that_links_out_of_the_task_is_refused(write_task: WriteTask, tmp_path: Path) -> None:
    folder = write_task()
    (folder / "task.yaml").rename(tmp_path / "elsewhere.yaml")
    (folder / "task.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    assert first_message(folder).startswith("task.yaml: is a link that leads out of the task")


def test_a_task_yaml_that_links_to_itself_is_refused(write_task: WriteTask) -> None:
    folder = write_task()
    (folder / "task.yaml").unlink()
    (folder / "task.yaml").symlink_to("task.yaml")
    assert first_message(folder).startswith("task.yaml: cannot be read: Too many levels of symbolic links")


def test_a_broken_file_still_shows_what_the_folder_lacks(write_task: WriteTask) -> None:
    folder = write_task("id: [")
    (folder / "workspace").rmdir()
    found = inspect_task(folder)
    assert found.resolved is None
    assert any("workspace/ is missing" in problem.message for problem in found.problems)
    assert any("no valid YAML" in problem.message for problem in found.problems)
