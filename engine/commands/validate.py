"""`fbench validate`: is a task what its author means it to be? Nothing done fails, the solution passes, cheats gain
nothing."""

import json
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fbench.engine.commands.options import (
    SandboxKind,
    config_option,
    find_config,
    json_option,
    option,
    quiet_option,
)
from fbench.engine.commands.run_options import judge_options, secret_variables

if TYPE_CHECKING:
    from fbench.engine.validating import ValidationOptions
    from fbench.engine.validation import Validation, ValidationRun
    from fbench.tasks.loading import LoadedTask

_WORDS = {"valid": "VALID", "faulty": "FAULTY", "undetermined": "UNKNOWN"}


@click.command()
@option(
    "--task", "tasks", multiple=True, type=click.Path(), help="A task's folder or a built-in task's id; repeatable."
)
@option("--all", "all_built_in", is_flag=True, help="All built-in tasks.")
@option("--repeat", type=click.IntRange(min=1), help="How often the solution must pass [default: 1].")
@option("--concurrency", type=click.IntRange(min=1), help="Runs of a task at a time [default: 2].")
@option(
    "--sandbox",
    type=SandboxKind(),
    help="Where the runs go [default: auto, the task's own].",
)
@option(
    "--image-map",
    multiple=True,
    metavar="NAME=OTHER",
    help="Use image OTHER where a task names NAME; may be repeated, the variable takes several.",
)
@judge_options
@config_option
@option(
    "--runs-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the runs there [default: a temporary folder, kept only where something is at fault].",
)
@option("--no-lock", is_flag=True, help="Do not write task.lock.")
@json_option
@quiet_option
def validate(*, runs_dir: Path | None, as_json: bool, quiet: bool, **given: Any) -> None:  # noqa: ANN401 - click's values
    """Validate tasks; exit with 1 when one is at fault.

    Doing nothing must fail, the reference solution must pass, each exploit must score no more than doing nothing, and a
    rubric must tell the solution from all of these. What is found is stored in the task's task.lock.
    """
    from fbench.engine.commands.environment import blank_secrets_in_proc  # noqa: PLC0415 - late: help stays cheap
    from fbench.engine.commands.logging import log_to_stderr  # noqa: PLC0415

    log_to_stderr(quiet=quiet)
    tasks = _find_tasks(given.pop("tasks"), all_built_in=given.pop("all_built_in"))
    given["config"] = find_config(given["config"])
    blank_secrets_in_proc(secret_variables(given["config"]))  # the judge's key, out of sight of scripts in `local`
    options = _options(given)
    with _folder_for_runs(runs_dir) as folder:
        found, code = _execute(tasks, options(runs_dir=folder.path), quiet=quiet)
        if any(item.outcome != "valid" for item in found):
            folder.keep()
    kept = folder.path if folder.is_kept else None
    if as_json:
        document = {
            "schema_version": 1,
            "runs_dir": None if kept is None else str(kept),
            "is_complete": code is None,
            "tasks": [item.model_dump(mode="json") for item in found],
        }
        click.echo(json.dumps(document, indent=2, ensure_ascii=True))
    else:
        for item in found:
            click.echo(_readable(item))
        if kept is not None:
            click.echo(f"runs       {kept}")
    sys.exit(code if code is not None else exit_code_of(found))


@dataclass(slots=True)
class _RunsFolder:
    """Where the runs go: the folder asked for, or a scratch folder, which is not left behind even by a SIGKILL."""

    path: Path
    is_kept: bool

    def keep(self) -> None:
        """Take the runs out of the scratch folder, under a name that nothing sweeps."""
        if not self.is_kept:
            kept = Path(tempfile.mkdtemp(prefix="fbench-validate-"))
            self.path = self.path.rename(kept)
            self.is_kept = True


@contextmanager
def _folder_for_runs(asked_for: Path | None) -> Iterator[_RunsFolder]:
    from fbench.engine.records.copying import remove_tree  # noqa: PLC0415 - late: help stays cheap
    from fbench.engine.scratch import make_scratch_folder  # noqa: PLC0415

    if asked_for is not None:
        yield _RunsFolder(asked_for, is_kept=True)
        return
    scratch = make_scratch_folder(f"validate-{secrets.token_hex(8)}")
    runs = scratch / "runs"
    runs.mkdir()
    try:
        yield _RunsFolder(runs, is_kept=False)
    finally:
        remove_tree(scratch)


