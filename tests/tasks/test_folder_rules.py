"""What a manifest names must be in the task's folder, regular, and hidden where it has to be."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fbench.tasks.errors import ManifestError
from fbench.tasks.folder_rules import exploit_files
from fbench.tasks.loading import load_task

WriteTask = Callable[..., Path]


def messages(folder: Path) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        load_task(folder)
    return [line.removeprefix(f"{folder}/") for line in str(caught.value).splitlines()]


def test_an_id_other_than_the_folders_name_is_told(write_task: WriteTask) -> None:
    assert messages(write_task(name="large")) == [
        "task.yaml:1: id: 'small' is not the name of the task's folder, which is 'large'; rename one of the two"
    ]


def test_a_task_is_known_by_its_name_from_within(write_task: WriteTask, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_task()
    monkeypatch.chdir(folder / "workspace")
    assert load_task(Path("..")).folder == folder.resolve()


def test_a_missing_prompt_is_told(write_task: WriteTask) -> None:
    folder = write_task()
    (folder / "prompt.md").unlink()
    assert messages(folder) == ["task.yaml:6: agent.prompt: 'prompt.md' does not exist; write the prompt there"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b" \n", "is blank"),
        (b"ok\n\xff", "is not UTF-8 text: byte 0xff on line 2"),
        (b"x" * 1_000_001, "is larger than 1,000,000 bytes"),
    ],
    ids=["blank", "not UTF-8", "large"],
)
def test_a_prompt_that_cannot_be_used_is_told(write_task: WriteTask, content: bytes, why: str) -> None:
    folder = write_task()
    (folder / "prompt.md").write_bytes(content)
    assert messages(folder) == [f"task.yaml:6: agent.prompt: 'prompt.md' {why}; write the prompt there"]


def test_a_prompt_outside_the_task_is_refused(write_task: WriteTask, tmp_path: Path) -> None:
    folder = write_task()
    (tmp_path / "secret").write_text("secret")
    (folder / "prompt.md").unlink()
    (folder / "prompt.md").symlink_to(tmp_path / "secret")
    assert "task.yaml:6: agent.prompt: 'prompt.md' leads out of the task's folder; write the prompt there" in messages(
        folder
    )


def test_a_fifo_as_prompt_is_refused_without_waiting(write_task: WriteTask) -> None:
    folder = write_task()
    (folder / "prompt.md").unlink()
    os.mkfifo(folder / "prompt.md")
    assert "task.yaml:6: agent.prompt: 'prompt.md' is no regular file; write the prompt there" in messages(folder)


def test_a_missing_workspace_is_told(write_task: WriteTask) -> None:
    folder = write_task()
    (folder / "workspace").rmdir()
    (message,) = messages(folder)
    assert message.endswith(
        "small: the folder workspace/ is missing; make it, with the files that the agent starts from (for an empty "
        "start: one with a .gitkeep)"
    )


def test_a_link_from_the_workspace_to_the_grader_is_refused(write_task: WriteTask) -> None:
    folder = write_task(files={"grader/answer": "42"})
    (folder / "workspace/answer").symlink_to("../grader/answer")
    (message,) = messages(folder)
    assert "'workspace/answer' is a link that leads out of workspace/" in message


def test_a_link_within_the_workspace_is_fine(write_task: WriteTask) -> None:
    folder = write_task(files={"workspace/a": "a"})
    (folder / "workspace/b").symlink_to("a")
    assert load_task(folder).manifest.id == "small"


def test_a_solution_must_lie_in_solution(write_task: WriteTask, minimal: str) -> None:
    folder = write_task(minimal + "solution: workspace/solve.sh\n", files={"workspace/solve.sh": "true"})
    assert messages(folder) == [
        (
            "task.yaml:10: solution: 'workspace/solve.sh' must lie in solution/; move it to solution/, which the agent "
            "never sees"
        )
    ]


@pytest.mark.parametrize("name", ["workspace/answer", "image/answer"])
def test_a_reference_that_the_agent_would_see_is_refused(write_task: WriteTask, minimal: str, name: str) -> None:
    check = f"    - {{id: r, type: reference_output, path: a, reference: {name}}}\n"
    files = {"workspace/answer": "42", "image/answer": "42", "image/Dockerfile": "FROM scratch\n"}
    folder = write_task(f"{minimal}{check}environment: {{build: image/}}\n", files=files)
    seen = name.split("/", maxsplit=1)[0]
    assert messages(folder) == [
        (
            f"task.yaml:10: grader.checks[1].reference: '{name}' lies in {seen}/, which the agent sees; move it to "
            "grader/, which the agent never sees"
        )
    ]


def test_a_reference_beside_the_manifest_is_fine(write_task: WriteTask, minimal: str) -> None:
    check = "    - {id: r, type: reference_output, path: a, reference: expected.txt}\n"
    assert load_task(write_task(minimal + check, files={"expected.txt": "42"})).manifest.grader.checks[1].id == "r"


def test_a_reference_that_is_missing_names_what_is_there(write_task: WriteTask, minimal: str) -> None:
    check = "    - {id: r, type: reference_output, path: a, reference: grader/expectd.csv}\n"
    folder = write_task(minimal + check, files={"grader/expected.csv": "a", "grader/rubric.md": "b"})
    assert messages(folder) == [
        (
            "task.yaml:10: grader.checks[1].reference: 'grader/expectd.csv' does not exist; there are: expected.csv, "
            "rubric.md"
        )
    ]


def test_a_folder_as_reference_is_refused(write_task: WriteTask, minimal: str) -> None:
    check = "    - {id: r, type: reference_output, path: a, reference: grader/sub}\n"
    folder = write_task(minimal + check, files={"grader/sub/x": "a"})
    (message,) = messages(folder)
    assert "'grader/sub' is a folder, not a file" in message


def test_a_build_folder_needs_a_dockerfile(write_task: WriteTask, minimal: str) -> None:
    text = minimal + "environment:\n  build: environment/\n  services: {db: {build: db}}\n"
    folder = write_task(text, files={"environment/x": "", "db/Dockerfile": "FROM scratch\n"})
    assert messages(folder) == [
        "task.yaml:11: environment.build: the Dockerfile of 'environment/' does not exist; add it"
    ]


def test_a_services_file_must_be_there(write_task: WriteTask, minimal: str) -> None:
    text = minimal + "environment:\n  services: {db: {image: a, files: {sv/init.sql: /init.sql}}}\n"
    assert messages(write_task(text)) == [
        "task.yaml:11: environment.services.db.files['sv/init.sql']: 'sv/init.sql' does not exist; add it"
    ]


def test_an_exploit_that_leads_out_is_refused(write_task: WriteTask, minimal: str, tmp_path: Path) -> None:
    folder = write_task(minimal + 'exploits: ["exploits/*.sh"]\n', files={"exploits/a.sh": "true"})
    (tmp_path / "b.sh").write_text("true")
    (folder / "exploits/b.sh").symlink_to(tmp_path / "b.sh")
    assert "task.yaml:10: exploits[0]: 'exploits/b.sh' leads out of the task's folder" in messages(folder)


def test_exploit_files_are_listed_once_and_sorted(write_task: WriteTask) -> None:
    folder = write_task(files={f"exploits/{name}": "true" for name in ("b.sh", "a.sh", "sub/c.sh", "notes.md")})
    found = exploit_files(folder, ("exploits/*.sh", "exploits/a*", "exploits/**/*.sh"))
    assert [path.relative_to(folder).as_posix() for path in found] == [
        "exploits/a.sh",
        "exploits/b.sh",
        "exploits/sub/c.sh",
    ]


@pytest.mark.parametrize("pattern", ["exploits/[", "exploits/**x", "exploits/***", "exploits/{a", "exploits/[!]"])
def test_an_odd_pattern_matches_nothing_and_breaks_nothing(write_task: WriteTask, minimal: str, pattern: str) -> None:
    folder = write_task(minimal + f"exploits: ['{pattern}']\n")
    (message,) = messages(folder)
    assert "matches no file of the task" in message
