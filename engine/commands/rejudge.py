"""`fbench rejudge`: the stored work of a run, or of all runs of a suite run, judged by the task as it is now."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fbench.engine.commands.options import (
    Number,
    OrNone,
    SandboxKind,
    config_option,
    find_config,
    json_option,
    option,
    quiet_option,
    runs_dir_option,
)
from fbench.engine.commands.run_options import judge_options, secret_variables, stated_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fbench.engine.events import Event, Watcher
    from fbench.engine.rejudge import RejudgeOptions
    from fbench.engine.results import RunResult

DEFAULT_CONCURRENCY = 4
"""Judgings at once: each has at most one sandbox, most wait for a command or a judge's answer."""


@dataclass(frozen=True, slots=True)
class Rejudged:
    """One run: its result before, the new one, None where it could not be judged again as `problem` says."""

    run_id: str
    before: "RunResult | None"
    after: "RunResult | None" = None
    folder: Path | None = None
    problem: str | None = None


@click.command(short_help="Judge finished runs again.")
@click.argument("run_id", required=False, metavar="[RUN]")
@option("--suite", metavar="ID", help="All runs of this suite run.")
@option("--concurrency", type=click.IntRange(min=1), help=f"Judgings at once [default: {DEFAULT_CONCURRENCY}].")
@option("--task", help="Where the task is now; without it, where the run found it.")
@option(
    "--sandbox",
    type=SandboxKind(),
    help="Where checks run [default: as in the run].",
)
@runs_dir_option
@config_option
@judge_options
@option("--max-model-wait", type=OrNone(Number(min=0)), help="Patience for one judge's call, seconds [default: 600].")
@option(
    "--prices", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Your prices, over the built-in."
)
@option("--image-map", multiple=True, metavar="NAME=OTHER", help="Use image OTHER where a task names NAME.")
@json_option
@quiet_option
def rejudge(
    run_id: str | None,
    suite: str | None,
    concurrency: int | None,
    *,
    as_json: bool,
    quiet: bool,
    **given: Any,  # noqa: ANN401 - click's values
) -> None:
    """Judge a finished run again from its stored workspace, by the task's current grader.

    RUN is a run's id, the beginning of just one id, or a run folder's path. The new verdict is written beside the old
    one, into the run's folder rejudged/; nothing of the run itself is changed.
    """
    from fbench.engine.commands.environment import blank_secrets_in_proc  # noqa: PLC0415 - late: help stays cheap
    from fbench.engine.commands.logging import log_to_stderr  # noqa: PLC0415
    from fbench.engine.errors import UsageError  # noqa: PLC0415
    from fbench.engine.options import DEFAULT_RUNS_DIR  # noqa: PLC0415
    from fbench.engine.records.targets import find_target  # noqa: PLC0415

    if (run_id is None) == (suite is None):
        msg = "say which run: `fbench rejudge RUN`, or `fbench rejudge --suite ID` for all of a suite run"
        raise UsageError(msg)
    log_to_stderr(quiet=quiet)
    blank_secrets_in_proc(secret_variables(find_config(given["config"])))
    folders = find_target(given["runs_dir"] or DEFAULT_RUNS_DIR, str(run_id or suite)).folders
    options = _options(folders, stated_options(given))
    is_alone = run_id is not None
    done, code = _execute(options, concurrency or DEFAULT_CONCURRENCY, is_alone=is_alone, quiet=quiet)
    if as_json:
        document = {"rejudged": [_document(item) for item in done]}
        click.echo(json.dumps(document, indent=2, ensure_ascii=True))
    else:
        click.echo(_text(done))
    sys.exit(code if code is not None else _exit_code(done))


def _exit_code(done: "Sequence[Rejudged]") -> int:
    return 3 if any(item.after is None or item.after.status == "error" for item in done) else 0


def _options(folders: "Sequence[Path]", stated: dict[str, Any]) -> "list[RejudgeOptions]":
    from fbench.engine.rejudge import RejudgeOptions  # noqa: PLC0415 - late, see rejudge

    return [RejudgeOptions.model_validate({**stated, "run": folder, "runs_dir": folder.parent}) for folder in folders]


