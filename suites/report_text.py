"""A suite run's figures as text for a terminal; single tasks stand in the files."""

from collections.abc import Iterator

from fbench.engine.records.showing import clean, table
from fbench.suites.figures import SuiteSummary
from fbench.suites.tables import all_tables
from fbench.suites.wording import say_facts


def report_text(summary: SuiteSummary) -> str:
    """The facts, what to know, and the tables."""
    return "\n".join(_lines(summary))


def _lines(summary: SuiteSummary) -> Iterator[str]:
    yield from map(clean, say_facts(summary))
    yield from (f"note     {clean(note)}" for note in summary.notes)
    for found in all_tables(summary):
        yield ""
        yield table([tuple(name.upper() for name in found.head), *found.rows])
    yield ""
