"""A task that has not changed is not read again; whatever changes in its folder is seen."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fbench.tasks import kept, loading
from fbench.tasks.errors import ManifestError
from fbench.tasks.loading import load_task
from fbench.tasks.outside import own_types

WriteTask = Callable[..., Path]


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    loading._kept._kept.clear()
    yield
    loading._kept._kept.clear()


@pytest.fixture
def folder(write_task: WriteTask) -> Path:
    """A task whose last change is not of this moment."""
    folder = write_task(files={"workspace/data.csv": "1,2\n", "workspace/below/x": "x", "solution/solve.sh": "true\n"})
    (folder / "workspace/link").symlink_to("data.csv")
    time.sleep(kept.TICK_S * 1.5)
    return folder


def test_what_did_not_change_is_not_read_again(folder: Path) -> None:
    first = load_task(folder)
    assert load_task(folder) is first
    assert load_task(Path(os.path.relpath(folder))) is first


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "workspace/data.csv").write_text("2,1\n"),
        lambda folder: (folder / "workspace/below/x").chmod(0o755),
        lambda folder: (folder / "workspace/new").write_text(""),
        lambda folder: (folder / "workspace/below/x").rename(folder / "workspace/below/y"),
        lambda folder: (folder / "workspace/data.csv").unlink() or (folder / "workspace/data.csv").write_text("1,3\n"),
    ],
    ids=["same size", "mode", "new file", "renamed", "replaced"],
)
def test_a_change_is_seen(folder: Path, change: Callable[[Path], object]) -> None:
    before = load_task(folder)
    change(folder)
    after = load_task(folder)
    assert after is not before
    assert after.task_hash != before.task_hash


def test_a_change_that_puts_the_times_back_is_seen(folder: Path) -> None:
    before = load_task(folder)
    file = folder / "workspace/data.csv"
    times = file.stat()
    file.write_text("2,1\n")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert load_task(folder).task_hash != before.task_hash


def test_what_a_link_leads_to_is_looked_at(write_task: WriteTask) -> None:
    folder = write_task(files={"workspace/a": "1"})
    (folder / "workspace/link").symlink_to("a")
    time.sleep(kept.TICK_S * 1.5)
    before = load_task(folder)
    (folder / "workspace/a").write_text("2")
    assert load_task(folder).task_hash != before.task_hash


def test_a_task_that_breaks_is_told_and_one_that_is_mended_is_read(folder: Path) -> None:
    load_task(folder)
    manifest = folder / "task.yaml"
    good = manifest.read_text(encoding="utf-8")
    manifest.write_text(good + "nonsense: 1\n", encoding="utf-8")
    with pytest.raises(ManifestError, match="nonsense"):
        load_task(folder)
    manifest.write_text(good, encoding="utf-8")
    assert load_task(folder).prompt


def test_one_that_changed_a_moment_ago_is_not_kept(folder: Path) -> None:
    (folder / "workspace/data.csv").write_text("3,4\n")
    assert load_task(folder) is not load_task(folder)


def test_a_clock_without_fractions_is_given_longer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def whole_seconds(path: str) -> Iterator[tuple[str, SimpleNamespace]]:
        second = (time.time_ns() // 10**9 - 1) * 10**9
        yield (
            path,
            SimpleNamespace(
                st_mode=0, st_ino=1, st_dev=1, st_size=1, st_mtime_ns=second - 10**9, st_ctime_ns=second - 10**9
            ),
        )

    monkeypatch.setattr(kept, "_walk", whole_seconds)
    monkeypatch.setattr(kept, "COARSE_TICK_S", 1.0)
    assert loading._kept.look_up(folder)[0] is not None
    monkeypatch.setattr(kept, "COARSE_TICK_S", 60.0)
    assert loading._kept.look_up(folder)[0] is None


def test_a_program_with_types_of_its_own_has_its_tasks_read_each_time(folder: Path) -> None:
    before = load_task(folder)
    token = own_types.set({"mine": object})
    try:
        assert load_task(folder) is not before
    finally:
        own_types.reset(token)


def test_so_many_are_kept(folder: Path, write_task: WriteTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_KEPT", 2)
    first = load_task(folder)
    for name in ("b", "c"):
        loading._kept.keep(Path(name), (("x",),), first)
    assert len(loading._kept._kept) == 2
    assert load_task(folder) is not first
