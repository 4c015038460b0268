"""A suite in parts, and the parts joined."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fbench.engine.errors import UsageError
from fbench.suites.loading import load_suite_outcome
from fbench.suites.merging import merge_suite_runs
from fbench.suites.plan import parse_shard

if TYPE_CHECKING:
    from tests.suites.conftest import Workshop


@pytest.fixture
def suite(workshop: "Workshop") -> Path:
    for name in ("one", "two", "three"):
        workshop.task(name)
    return workshop.suite(models=["fake/oracle", "fake/nop"])


def test_parts_share_the_runs_out_and_merge_into_the_whole(workshop: "Workshop", suite: Path) -> None:
    whole = workshop.fbench("run", suite)
    parts = [workshop.fbench("run", suite, "--shard", f"{part}/4") for part in range(1, 5)]
    assert [len(part["runs"]) for part in parts] == [2, 2, 1, 1]
    merged = workshop.fbench("merge", *(part["suite_run_id"] for part in reversed(parts)))
    names = ("task", "model", "attempt", "passed", "score")
    assert [[run[name] for name in names] for run in merged["runs"]] == [
        [run[name] for name in names] for run in whole["runs"]
    ]
    assert {run["run_id"] for run in merged["runs"]} == {run["run_id"] for part in parts for run in part["runs"]}
    assert merged["finished_at"] is not None
    made = len(workshop.results())
    assert workshop.fbench("resume", merged["suite_run_id"])["runs"] == merged["runs"]
    assert len(workshop.results()) == made


def test_a_part_whose_runs_lie_elsewhere_is_not_taken_for_one_that_owes_them(
    workshop: "Workshop", suite: Path, tmp_path: Path
) -> None:
    parts = [workshop.fbench("run", suite, "--shard", f"{part}/2") for part in (1, 2)]
    ids = [part["suite_run_id"] for part in parts]
    other = tmp_path / "other"
    with pytest.raises(UsageError, match=r"outside of the runs folder .*: copy it there with the folders of its runs"):
        merge_suite_runs(other, [str(workshop.runs_dir / each) for each in ids])
    for each in ids:
        shutil.copytree(workshop.runs_dir / each, other / each)
    with pytest.raises(UsageError, match=r"none of its runs are in .*other"):
        merge_suite_runs(other, ids)
    assert sorted(path.name for path in other.iterdir()) == sorted(ids)
    shutil.copytree(workshop.runs_dir, other, dirs_exist_ok=True)
    assert len(merge_suite_runs(other, ids).cells) == 6


def test_what_parts_owe_the_whole_does(workshop: "Workshop", suite: Path) -> None:
    parts = [workshop.fbench("run", suite, "--shard", f"{part}/2") for part in (1, 2)]
    Path(parts[0]["runs"][0]["folder"], "result.json").unlink()
    merged = workshop.fbench("merge", *(part["suite_run_id"] for part in parts))
    assert merged["totals"]["not_run"] == 1
    done = workshop.fbench("resume", merged["suite_run_id"])
    assert done["totals"]["completed"] == 6
    outcome = load_suite_outcome(workshop.runs_dir, merged["suite_run_id"])
    assert {result.suite_run_id for result in outcome.results.values()} == {
        merged["suite_run_id"], *(part["suite_run_id"] for part in parts),
    }  # fmt: skip


def test_parts_that_overlap_or_differ_are_refused(workshop: "Workshop", suite: Path) -> None:
    first = workshop.fbench("run", suite, "--shard", "1/2")["suite_run_id"]
    same = workshop.fbench("run", suite, "--shard", "1/3")["suite_run_id"]
    other = workshop.fbench("run", suite, "--shard", "2/2", "--max-turns", "3")["suite_run_id"]
    for ids, words in (([first, same], "overlaps"), ([first, other], "no parts of one suite"), ([first], "two")):
        refused = workshop.invoke("merge", *ids)
        assert isinstance(refused.exception, UsageError)
        assert words in str(refused.exception)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="write I/N"):
        parse_shard(text)


def test_a_part_that_holds_nothing_is_refused(workshop: "Workshop", suite: Path) -> None:
    refused = workshop.invoke("run", suite, "--shard", "7/7")
    assert isinstance(refused.exception, UsageError)
    assert "this part holds none" in str(refused.exception)
