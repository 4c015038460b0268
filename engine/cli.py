"""The command line's root. A command is imported when it is asked for, so `fbench --help` stays cheap.

Commands live in the folder they belong to and are found by dotted name; the root only knows their names, their one
line of help, and how a failure becomes an exit code. Its own help is written without click, whose import alone takes
most of what the help may cost; a test holds the two texts together.
"""

import errno
import os
import stat
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping

SUMMARY = "Evaluate LLM agents on machine-learning engineering tasks."

COMMANDS: "Mapping[str, tuple[str, str]]" = {
    "run": ("fbench.engine.commands.run:run", "Run one model against one task."),
    "suite": ("fbench.suites.commands.suite:suite", "Run many tasks with many models."),
    "list-tasks": ("fbench.tasks.cli:list_tasks", "List the built-in tasks."),
    "describe": ("fbench.tasks.cli:describe", "Show a task as resolved, and its problems."),
    "validate": (
        "fbench.engine.commands.validate:validate",
        "See whether tasks are what their authors mean them to be.",
    ),
    "new-task": ("fbench.tasks.cli:new_task", "Make a new task to begin from."),
    "show-run": ("fbench.engine.commands.history:show_run", "Show one run."),
    "rejudge": ("fbench.engine.commands.rejudge:rejudge", "Judge finished runs again."),
    "runs": ("fbench.engine.commands.history:runs", "List runs from the index."),
    "compare": ("fbench.suites.commands.compare:compare", "Compare suite runs, or models of one."),
    "diff": ("fbench.engine.commands.diff:diff", "Show the first difference between two runs."),
    "pricing": ("fbench.pricing.cli:pricing", "Prices and where they come from."),
    "images": ("fbench.sandboxes.commands.images:images", "The images tasks run in."),
    "doctor": ("fbench.sandboxes.commands.doctor:doctor", "Say what this machine can do."),
    "clean": ("fbench.sandboxes.commands.clean:clean", "Remove what dead runs left behind."),
    "index": ("fbench.engine.commands.index:index", "Make the index again from the run folders."),
}

EXIT_BROKEN_PIPE = 0


def main() -> NoReturn:
    """The program: reads `.env`, runs a command, turns what it raises into an exit code and one line of advice."""
    try:
        if sys.argv[1:] in (["--help"], ["-h"]):
            print(help_text())  # noqa: T201 - this is the program's output
            sys.exit(0)
        code = _run_command()
    except BrokenPipeError:  # `fbench runs | head`: nobody reads on, which is no fault
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_BROKEN_PIPE
    sys.exit(code)


def help_text() -> str:
    """What `fbench --help` prints."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {line}" for name, (_, line) in COMMANDS.items())
    return f"""\
Usage: fbench [OPTIONS] COMMAND [ARGS]...

  {SUMMARY}

Options:
  --version   Show the version.
  -h, --help  Show this message and exit.

Commands:
{commands}"""


def _run_command() -> int:
    import click  # noqa: PLC0415 - see the module

    from fbench.engine.commands.root import root  # noqa: PLC0415

    try:
        if any(argument in COMMANDS for argument in sys.argv[1:]):
            _read_dotenv()
        code = root.main(prog_name="fbench", standalone_mode=False)
    except click.exceptions.Abort:
        return _say("aborted", 130)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        raise
    except Exception as error:
        exit_code = getattr(error, "exit_code", None)
        if isinstance(exit_code, int):
            return _say(str(error), exit_code)
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EIO}:
            return _say(f"cannot write the output: {error.strerror}; make room, or send it elsewhere", 1)
        raise
    return code if isinstance(code, int) else 0


def _say(text: str, code: int) -> int:
    print(f"fbench: {text}", file=sys.stderr)  # noqa: T201 - the program speaks to its user
    return code


def _read_dotenv() -> None:
    """Add what `.env` in the working folder says to the environment; what is set already stays."""
    if not os.path.lexists(".env") or _is_pipe(".env"):
        return
    from fbench.engine.dotenv import read_dotenv  # noqa: PLC0415 - only where there is such a file

    for name, value in read_dotenv(".env").items():
        os.environ.setdefault(name, value)


def _is_pipe(path: str) -> bool:
    """Whether reading would wait for somebody to write."""
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)  # noqa: PTH116 - pathlib is one import more
    except OSError:
        return False
