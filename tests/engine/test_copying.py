"""Copying a hostile tree."""

# ruff: noqa: PTH208 - names as the system gives them are what is compared

import os
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fbench.engine.records.copying import LeftOut, copy_tree, remove_tree, tree_size

AS_ROOT = os.geteuid() == 0


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def make_deep(root: Path, depth: int, name: str = "folder-with-a-long-name") -> None:
    """A chain of folders longer than any path may be, a file in each tenth."""
    here = os.open(root, os.O_RDONLY)
    for level in range(depth):
        if level % 10 == 0:
            file = os.open("file", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=here)
            os.write(file, str(level).encode())
            os.close(file)
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_content_modes_and_times_are_kept(source: Path, target: Path) -> None:
    (source / "d").mkdir()
    (source / "d/run.sh").write_bytes(b"#!/bin/sh\n")
    (source / "d/run.sh").chmod(0o6751)
    os.utime(source / "d/run.sh", ns=(1_000_000_000_123, 2_000_000_000_456))
    (source / "d").chmod(0o3750)
    os.utime(source / "d", ns=(5, 6))
    report = copy_tree(source, target)
    info = (target / "d/run.sh").stat()
    assert (target / "d/run.sh").read_bytes() == b"#!/bin/sh\n"
    assert stat.S_IMODE(info.st_mode) == 0o751
    assert info.st_mtime_ns == 2_000_000_000_456
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o1750
    assert (target / "d").stat().st_mtime_ns == 6
    assert (report.files, report.bytes, report.left_out) == (1, 10, ())


def test_links_are_kept_and_never_followed(source: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"s")
    (source / "out").symlink_to(tmp_path / "outside")
    (source / "etc").symlink_to("/etc/passwd")
    (source / "dangling").symlink_to("../../nowhere")
    copy_tree(source, target)
    assert (target / "out").readlink() == tmp_path / "outside"
    assert str((target / "etc").readlink()) == "/etc/passwd"
    assert str((target / "dangling").readlink()) == "../../nowhere"


def test_what_is_no_file_is_left_out_and_listed(source: Path, target: Path) -> None:
    os.mkfifo(source / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(source)
        try:
            server.bind("sock")
        finally:
            os.chdir(here)
        report = copy_tree(source, target)
    assert set(report.left_out) == {LeftOut("fifo", "it is a FIFO"), LeftOut("sock", "it is a socket")}
    assert os.listdir(target) == []


@pytest.mark.skipif(not AS_ROOT, reason="only root makes device nodes")
def test_devices_are_left_out(source: Path, target: Path) -> None:
    (source / "d").mkdir()
    os.mknod(source / "d/zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    assert copy_tree(source, target).left_out == (LeftOut("d/zero", "it is a character device"),)


def test_holes_stay_holes(source: Path, target: Path) -> None:
    with (source / "sparse").open("wb") as file:
        file.seek(2 * 1024**3)
        file.write(b"middle")
        file.truncate(5 * 1024**3)
    started = time.monotonic()
    copy_tree(source, target)
    assert time.monotonic() - started < 5
    info = (target / "sparse").stat()
    assert info.st_size == 5 * 1024**3
    assert info.st_blocks * 512 < 1024**2
    with (target / "sparse").open("rb") as file:
        file.seek(2 * 1024**3 - 2)
        assert file.read(10) == b"\0\0middle\0\0"


def test_hard_links_stay_hard_links(source: Path, target: Path) -> None:
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/one").write_bytes(b"x")
    os.link(source / "a/b/one", source / "two")
    os.link(source / "a/b/one", source / "a/three")
    report = copy_tree(source, target)
    inodes = {(target / path).stat().st_ino for path in ("a/b/one", "two", "a/three")}
    assert len(inodes) == 1
    assert (report.files, report.bytes) == (3, 1)
    assert (source / "two").stat().st_ino not in inodes


def test_names_that_are_no_utf8_are_kept(source: Path, target: Path) -> None:
    raw = b"\xff\xfe \n\"'\\"
    (source / os.fsdecode(raw)).mkdir()
    (source / os.fsdecode(raw) / os.fsdecode(raw)).write_bytes(b"x")
    copy_tree(source, target)
    assert os.listdir(os.fsencode(target)) == [raw]
    assert os.listdir(os.fsencode(target) + b"/" + raw) == [raw]


def test_depth_beyond_any_path_length_is_copied_measured_and_removed(source: Path, target: Path) -> None:
    make_deep(source, 1200)
    open_before = len(os.listdir("/proc/self/fd"))
    report = copy_tree(source, target)
    assert report.left_out == ()
    assert report.files == 120
    assert tree_size(target).files == 120
    assert remove_tree(target) == ()
    assert remove_tree(source) == ()
    assert not source.exists()
    assert not target.exists()
    assert len(os.listdir("/proc/self/fd")) == open_before


AS_NOBODY = """
import fcntl, os, stat, sys
from pathlib import Path
from fbench.engine.records.copying import copy_tree, remove_tree
base = Path(sys.argv[1])
os.setgid(65534)
os.setuid(65534)
source = base / "source"
(source / "locked/in").mkdir(parents=True)
(source / "locked/in/f").write_bytes(b"x")
(source / "f").write_bytes(b"y")
(source / "f").chmod(0)
(source / "locked/in").chmod(0)
(source / "locked").chmod(0)
report = copy_tree(source, base / "target")
assert [o.path for o in report.left_out] == ["foreign", "theirs"], report
modes = {}
for tree in ("source", "target"):
    for name in ("f", "locked"):
        assert stat.S_IMODE((base / tree / name).lstat().st_mode) == 0, (tree, name)
assert report.files == 2, report
(base / "target/locked").chmod(0o700)
assert stat.S_IMODE((base / "target/locked/in").stat().st_mode) == 0
(base / "target/locked").chmod(0)
assert remove_tree(base / "target") == ()
stuck = remove_tree(base / "source")
assert [o.path for o in stuck if o.path.startswith("foreign")], stuck
assert sorted(p.name for p in source.iterdir()) == ["foreign"], list(source.iterdir())
print("done")
"""


@pytest.mark.skipif(not AS_ROOT, reason="becoming another user takes root")
def test_unreadable_entries_are_copied_for_their_owner_and_listed_for_others(tmp_path: Path) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        Path(base).chmod(0o777)
        source = Path(base) / "source"
        source.mkdir()
        (source / "theirs").write_bytes(b"z")
        (source / "theirs").chmod(0o600)
        (source / "foreign").mkdir(mode=0o700)
        (source / "foreign/f").touch()
        os.chown(source, 65534, 65534)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, base], capture_output=True, text=True, check=False, cwd="/"
        )
        assert done.stdout == "done\n", done.stderr


