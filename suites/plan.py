"""The plan of a suite run: everything that was decided before its first run, as a file that a resume goes by."""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from secrets import token_hex
from typing import Any

from pydantic import Field, ValidationError

from fbench.engine.errors import UnknownNameError, UsageError
from fbench.engine.options import RunOptions
from fbench.engine.purse import Purse
from fbench.engine.records.atomic import write_atomically
from fbench.engine.records.reading import SUITE_RUN_ID, newer_schema
from fbench.engine.results import Record
from fbench.suites.outcomes import PlannedRun

PLAN = "suite.plan.json"
PLAN_VERSION = 1

_SHOWN = 5
"""Ids listed when several fit."""


class PlannedTask(Record):
    """A task as it was found. `options` are those of its runs by their names in RunOptions, as JSON."""

    task_id: str
    title: str
    difficulty: str
    domain: str
    tags: tuple[str, ...] = ()
    folder: str
    task_hash: str
    options: Mapping[str, Any] = Field(default_factory=dict)


class Cell(Record):
    """A planned run; `position` is its place in the whole suite, also where this plan is a part of it."""

    position: int = Field(ge=0)
    task_id: str
    model: str
    attempt: int = Field(ge=1)
    seed: int | None = None

    @property
    def run(self) -> PlannedRun:
        return PlannedRun(self.task_id, self.model, self.attempt)


class SuitePlan(Record):
    """A suite run, decided.

    Attributes:
        suite_file: where the manifest stood.
        files: digests of the files that the settings name, by path; a resume notices when they change.
        settings_digest: tells whether two plans are parts of one suite with the same settings.
        max_suite_cost: dollars that all runs may spend together.
        cap_changed_at: when a resume was given more dollars; what the cap ended before is owed again.
        shard: `I/N` where this is a part.
        parts: suite runs that were merged into this one; their runs count as its own.
    """

    schema_version: int = PLAN_VERSION
    suite_run_id: str
    suite: str
    title: str = ""
    suite_file: str
    fbench_version: str
    created_at: str
    models: tuple[str, ...]
    attempts: int
    tasks: tuple[PlannedTask, ...]
    cells: tuple[Cell, ...]
    files: Mapping[str, str] = Field(default_factory=dict)
    settings_digest: str
    max_suite_cost: Decimal | None = None
    cap_changed_at: str | None = None
    concurrency: int = Field(ge=1)
    shard: str | None = None
    parts: tuple[str, ...] = ()

    def task(self, task_id: str) -> PlannedTask:
        """The task of a cell."""
        return next(task for task in self.tasks if task.task_id == task_id)

    def options(self, cell: Cell, runs_dir: Path) -> RunOptions:
        """What a cell runs with."""
        task = self.task(cell.task_id)
        seed = {} if cell.seed is None else {"seed": cell.seed}
        return RunOptions.model_validate(
            {
                **task.options,
                **seed,
                "task": task.folder,
                "model": cell.model,
                "attempt": cell.attempt,
                "suite_run_id": self.suite_run_id,
                "runs_dir": runs_dir,
            }
        )

    def purse(self, spent_usd: Decimal = Decimal(0)) -> Purse | None:
        """What its runs spend from, `spent_usd` of it gone already; None without a cap."""
        return None if self.max_suite_cost is None else Purse(self.max_suite_cost, spent_usd=spent_usd)

    @property
    def config(self) -> Path | None:
        """The fbench.toml its runs use."""
        named = next((task.options["config"] for task in self.tasks if "config" in task.options), None)
        return None if named is None else Path(named)

    @property
    def suite_run_ids(self) -> frozenset[str]:
        """The ids under which its runs were made."""
        return frozenset({self.suite_run_id, *self.parts})


def make_suite_run_id(suite: str) -> str:
    """`2026-05-13T20-40-21Z__suite__m2_core__a3f01c2d`: UTC start, the suite, random hex."""
    return f"{datetime.now(UTC).strftime('%Y-%m-%dT%H-%M-%SZ')}__suite__{suite}__{token_hex(4)}"


def digest_of(value: object) -> str:
    """A digest of JSON data, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def write_plan(runs_dir: Path, plan: SuitePlan) -> Path:
    """Put the plan into the suite run's folder, which is made; it is on the disk when this returns. Blocking.

    Raises:
        UsageError: it cannot be written there.
    """
    folder = runs_dir / plan.suite_run_id
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / PLAN, plan.model_dump_json(indent=1) + "\n", below=[runs_dir])
    except OSError as error:
        msg = f"the plan cannot be written into {folder}: {error.strerror or error}; name another --runs-dir"
        raise UsageError(msg) from error
    return folder


def read_plan(folder: Path) -> SuitePlan:
    """The plan in a suite run's folder. Blocking.

    Raises:
        UsageError: there is none, or it is damaged or of a newer fbench.
    """
    path = folder / PLAN
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        msg = f"the plan {path} cannot be read: {error}; {_without_plan(folder)}"
        raise UsageError(msg) from error
    if (newer := newer_schema(document, path, PLAN_VERSION)) is not None:
        raise UsageError(newer)
    try:
        return SuitePlan.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        msg = f"the plan {path} is damaged: `{where}` {first['msg']}; {_without_plan(folder)}"
        raise UsageError(msg) from error


def _without_plan(folder: Path) -> str:
    """What is left to do without a plan."""
    return f"its runs are not touched: `fbench runs --suite {folder.name}` lists them; begin a new suite run"


def find_suite_run(runs_dir: Path, wanted: str) -> Path:
    """The folder of the suite run that `wanted` means: its id, the beginning of just one, or its folder.

    Raises:
        UnknownNameError: there is no such suite run, or more than one.
    """
    for path in (runs_dir / wanted, Path(wanted)):
        if wanted and "\0" not in wanted and (path / PLAN).is_file():
            return path
    names = suite_runs_in(runs_dir)
    matches = [name for name in names if name.startswith(wanted)] if wanted else []
    if len(matches) == 1:
        return runs_dir / matches[0]
    if matches:
        shown = ", ".join(matches[:_SHOWN]) + (", ..." if len(matches) > _SHOWN else "")
        msg = f"{wanted!r} begins the ids of {len(matches)} suite runs in {runs_dir}: {shown}; write more of it"
    else:
        there = ", ".join(names[-_SHOWN:]) or "none"
        msg = f"no suite run {wanted!r} in {runs_dir}; the newest there: {there} (--runs-dir names another folder)"
    raise UnknownNameError(msg)


def suite_runs_in(runs_dir: Path) -> list[str]:
    """The ids of the suite runs with a plan in a runs folder, oldest first."""
    try:
        names = [entry.name for entry in runs_dir.iterdir() if SUITE_RUN_ID.fullmatch(entry.name)]
    except OSError:
        return []
    return sorted(name for name in names if (runs_dir / name / PLAN).is_file())


def parse_shard(text: str) -> tuple[int, int]:
    """The part and the number of parts in `I/N`.

    >>> parse_shard("2/3")
    (2, 3)

    Raises:
        UsageError: it is no such pair.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    part, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part <= count:
        msg = f"--shard {text!r} is no part: write I/N with I from 1 to N, as in 2/3"
        raise UsageError(msg)
    return part, count
