"""Paths of a workspace stay in the workspace."""

# ruff: noqa: PTH208 - names as the system gives them are what is compared

import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fbench.engine.confine import ConfinedFolder, PathMissing, PathOutside, PathRefused

AS_ROOT = os.geteuid() == 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def folder(root: Path) -> ConfinedFolder:
    return ConfinedFolder(root, "/workspace")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"secret")
    return outside


@pytest.mark.parametrize(
    "path", ["a/b.txt", "/workspace/a/b.txt", "./a//b.txt", "a/../a/b.txt", "/workspace/./a/b.txt"]
)
def test_relative_and_inside_paths_reach_the_same_file(folder: ConfinedFolder, root: Path, path: str) -> None:
    (root / "a").mkdir()
    (root / "a/b.txt").write_bytes(b"x")
    assert folder.read_bytes(path) == b"x"
    assert folder.resolve(path) == "a/b.txt"
    assert folder.relative(path) == "a/b.txt"


def test_aliases_mean_the_same_folder(root: Path) -> None:
    (root / "f").write_bytes(b"x")
    folder = ConfinedFolder(root, str(root), aliases=("/workspace",))
    assert folder.read_bytes("/workspace/f") == folder.read_bytes(f"{root}/f") == b"x"


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../outside/file", "a/../../outside/file", "/workspace/../etc/passwd", "/workspacefoo", "/"]
)
def test_paths_that_leave_are_refused_by_name(folder: ConfinedFolder, root: Path, secret: Path, path: str) -> None:
    (root / "a").mkdir()
    for use in (folder.read_bytes, folder.resolve, folder.relative, lambda p: folder.write_bytes(p, b"x")):
        with pytest.raises(PathOutside, match="outside the workspace; use a path under /workspace"):
            use(path)
    assert not folder.exists(path)
    assert (secret / "file").read_bytes() == b"secret"


@pytest.mark.parametrize("target", ["../outside/file", "/etc/passwd", "a/../../outside/file", "{abs}"])
def test_links_that_lead_out_are_refused(folder: ConfinedFolder, root: Path, secret: Path, target: str) -> None:
    (root / "a").mkdir()
    (root / "link").symlink_to(target.format(abs=secret / "file"))
    with pytest.raises(PathOutside, match="is a link that leads out of the workspace"):
        folder.read_bytes("link")
    with pytest.raises(PathOutside):
        folder.write_bytes("link", b"x")
    assert not folder.is_regular_file("link")
    assert (secret / "file").read_bytes() == b"secret"


def test_folder_links_that_lead_out_are_refused(folder: ConfinedFolder, root: Path, secret: Path) -> None:
    (root / "d").symlink_to(secret)
    for path in ("d/file", "d/new", "d/../d/file"):
        with pytest.raises(PathOutside):
            folder.write_bytes(path, b"x")
    with pytest.raises(PathOutside):
        folder.list_folder("d")
    assert sorted(os.listdir(secret)) == ["file"]


def test_links_inside_are_followed_and_their_target_written(folder: ConfinedFolder, root: Path) -> None:
    (root / "real").mkdir()
    (root / "real/f").write_bytes(b"old")
    (root / "rel").symlink_to("real/../real/f")
    (root / "abs").symlink_to("/workspace/real")
    folder.write_bytes("rel", b"new")
    assert (root / "rel").is_symlink()
    assert (root / "real/f").read_bytes() == b"new"
    folder.write_bytes("abs/g", b"g")
    assert (root / "real/g").read_bytes() == b"g"
    assert folder.is_regular_file("rel")
    assert folder.is_folder("abs")


def test_writing_through_a_dangling_inside_link_makes_its_target(folder: ConfinedFolder, root: Path) -> None:
    (root / "link").symlink_to("target")
    folder.write_bytes("link", b"x")
    assert (root / "target").read_bytes() == b"x"
    assert (root / "link").is_symlink()


