"""What changes a task's hash, and what does not."""

import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fbench.tasks.errors import TaskError
from fbench.tasks.hashing import hash_task
from fbench.tasks.loading import inspect_task

WriteTask = Callable[..., Path]


@pytest.fixture
def folder(write_task: WriteTask) -> Path:
    """A task with a program in it."""
    folder = write_task(files={"solution/solve.sh": "#!/bin/sh\n", "workspace/.hidden/x": "1", "workspace/a": "2"})
    (folder / "solution/solve.sh").chmod(0o755)
    return folder


def test_the_hash_is_the_documented_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run").write_bytes(b"2")
    (tmp_path / "b" / "run").chmod(0o755)
    first, second = (hashlib.sha256(content).digest() for content in (b"1", b"2"))
    expected = hashlib.sha256(b"a\0-\0" + first + b"b/run\0x\0" + second).hexdigest()
    assert hash_task(tmp_path) == f"sha256:{expected}"


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "workspace/a").write_text("3"),
        lambda folder: (folder / "workspace/a").rename(folder / "workspace/b"),
        lambda folder: (folder / "workspace/a").chmod(0o755),
        lambda folder: (folder / "solution/solve.sh").chmod(0o644),
        lambda folder: (folder / "workspace/new").write_text(""),
        lambda folder: (folder / "workspace/.hidden/x").unlink(),
        lambda folder: (folder / "workspace/task.lock").write_text("an agent's file"),
    ],
    ids=["bytes", "path", "exec bit set", "exec bit lost", "empty file", "hidden file", "lock in the workspace"],
)
def test_what_the_task_says_changes_the_hash(folder: Path, change: Callable[[Path], object]) -> None:
    before = hash_task(folder)
    change(folder)
    assert hash_task(folder) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "task.lock").write_text("x"),
        lambda folder: (
            (folder / "workspace/__pycache__").mkdir(),
            (folder / "workspace/__pycache__/m").write_text(""),
        ),
        lambda folder: (folder / "workspace/m.pyc").write_text("x"),
        lambda folder: (folder / "workspace/empty").mkdir(),
        lambda folder: (folder / "workspace/a").chmod(0o600),
        lambda folder: (folder / "solution/solve.sh").chmod(0o700),
        lambda folder: os.utime(folder / "workspace/a", (0, 0)),
    ],
    ids=["lock", "__pycache__", "pyc", "empty folder", "other mode bits", "exec for the owner only", "times"],
)
def test_what_a_checkout_adds_does_not_change_the_hash(folder: Path, change: Callable[[Path], object]) -> None:
    before = hash_task(folder)
    change(folder)
    assert hash_task(folder) == before


def test_a_moved_copy_has_the_same_hash(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert hash_task(tmp_path / "copy") == hash_task(folder)


def test_a_wheels_way_leaves_the_hash(folder: Path, tmp_path: Path) -> None:
    """As setuptools packs and pip unpacks: no empty folders, links as files, of the mode the exec bit only."""
    (folder / "workspace/link").symlink_to("a")
    before = hash_task(folder)
    with zipfile.ZipFile(tmp_path / "t.whl", "w") as archive:
        for path in folder.rglob("*"):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    target = tmp_path / "installed"
    with zipfile.ZipFile(tmp_path / "t.whl") as archive:
        for info in archive.infolist():
            extracted = Path(archive.extract(info, target))
            extracted.chmod(0o755 if (info.external_attr >> 16) & 0o111 else 0o644)
    assert hash_task(target) == before


def test_paths_are_sorted_by_their_bytes(tmp_path: Path) -> None:
    for name, order in (("one", ["a/b", "a.b", "a-b"]), ("two", ["a-b", "a.b", "a/b"])):
        for path in order:
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(path)
    assert hash_task(tmp_path / "one") == hash_task(tmp_path / "two")


def test_names_that_are_no_utf_8_are_hashed(folder: Path) -> None:
    before = hash_task(folder)
    Path(os.fsdecode(os.fsencode(folder) + b"/workspace/\xff")).write_text("")
    assert hash_task(folder) != before


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda folder: os.mkfifo(folder / "workspace/pipe"), "is neither a file nor a folder"),
        (lambda folder: (folder / "workspace/out").symlink_to("/etc/passwd"), "leads out of the task"),
        (lambda folder: (folder / "workspace/gone").symlink_to("nothing"), "to a folder or to nothing"),
        (lambda folder: (folder / "workspace/loop").symlink_to("."), "to a folder or to nothing"),
        (lambda folder: (folder / "workspace/self").symlink_to("self"), "to a folder or to nothing"),
    ],
    ids=["fifo", "link out", "dangling", "folder link", "loop"],
)
def test_what_no_wheel_can_carry_is_refused(folder: Path, spoil: Callable[[Path], object], why: str) -> None:
    spoil(folder)
    with pytest.raises(TaskError, match=why):
        hash_task(folder)
    assert any(why in problem.message for problem in inspect_task(folder).problems)
