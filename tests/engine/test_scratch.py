"""Scratch folders: whose they are, with and without extended attributes, and where the file system puts them."""

import array
import errno
import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from fbench.engine import UsageError, scratch
from fbench.engine.owner import Owner, owner_identity
from fbench.engine.records import spreading
from fbench.engine.records.copying import LITTLE_BYTES, LITTLE_ENTRIES, is_little_tree
from fbench.engine.scratch import OWNER_FILE, is_dead, make_scratch_folder, open_scratch, scratch_root


@pytest.fixture(autouse=True)
def own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def no_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_more: object) -> bytes:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    monkeypatch.setattr(os, "getxattr", refuse)


def dead_mark() -> str:
    me = Owner.this_process()
    return str(Owner(me.host, me.pid, me.start + 1))


async def test_a_folder_without_attributes_has_its_owner_in_a_file(no_attributes: None) -> None:
    async with open_scratch("run-1") as folder:
        assert folder == scratch_root() / "run-1"
        assert (folder / OWNER_FILE).read_text() == owner_identity()
        assert not is_dead(folder)
        (folder / "deep").mkdir()
    assert list(scratch_root().iterdir()) == []
    folder = make_scratch_folder("run-2")
    (folder / OWNER_FILE).write_text(dead_mark())
    assert is_dead(folder)


async def test_a_marked_folder_is_known_by_itself_until_it_is_gone() -> None:
    async with open_scratch("run-1") as folder:
        assert not is_dead(folder)
    assert list(scratch_root().iterdir()) == []
    folder = make_scratch_folder("run-2")
    if scratch._mark(folder):  # file systems without attributes have the file, see above
        os.setxattr(folder, scratch.OWNER_ATTRIBUTE, dead_mark().encode())
        assert is_dead(folder)
        os.setxattr(folder, scratch.OWNER_ATTRIBUTE, b"no mark of ours")
        assert not is_dead(folder)


def test_the_same_folder_is_never_given_twice() -> None:
    make_scratch_folder("run-1")
    with pytest.raises(UsageError, match="cannot make a scratch folder"):
        make_scratch_folder("run-1")


def flags_of(folder: Path) -> int | None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        flags = array.array("l", [0])
        fcntl.ioctl(opened, spreading._GET_FLAGS, flags)
        return flags[0]
    except OSError:
        return None
    finally:
        os.close(opened)


def test_runs_are_spread_from_the_first_on_and_old_folders_left_as_they_are(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for name in ("a", "b"):
        (old / name).mkdir(parents=True)
    (new / "a").mkdir(parents=True)
    before = flags_of(new)
    spreading.spread_if_first(old)
    spreading.spread_if_first(new)
    spreading.spread_if_first(tmp_path / "gone")
    assert flags_of(old) == before
    hint = spreading._TOP_OF_HIERARCHIES
    # Where the file system has no such hint, nothing has changed, and nothing was raised.
    assert flags_of(new) in ({before | hint} if before is not None else {None}) | {before}


def test_a_little_tree_is_told_without_looking_at_all_of_a_large_one(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    assert not is_little_tree(tree)
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "link").symlink_to("/")
    (tree / "file").write_bytes(bytes(LITTLE_BYTES))
    assert is_little_tree(tree)
    (tree / "more").write_bytes(b"x")
    assert not is_little_tree(tree)
    (tree / "file").unlink()
    assert is_little_tree(tree)
    os.mkfifo(tree / "pipe")
    assert not is_little_tree(tree)
    (tree / "pipe").unlink()
    for number in range(LITTLE_ENTRIES):
        (tree / str(number)).touch()
    assert not is_little_tree(tree)
