"""`fbench suite`: its commands are imported when they are asked for."""

import click

from fbench.engine.commands.root import LazyGroup

COMMANDS = {
    "run": ("fbench.suites.commands.run:run", "Run a suite."),
    "resume": ("fbench.suites.commands.resume:resume", "Go on with an interrupted suite run."),
    "list": ("fbench.suites.commands.listing:list_suites", "List the built-in suites."),
    "report": ("fbench.suites.commands.report:report", "Write the report of a suite run again."),
    "merge": ("fbench.suites.commands.merge:merge", "Join the parts of a suite that ran as shards."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def suite() -> None:
    """Run many tasks with many models, at once, in a way that can be interrupted and resumed."""
