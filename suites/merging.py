"""Parts of a suite that ran as shards become one suite run. No run folder is moved or changed."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from fbench.engine.errors import UsageError
from fbench.engine.records.reading import read_suites
from fbench.engine.records.transcript import utc_now
from fbench.suites.loading import load_suite_outcome
from fbench.suites.lock import hold_suite_run
from fbench.suites.plan import Cell, SuitePlan, find_suite_run, make_suite_run_id, read_plan, write_plan


def merge_suite_runs(runs_dir: Path, wanted: Sequence[str]) -> SuitePlan:
    """The plan of a new suite run that holds the runs of all these, written into the runs folder. Blocking.

    Raises:
        UsageError: the parts differ in tasks or settings, overlap, one of them is being run, or not all that it left is
            in the runs folder.
    """
    folders = list(dict.fromkeys(find_suite_run(runs_dir, each) for each in wanted))
    if len(folders) < 2:  # noqa: PLR2004 - joining takes two
        msg = "name at least two suite runs to merge: fbench suite merge ID ID"
        raise UsageError(msg)
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(hold_suite_run(folder))
        plans = [read_plan(folder) for folder in folders]
        finished = {suite.suite_run_id for suite in read_suites(runs_dir) if suite.finished_at is not None}
        for folder in folders:
            _need_its_runs(runs_dir, folder, was_finished=folder.name in finished)
        merged = join_plans(plans)
        write_plan(runs_dir, merged)
    return merged


def _need_its_runs(runs_dir: Path, folder: Path, *, was_finished: bool) -> None:
    """A part whose runs were left behind would be taken for one that still owes them."""
    if folder.resolve().parent != runs_dir.resolve():
        msg = (
            f"{folder} lies outside of the runs folder {runs_dir}: copy it there with the folders of its runs, "
            f"or name the folder that holds all parts with --runs-dir"
        )
        raise UsageError(msg)
    if was_finished and not load_suite_outcome(runs_dir, folder.name).results:
        msg = (
            f"the suite run {folder.name} had finished, and none of its runs are in {runs_dir}: copy their folders "
            f"there too, or have them made again with `fbench suite resume {folder.name}`"
        )
        raise UsageError(msg)


def join_plans(plans: Sequence[SuitePlan]) -> SuitePlan:
    """One plan of several parts.

    Raises:
        UsageError: they differ in tasks or settings, or overlap.
    """
    first = plans[0]
    cells: dict[int, Cell] = {}
    for plan in plans:
        if plan.suite != first.suite or plan.settings_digest != first.settings_digest:
            msg = (
                f"{plan.suite_run_id} and {first.suite_run_id} are no parts of one suite with the same settings: their "
                f"tasks, models, attempts, options or files differ; run the parts with the same command but for --shard"
            )
            raise UsageError(msg)
        if twice := [cell for cell in plan.cells if cell.position in cells]:
            cell = twice[0]
            msg = (
                f"{plan.suite_run_id} overlaps with another part: {cell.task_id} with {cell.model}, attempt "
                f"{cell.attempt}, and {len(twice) - 1} more; each planned run may come from one part only"
            )
            raise UsageError(msg)
        cells |= {cell.position: cell for cell in plan.cells}
    caps = [plan.max_suite_cost for plan in plans]
    return first.model_copy(
        update={
            "suite_run_id": make_suite_run_id(first.suite),
            "created_at": min((plan.created_at for plan in plans), default=utc_now()),
            "cells": tuple(cells[position] for position in sorted(cells)),
            "max_suite_cost": None if None in caps else sum(cap for cap in caps if cap is not None),
            "shard": None,
            "parts": tuple(each for plan in plans for each in (plan.suite_run_id, *plan.parts)),
        }
    )