def test_link_loops_and_long_chains_end(folder: ConfinedFolder, root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with pytest.raises(PathRefused, match="loop of links"):
        folder.read_bytes("a")
    assert not folder.exists("a")
    deep = root
    for _ in range(100):
        deep /= "d"
    deep.mkdir(parents=True)
    down = "/".join(["d"] * 100)
    bomb = "/".join([f"{down}" + "/.." * 100] * 7)
    for index in range(40):
        (root / f"l{index}").symlink_to(f"{bomb}/l{index + 1}")
    started = time.monotonic()
    with pytest.raises(PathRefused):
        folder.read_bytes("l0")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("name", ["\ud800x", "nul\0byte", "", "x" * 300, "a/" * 40000])
def test_impossible_names_are_refused(folder: ConfinedFolder, name: str) -> None:
    with pytest.raises(PathRefused) as caught:
        folder.write_bytes(name, b"x")
    str(caught.value).encode()
    assert len(str(caught.value)) < 500


def test_names_that_are_no_utf8_work(folder: ConfinedFolder, root: Path) -> None:
    folder.write_bytes("b\udcff", b"x")
    assert os.listdir(os.fsencode(root)) == [b"b\xff"]
    assert folder.read_bytes("b\udcff") == b"x"


def test_fifo_socket_and_folder_are_refused_without_waiting(folder: ConfinedFolder, root: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "d").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(root)
        try:
            server.bind("sock")
        finally:
            os.chdir(here)
        for path, words in (("fifo", "is a FIFO"), ("sock", "is a socket"), ("d", "is a folder"), (".", "is a folder")):
            with pytest.raises(PathRefused, match=words):
                folder.read_bytes(path)
            with pytest.raises(PathRefused, match=words):
                folder.write_bytes(path, b"x")
            assert not folder.is_regular_file(path)


@pytest.mark.skipif(not AS_ROOT, reason="only root makes device nodes")
def test_devices_are_refused(folder: ConfinedFolder, root: Path) -> None:
    os.mknod(root / "zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    with pytest.raises(PathRefused, match="is a character device"):
        folder.read_bytes("zero")
    with pytest.raises(PathRefused, match="is a character device"):
        folder.write_bytes("zero", b"x")


def test_missing_files_say_so(folder: ConfinedFolder) -> None:
    with pytest.raises(PathMissing, match="'a/b' does not exist under /workspace"):
        folder.read_bytes("a/b")
    with pytest.raises(PathMissing):
        folder.write_bytes("a/b", b"x", create_parents=False)


def test_a_file_as_a_folder_says_so(folder: ConfinedFolder, root: Path) -> None:
    (root / "f").write_bytes(b"")
    with pytest.raises(PathRefused, match="not a folder"):
        folder.read_bytes("f/g")
    with pytest.raises(PathRefused, match="not a folder"):
        folder.read_bytes("f/")
    assert not folder.exists("f/")
    with pytest.raises(PathRefused, match="is a folder"):
        folder.write_bytes("new/", b"x")


def test_large_files_are_refused_not_cut(folder: ConfinedFolder) -> None:
    folder.write_bytes("f", b"x" * 101)
    assert len(folder.read_bytes("f", limit=101)) == 101
    with pytest.raises(PathRefused, match="larger than 100 bytes"):
        folder.read_bytes("f", limit=100)


def test_writing_keeps_the_mode_and_leaves_no_other_file(folder: ConfinedFolder, root: Path) -> None:
    (root / "f").write_bytes(b"old")
    (root / "f").chmod(0o4755)
    folder.write_bytes("f", b"new")
    assert stat.S_IMODE((root / "f").stat().st_mode) == 0o755
    folder.write_bytes("x/y/z", b"")
    assert stat.S_IMODE((root / "x/y/z").stat().st_mode) == 0o644
    assert sorted(os.listdir(root)) == ["f", "x"]


def test_exclusive_writing_refuses_what_is_there(folder: ConfinedFolder, root: Path) -> None:
    folder.write_bytes("f", b"1", exclusive=True)
    with pytest.raises(PathRefused, match="exists already"):
        folder.write_bytes("f", b"2", exclusive=True)
    assert (root / "f").read_bytes() == b"1"
    assert os.listdir(root) == ["f"]
    assert (root / "f").stat().st_nlink == 1


@pytest.mark.skipif(not AS_ROOT, reason="only root gives files away")
def test_new_files_belong_to_the_owner_of_the_folder(folder: ConfinedFolder, root: Path) -> None:
    os.chown(root, 12345, 12346)
    folder.write_bytes("a/b/f", b"x")
    for path in ("a", "a/b", "a/b/f"):
        info = (root / path).stat()
        assert (info.st_uid, info.st_gid) == (12345, 12346)
    os.chown(root / "a/b/f", 777, 778)
    folder.write_bytes("a/b/f", b"y")
    assert ((root / "a/b/f").stat().st_uid, (root / "a/b/f").stat().st_gid) == (777, 778)


def test_hard_links_to_outside_are_not_written_through(folder: ConfinedFolder, root: Path, secret: Path) -> None:
    os.link(secret / "file", root / "f")
    folder.write_bytes("f", b"mine")
    assert (secret / "file").read_bytes() == b"secret"


def test_removing_takes_files_only(folder: ConfinedFolder, root: Path, secret: Path) -> None:
    folder.write_bytes("f", b"x")
    folder.remove_file("f")
    assert not folder.exists("f")
    (root / "d").mkdir()
    (root / "l").symlink_to(secret / "file")
    for path in ("d", "l", "gone"):
        with pytest.raises(PathRefused):
            folder.remove_file(path)
    assert (secret / "file").exists()


def test_listing_shows_levels_kinds_and_link_targets(folder: ConfinedFolder, root: Path) -> None:
    (root / "a/b/c").mkdir(parents=True)
    (root / "a/f").write_bytes(b"12")
    (root / "l").symlink_to("a")
    (root / ".git").mkdir()
    (root / ".git/x").write_bytes(b"")
    found = folder.list_folder(".", 2, closed=lambda name: name == ".git")
    assert [(entry.path, entry.kind) for entry in found.entries] == [
        (".git", "folder"),
        ("a", "folder"),
        ("a/b", "folder"),
        ("a/f", "file"),
        ("l", "link"),
    ]
    assert found.entries[3].size_bytes == 2
    assert found.entries[4].link_target == "a"
    assert not found.is_cut


def test_listing_of_a_huge_folder_is_cut(folder: ConfinedFolder, root: Path) -> None:
    for index in range(2100):
        (root / f"f{index}").touch()
    found = folder.list_folder()
    assert found.is_cut
    assert len(found.entries) == 2000


def test_paths_three_hundred_folders_deep_work(folder: ConfinedFolder) -> None:
    path = "/".join(["deep-folder-name"] * 300) + "/f"
    folder.write_bytes(path, b"x")
    assert folder.read_bytes(path) == b"x"


def test_no_descriptor_is_left_open(folder: ConfinedFolder, root: Path, secret: Path) -> None:
    (root / "out").symlink_to(secret)
    before = len(os.listdir("/proc/self/fd"))
    for path in ("a/b", "out/file", "../x", "a/b/../../../x", ".", "gone/x/y"):
        for use in (folder.read_bytes, folder.list_folder, folder.exists, folder.remove_file):
            try:
                use(path)
            except PathRefused:
                continue
    assert len(os.listdir("/proc/self/fd")) == before


@contextmanager
def swapping(path: Path, aside: Path, target: Path) -> Iterator[None]:
    """While open, `path` is in turn what it was and a link to `target`."""
    stop = threading.Event()
    link = aside.with_name("link")

    def swap() -> None:
        while not stop.is_set():
            path.rename(aside)
            link.symlink_to(target)
            link.rename(path)
            path.unlink()
            aside.rename(path)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_folder_swapped_for_a_link_never_leads_out(folder: ConfinedFolder, root: Path, secret: Path) -> None:
    (root / "d").mkdir()
    (root / "d/file").write_bytes(b"mine")
    done = refused = 0
    with swapping(root / "d", root / "aside", secret):
        enough, end = time.monotonic() + 1.0, time.monotonic() + 60.0
        while time.monotonic() < (enough if done and refused else end):
            try:
                assert folder.read_bytes("d/file") == b"mine"
                folder.write_bytes("d/file", b"mine", create_parents=False)
                done += 1
            except PathRefused:
                refused += 1
    assert done
    assert refused
    assert os.listdir(secret) == ["file"]
    assert (secret / "file").read_bytes() == b"secret"


def test_a_file_swapped_for_a_link_never_leads_out(folder: ConfinedFolder, root: Path, secret: Path) -> None:
    (root / "f").write_bytes(b"mine")
    seen = 0
    with swapping(root / "f", root / "aside", secret / "file"):
        enough, end = time.monotonic() + 1.0, time.monotonic() + 60.0
        while time.monotonic() < (enough if seen else end):
            try:
                assert folder.read_bytes("f") == b"mine"
                seen += 1
            except PathRefused:
                continue
    assert seen
    assert (secret / "file").read_bytes() == b"secret"
