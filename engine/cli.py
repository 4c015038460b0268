"""The command line's root. A command is imported when it is asked for, so `fbench --help` stays cheap.

Commands live in the folder they belong to and are found by dotted name; the root only knows their names, their one
line of help, and how a failure becomes an exit code.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMANDS: "Mapping[str, tuple[str, str]]" = {
    "run": ("fbench.engine.commands.run:run", "Run one model against one task."),
    "list-tasks": ("fbench.tasks.cli:list_tasks", "List the built-in tasks."),
    "describe": ("fbench.tasks.cli:describe", "Show a task as resolved, and its problems."),
    "show-run": ("fbench.engine.commands.history:show_run", "Show one run."),
    "runs": ("fbench.engine.commands.history:runs", "List runs from the index."),
    "pricing": ("fbench.pricing.cli:pricing", "Prices and where they come from."),
    "doctor": ("fbench.engine.commands.doctor:doctor", "Say what this machine can do."),
    "clean": ("fbench.engine.commands.clean:clean", "Remove what dead runs left behind."),
    "index": ("fbench.engine.commands.index:index", "Make the index again from the run folders."),
}

EXIT_BROKEN_PIPE = 0


class LazyGroup(click.Group):
    """A group whose commands are named in COMMANDS and imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, short_help) for name, (_, short_help) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name not in COMMANDS and not name.startswith("-"):
            import difflib  # noqa: PLC0415 - only for a mistake

            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; commands are {', '.join(COMMANDS)}"
            msg = f"no such command {name!r}{hint}"
            raise click.UsageError(msg, ctx)
        return super().resolve_command(ctx, args)


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version  # noqa: PLC0415 - only for this option

        click.echo(f"fbench {version('factory-bench')}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def root() -> None:
    """Evaluate LLM agents on machine-learning engineering tasks."""


def main() -> NoReturn:
    """The program: reads `.env`, runs a command, turns what it raises into an exit code and one line of advice."""
    try:
        if any(argument in COMMANDS for argument in sys.argv[1:]):
            _read_dotenv()
        code = root.main(prog_name="fbench", standalone_mode=False)
    except click.exceptions.Abort:
        code = _say("aborted", 130)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BrokenPipeError:  # `fbench runs | head`: nobody reads on, which is no fault
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_BROKEN_PIPE
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None:
            raise
        _say(str(error), code)
    sys.exit(code if isinstance(code, int) else 0)


def _say(text: str, code: int) -> int:
    click.echo(f"fbench: {text}", err=True)
    return code


def _read_dotenv() -> None:
    """Add what `.env` in the working folder says to the environment; what is set already stays."""
    if not os.path.lexists(".env"):
        return
    from fbench.engine.dotenv import read_dotenv  # noqa: PLC0415 - only where there is such a file

    for name, value in read_dotenv(".env").items():
        os.environ.setdefault(name, value)
