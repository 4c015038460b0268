"""The commands that show tasks: `fbench list-tasks` and `fbench describe`."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fbench.tasks.errors import Problem, TaskError

if TYPE_CHECKING:
    from fbench.tasks.loading import TaskInspection


@click.command("list-tasks")
@click.option("--json", "as_json", is_flag=True, envvar="FBENCH_JSON", help="Print one JSON document.")
def list_tasks(*, as_json: bool) -> None:
    """List the built-in tasks."""
    from fbench.tasks.find import builtin_tasks  # noqa: PLC0415 - as the next
    from fbench.tasks.loading import inspect_task  # noqa: PLC0415 - pydantic is loaded when it is needed

    try:
        tasks = [inspect_task(folder) for folder in builtin_tasks()]
    except TaskError as error:
        _fail(error)
    if as_json:
        _print_json({"tasks": [_summary(task) for task in tasks]})
    else:
        rows = [_row(_summary(task)) for task in tasks]
        _print_table([("TASK", "DIFFICULTY", "DOMAIN", "TITLE"), *rows])
    for task in tasks:
        _report(task.problems)


@click.command("describe")
@click.option("--task", "ref", required=True, metavar="T", envvar="FBENCH_TASK", help="A folder or a task's id.")
@click.option("--json", "as_json", is_flag=True, envvar="FBENCH_JSON", help="Print one JSON document.")
@click.pass_context
def describe(context: click.Context, ref: str, *, as_json: bool) -> None:
    """Show a task as resolved, and its problems.

    The task as YAML on stdout, every problem on stderr; with problems the exit code is 2.
    """
    from fbench.tasks.find import find_task  # noqa: PLC0415 - as the next
    from fbench.tasks.loading import dump_yaml, inspect_task  # noqa: PLC0415 - pydantic is loaded when it is needed

    try:
        task = inspect_task(find_task(ref))
    except TaskError as error:
        if as_json:
            problem = {"file": None, "line": None, "key": "", "message": str(error), "hint": ""}
            _print_json({"task": ref, "folder": None, "resolved": None, "task_hash": None, "problems": [problem]})
        _fail(error)
    if as_json:
        document = {
            "task": task.folder.resolve().name,
            "folder": str(task.folder),
            "resolved": task.resolved,
            "task_hash": task.task_hash,
            "problems": [_as_json(problem) for problem in task.problems],
        }
        _print_json(document)
    elif task.resolved is not None:
        click.echo(dump_yaml(task.resolved), nl=False)
    _report(task.problems)
    if task.problems:
        context.exit(TaskError.exit_code)


@click.command("new-task")
@click.argument("name")
@click.option(
    "--into", type=click.Path(file_okay=False), default=".", help="Where the task's folder goes [default: .]."
)
@click.option("--title", help="What lists show.")
def new_task(name: str, into: str, title: str | None) -> None:
    """Make a new task that validates as it stands, to be changed into what you need.

    NAME becomes its id and its folder's name: lower-case letters, digits and '_'.
    """
    from pathlib import Path  # noqa: PLC0415 - as the next

    from fbench.tasks.skeleton import write_skeleton  # noqa: PLC0415 - only this command needs it

    folder = Path(into, name)
    try:
        written = write_skeleton(folder, title or name.replace("_", " ").capitalize())
    except TaskError as error:
        _fail(error)
    for path in written:
        click.echo(path)
    click.echo(f"`fbench validate --task {folder}` says whether it holds; see docs/writing-a-task.md", err=True)


def _summary(task: "TaskInspection") -> dict[str, Any]:
    resolved = task.resolved or {}
    told = {key: resolved.get(key) for key in ("title", "description", "difficulty", "domain", "tags")}
    problems = [_as_json(problem) for problem in task.problems]
    return {"id": task.folder.name, **told, "folder": str(task.folder), "problems": problems}


def _row(summary: dict[str, Any]) -> tuple[str, ...]:
    title = str(summary["title"] or "")
    count = len(summary["problems"])
    if count:
        title = f"{title} (cannot be used: {count} problem{'s' if count > 1 else ''})".strip()
    return str(summary["id"]), str(summary["difficulty"] or "?"), str(summary["domain"] or "?"), title


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _as_json(problem: Problem) -> dict[str, Any]:
    return {
        "file": problem.file,
        "line": problem.line,
        "key": problem.key,
        "message": problem.message,
        "hint": problem.hint,
    }


def _print_json(document: object) -> None:
    click.echo(json.dumps(document, indent=2))


def _report(problems: Sequence[Problem]) -> None:
    for problem in problems:
        click.echo(str(problem), err=True)


def _fail(error: TaskError) -> NoReturn:
    click.echo(f"Error: {error}", err=True)
    raise click.exceptions.Exit(error.exit_code) from error