def test_a_source_that_is_gone_gives_an_empty_copy(tmp_path: Path, target: Path) -> None:
    report = copy_tree(tmp_path / "gone", target)
    assert report.left_out == (LeftOut(".", "no such file or directory"),)
    assert os.listdir(target) == []


def test_a_source_that_became_a_link_is_not_followed(tmp_path: Path, target: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    assert copy_tree(tmp_path / "link", target).left_out[0].path == "."
    assert os.listdir(target) == []
    assert remove_tree(tmp_path / "link") == ()
    assert Path("/etc").is_dir()


def test_a_target_that_is_not_empty_is_refused(source: Path, target: Path) -> None:
    target.mkdir()
    (target / "f").touch()
    with pytest.raises(FileExistsError, match="new or empty"):
        copy_tree(source, target)


def test_a_target_inside_the_source_ends(source: Path) -> None:
    (source / "f").write_bytes(b"x")
    assert copy_tree(source, source / "copy").files == 1
    assert os.listdir(source / "copy") == ["f"]


def test_a_tree_that_changes_all_the_time_is_copied_without_harm(source: Path, target: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (source / "d/e").mkdir(parents=True)
    (source / "d/e/secret").write_bytes(b"mine")
    stop = threading.Event()

    def disturb() -> None:
        size = 0
        while not stop.is_set():
            (source / "d").rename(source / "aside")
            (source / "d").symlink_to(outside)
            (source / "d").unlink()
            (source / "aside").rename(source / "d")
            (source / "gone").write_bytes(b"x" * (size := (size + 70_000) % 1_000_000))
            os.truncate(source / "gone", 5)
            (source / "gone").unlink()

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        end = time.monotonic() + 1.5
        copies = 0
        while time.monotonic() < end:
            copy_tree(source, target)
            for path in target.rglob("secret"):
                assert path.is_symlink() or path.read_bytes() == b"mine"
            assert remove_tree(target) == ()
            copies += 1
    finally:
        stop.set()
        thread.join()
    assert copies > 3
    assert (outside / "secret").read_bytes() == b"secret"


def test_a_file_that_grows_without_end_is_copied_to_an_end(source: Path, target: Path) -> None:
    stop = threading.Event()

    def grow() -> None:
        with (source / "log").open("ab") as file:
            while not stop.is_set() and file.tell() < 200_000_000:
                file.write(b"line\n" * 2000)

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        while not (source / "log").exists() or (source / "log").stat().st_size < 1_000_000:
            time.sleep(0.001)
        report = copy_tree(source, target)
    finally:
        stop.set()
        thread.join()
    assert report.files == 1
    assert 0 < (target / "log").stat().st_size <= (source / "log").stat().st_size


def test_size_counts_hard_links_once_and_holes_not_at_all(source: Path) -> None:
    (source / "a").write_bytes(b"x" * 10_000)
    os.link(source / "a", source / "b")
    with (source / "sparse").open("wb") as file:
        file.truncate(10**9)
    size = tree_size(source)
    assert (size.files, size.bytes) == (2, 10_000 + 10**9)
    assert 10_000 <= size.allocated_bytes < 100_000


def test_removing_a_link_leaves_its_target(source: Path, tmp_path: Path) -> None:
    (source / "f").touch()
    (tmp_path / "l").symlink_to(source)
    (source / "up").symlink_to(tmp_path)
    assert remove_tree(tmp_path / "l") == ()
    assert (source / "f").exists()
    assert remove_tree(source) == ()
    assert remove_tree(source) == ()
    assert tmp_path.exists()
