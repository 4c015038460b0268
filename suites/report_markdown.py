"""report.md: a suite run's figures as tables that read well as text, too."""

import re
from collections.abc import Iterable, Iterator, Sequence

from fbench.engine.records.showing import clean
from fbench.suites.figures import Cell, RunLine, SuiteSummary
from fbench.suites.markup import relative_url
from fbench.suites.tables import METHODS, Table, all_tables
from fbench.suites.wording import (
    MARKS,
    mark_of,
    say_counted,
    say_duration,
    say_facts,
    say_number,
    say_passes,
    say_spend,
)

# What makes markup in the middle of a line: a bracket only where a link's target follows it, underscores only at the
# edge of a word.
_SPECIAL = re.compile(r"[\\`*|~]|\](?=[(\[:])|(?<![A-Za-z0-9_])_+|_+(?![A-Za-z0-9_])")


def render_markdown(summary: SuiteSummary) -> str:
    """The whole report."""
    lines = [f"# {escape_markdown(summary.suite)}", "", *(escape_markdown(fact) + "  " for fact in say_facts(summary))]
    if summary.notes:
        lines += ["", *(f"- {escape_markdown(note)}" for note in summary.notes)]
    for table in all_tables(summary):
        lines += ["", f"## {table.title}", "", *markdown_table(table)]
    lines += ["", "## Tasks", "", *_tasks(summary), "", MARKS, "", "## Methods", ""]
    return "\n".join([*lines, *(f"- {escape_markdown(method)}" for method in METHODS), ""])


def escape_markdown(text: str) -> str:
    """`text` on one line, as it is to be read: neither Markdown nor HTML.

    >>> print(escape_markdown("a__b|<i>[x](y)__ [0, 1]"))
    a__b\\|&lt;i&gt;[x\\](y)\\_\\_ [0, 1]
    """
    line = " ".join(clean(text).split())
    line = _SPECIAL.sub(lambda match: "".join(f"\\{letter}" for letter in match[0]), line)
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_table(table: Table) -> Iterator[str]:
    """The table's lines."""
    rows = (tuple(map(escape_markdown, row)) for row in table.rows)
    yield from _lines(table.head, rows, [table.is_figure(column) for column in range(len(table.head))])


def _tasks(summary: SuiteSummary) -> Iterator[str]:
    words, figures = ("Task", "Model"), ("Passes", "Score", "Tokens", "Dollars", "Time")
    head = (*words, *figures, "Killed or in error", "Runs")
    yield from _lines(head, map(_cell_row, summary.cells), [name in figures for name in head])


def _cell_row(cell: Cell) -> tuple[str, ...]:
    return (
        escape_markdown(cell.task_id),
        escape_markdown(cell.model),
        escape_markdown(say_passes(cell.counts)),
        say_number(cell.score),
        f"{cell.spend.tokens:,}",
        escape_markdown(say_spend(cell.spend)),
        say_duration(cell.spend.duration_s),
        escape_markdown(say_counted({**cell.kill_reasons, **cell.error_kinds})),
        " ".join(map(_run, cell.runs)),
    )


def _run(run: RunLine) -> str:
    text = f"{run.attempt}{mark_of(run)}"
    return text if run.folder is None else f"[{text}](<{relative_url(run.folder)}>)"


def _lines(head: Sequence[str], rows: Iterable[tuple[str, ...]], is_figure: Iterable[bool]) -> Iterator[str]:
    """A table of cells that are Markdown already."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "|".join("---:" if right else "---" for right in is_figure) + "|"
    yield from ("| " + " | ".join(row) + " |" for row in rows)