def _execute(
    options: "Sequence[RejudgeOptions]", concurrency: int, *, is_alone: bool, quiet: bool
) -> tuple[list[Rejudged], int | None]:
    """The rejudged runs in their order, as far as it got, and the exit code of a signal."""
    import anyio  # noqa: PLC0415 - late, see rejudge

    from fbench.engine.commands.progress import Progress  # noqa: PLC0415
    from fbench.engine.commands.signals import run_interruptible  # noqa: PLC0415
    from fbench.engine.engine import Engine  # noqa: PLC0415

    done: dict[int, Rejudged] = {}
    progress = None if quiet or sys.stderr is None or not is_alone else Progress()

    async def one(engine: Engine, number: int, limiter: anyio.CapacityLimiter) -> None:
        async with limiter:
            done[number] = await _rejudge(engine, options[number], progress, is_alone=is_alone)
        if not is_alone and not quiet:
            click.echo(_line(done[number]), err=True)

    async def work() -> None:
        limiter = anyio.CapacityLimiter(concurrency)
        async with Engine() as engine:
            if is_alone:
                await one(engine, 0, limiter)  # what is wrong is told as it is, in no group
            else:
                async with anyio.create_task_group() as group:
                    for number in range(len(options)):
                        group.start_soon(one, engine, number, limiter)

    try:
        finished = anyio.run(run_interruptible, work, None if progress is None else progress.tick)
    finally:
        if progress is not None:
            progress.close()
    return [done[number] for number in sorted(done)], finished.exit_code


async def _rejudge(engine: Any, options: "RejudgeOptions", watch: "Watcher | None", *, is_alone: bool) -> Rejudged:  # noqa: ANN401 - the Engine, imported late
    """One run. In a suite, one that cannot be judged again stops no other."""
    from fbench.engine.errors import FbenchError  # noqa: PLC0415 - late, see rejudge
    from fbench.engine.events import RunStarted  # noqa: PLC0415
    from fbench.engine.records.reading import read_result  # noqa: PLC0415
    from fbench.pricing.errors import PricingError  # noqa: PLC0415
    from fbench.tasks.errors import TaskError  # noqa: PLC0415

    folders: list[Path] = []

    def see(event: "Event") -> None:
        if isinstance(event, RunStarted):
            folders.append(event.folder)
        if watch is not None:
            watch(event)

    run_id = Path(options.run).name
    before = None
    try:
        before = read_result(Path(options.run))
        after = await engine.rejudge(options, see)
    except (FbenchError, TaskError, PricingError) as error:
        if is_alone:
            raise
        return Rejudged(run_id, before, problem=str(error))
    return Rejudged(run_id, before, after, folders[0] if folders else None)


def _document(item: Rejudged) -> dict[str, Any]:
    return {
        "run_id": item.run_id,
        "folder": None if item.folder is None else str(item.folder),
        "problem": item.problem,
        "before": _verdict(item.before),
        "after": _verdict(item.after),
    }


def _verdict(result: "RunResult | None") -> dict[str, Any] | None:
    if result is None:
        return None
    told = ("status", "passed", "score", "error", "checks", "judge_cost_usd", "task_hash")
    document = result.to_json()
    return {name: document[name] for name in told}


def _text(done: "Sequence[Rejudged]") -> str:
    lines = []
    for item in done:
        lines.append(_line(item))
        if item.after is not None and len(done) == 1:
            old = {check.id: check for check in item.before.checks} if item.before else {}
            lines += [
                f"check    {check.id}: {old[check.id].status if check.id in old else 'new'} -> {check.status}, "
                f"score {check.score:g}" + (f": {check.detail}" if check.status != "passed" else "")
                for check in item.after.checks
            ]
        if item.folder is not None:
            lines.append(f"folder   {item.folder}")
    changed = sum(1 for item in done if item.before and item.after and item.before.passed is not item.after.passed)
    if len(done) != 1:
        judged = sum(1 for item in done if item.after is not None and item.after.error is None)
        lines.append(f"{judged} of {len(done)} runs judged again, {changed} of them with another verdict")
    return "\n".join(lines)


def _line(item: Rejudged) -> str:
    if item.after is None:
        return f"NOT JUDGED  {item.run_id}: {item.problem}"
    if item.after.error is not None:
        return f"ERROR  {item.run_id}: {item.after.error.kind}: {item.after.error.message}"
    return f"{_word(item.before)} -> {_word(item.after)}  {item.run_id}"


def _word(result: "RunResult | None") -> str:
    if result is None or result.passed is None or result.score is None:
        return "no verdict" if result is None else result.status
    return f"{'passed' if result.passed else 'failed'} {result.score:.3g}"