def exit_code_of(found: "Sequence[Validation]") -> int:
    """The contract's exit code of several: wrong usage before errors, errors before faults."""
    codes = {item.exit_code for item in found}
    return next((code for code in (2, 3, 1) if code in codes), 0)


def _find_tasks(refs: Sequence[str], *, all_built_in: bool) -> "list[LoadedTask]":
    """Every task asked for, each once; a broken one is told before any is run."""
    from fbench.engine.errors import UsageError  # noqa: PLC0415 - late: help stays cheap
    from fbench.tasks.find import builtin_tasks, find_task  # noqa: PLC0415
    from fbench.tasks.loading import load_task  # noqa: PLC0415

    folders = [find_task(ref) for ref in refs] + (builtin_tasks() if all_built_in else [])
    if not folders:
        msg = "no task to validate: name one with --task, or all built-in ones with --all"
        raise UsageError(msg)
    return [load_task(folder) for folder in dict.fromkeys(folder.resolve() for folder in folders)]


def _options(given: dict[str, Any]) -> Callable[..., "ValidationOptions"]:
    """What makes the options, given a folder for the runs."""
    from fbench.engine.options import parse_image_map  # noqa: PLC0415 - late: help stays cheap
    from fbench.engine.validating import ValidationOptions  # noqa: PLC0415

    given["image_map"] = parse_image_map(given["image_map"])
    given["writes_lock"] = not given.pop("no_lock")
    return partial(ValidationOptions, **{name: value for name, value in given.items() if value is not None})


def _execute(
    tasks: "Sequence[LoadedTask]", options: "ValidationOptions", *, quiet: bool
) -> "tuple[list[Validation], int | None]":
    """What was found, as far as it got, and the exit code of a signal. Tasks go one after the other."""
    import anyio  # noqa: PLC0415 - late: help stays cheap
    import anyio.to_thread  # noqa: PLC0415

    from fbench.engine.commands.signals import run_interruptible  # noqa: PLC0415
    from fbench.engine.engine import Engine  # noqa: PLC0415
    from fbench.engine.registry import load_part  # noqa: PLC0415
    from fbench.engine.validating import validate_task  # noqa: PLC0415

    found: list[Validation] = []

    async def work() -> None:
        await anyio.to_thread.run_sync(load_part("sweep_scratch"))
        async with Engine() as engine:
            for task in tasks:  # one by one: what is found is told even if a later one is interrupted
                found.append(await validate_task(engine, task, options, _ignore if quiet else _show))  # noqa: PERF401

    finished = anyio.run(run_interruptible, work)
    return found, finished.exit_code


def _ignore(_task_id: str, _run: "ValidationRun") -> None:
    """The watcher of a quiet validation."""


def _show(task_id: str, run: "ValidationRun") -> None:
    click.echo(f"{task_id}: {run.title}: {_verdict(run)}", err=True)


def _readable(found: "Validation") -> str:
    from fbench.engine.records.showing import clean  # noqa: PLC0415 - late: help stays cheap

    sandbox = next((run.sandbox for run in found.runs if run.sandbox), None)
    lines = [f"{_WORDS[found.outcome]}  {found.task_id}" + (f"  in {sandbox}" if sandbox else "")]
    lines += [f"{run.part:<10} {run.name + ': ' if run.name else ''}{_verdict(run)}" for run in found.runs]
    for word, texts in (
        ("rubric", found.rubrics),
        ("fault", found.faults),
        ("trouble", found.troubles),
        ("warning", found.warnings),
    ):
        lines += [f"{word:<10} {text}" for text in texts]
    if found.lock is not None:
        what = "written" if found.lock.is_written else f"not written: {found.lock.why_not}"
        lines.append(f"{'lock':<10} {found.lock.path} {what}")
    return clean("\n".join(lines))


def _verdict(run: "ValidationRun") -> str:
    if run.score is None:
        return run.status
    word = "passed" if run.passed else "failed"
    killed = f", {run.kill_reason}" if run.kill_reason else ""
    return f"{word}, score {run.score:g}{killed}"
