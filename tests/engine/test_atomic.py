"""Files that are there whole or not at all, and the disk space that is held for them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fbench.engine.records import reserve
from fbench.engine.records.atomic import NewFile, pretty_json, write_atomically
from fbench.engine.records.reserve import RESERVED_BYTES, HeldSpace


def descriptors() -> set[int]:
    """Of this process; one of them is of the look itself."""
    return {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}


def test_a_new_file_takes_its_place_when_settled_and_not_before(tmp_path: Path) -> None:
    place, said = tmp_path / "result.json", tmp_path / "said.jsonl"
    place.write_text("old")
    said.write_text("a line\n")
    with NewFile(place, "n\udce9w", after=[said, tmp_path / "never_written"], below=[tmp_path.parent]) as file:
        assert place.read_text() == "old"
        file.settle()
        assert place.read_text() == "n\\udce9w"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json", "said.jsonl"]
    assert place.stat().st_mode & 0o777 == 0o644


def test_a_new_file_that_is_not_settled_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "result.json"
    place.write_text("old")
    opened = descriptors()
    with NewFile(place, "new"):
        pass
    with pytest.raises(FileNotFoundError):
        NewFile(place, "new", below=[tmp_path / "gone"])
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "gone" / "result.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert place.read_text() == "old"
    assert descriptors() == opened


@pytest.mark.parametrize(
    "value",
    [
        {"a": [], "b": {}, "c": [1, -2.5, 1e300, 1e-7, 10**30], "d": None, "é\n\x00\x7f\u2028": "\\\"'</"},
        {"lone": "\udce9", "nested": [{"deep": ["\udcff"]}]},
        [],
        "text",
    ],
)
def test_pretty_json_is_the_same_value(value: object) -> None:
    text = pretty_json(value)
    assert json.loads(text) == value
    assert text.endswith("\n")
    assert len(text.splitlines()) == len((json.dumps(value, indent=2, ensure_ascii=False) + "\n").splitlines())


@pytest.fixture
def allocated(tmp_path: Path) -> Iterator[int]:
    """The descriptor of the nameless file that holds the space of all runs in `tmp_path`, while one run lasts."""
    first = HeldSpace(tmp_path)
    [fd] = [fd for fd in descriptors() if _is_below(fd, tmp_path)]
    yield fd
    first.release()
    assert not _is_below(fd, tmp_path)


def _is_below(fd: int, folder: Path) -> bool:
    try:
        return Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(folder)
    except OSError:
        return False


def test_each_run_holds_space_of_its_own_in_one_file(allocated: int, tmp_path: Path) -> None:
    others = [HeldSpace(tmp_path) for _ in range(3)]
    assert os.fstat(allocated).st_size == 4 * RESERVED_BYTES
    assert os.fstat(allocated).st_blocks * 512 >= 4 * RESERVED_BYTES
    others[0].release()
    others[0].release()
    assert os.fstat(allocated).st_size == 3 * RESERVED_BYTES
    assert os.fstat(allocated).st_blocks * 512 < 4 * RESERVED_BYTES
    for other in others[1:]:
        other.release()
    assert os.fstat(allocated).st_size == RESERVED_BYTES
    assert list(tmp_path.iterdir()) == []


def test_space_that_is_not_there_is_refused_and_takes_none_from_others(
    allocated: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate_a_part(fd: int, start: int, size: int) -> None:
        os.posix_fallocate(fd, start, size // 2)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(reserve, "_allocate", allocate_a_part)
        with pytest.raises(OSError, match="No space left"):
            HeldSpace(tmp_path)
    assert os.fstat(allocated).st_size == RESERVED_BYTES
    HeldSpace(tmp_path).release()
    assert os.fstat(allocated).st_size == RESERVED_BYTES


def test_space_that_cannot_be_given_back_loses_nothing(
    allocated: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stubborn:
        def truncate(self, _size: int) -> None:
            raise OSError(28, "No space left on device")

    other = HeldSpace(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(reserve._reserves[tmp_path], "file", Stubborn())
        other.release()
    HeldSpace(tmp_path).release()
    assert os.fstat(allocated).st_size == RESERVED_BYTES
