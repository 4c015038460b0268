"""report.html: one page with plots, all in itself; it opens without a network and runs no script."""

from collections.abc import Iterator

from fbench.suites.figures import Cell, ModelSummary, RunLine, SuiteSummary
from fbench.suites.markup import Markup, element, escape, join, link
from fbench.suites.plots import COLOURS, Point, score_against_usd, score_bars
from fbench.suites.standing import Standing
from fbench.suites.tables import METHODS, Table, all_tables
from fbench.suites.wording import (
    say_counted,
    say_duration,
    say_facts,
    say_number,
    say_passes,
    say_spend,
    say_usd,
)

OPEN_UP_TO_RUNS = 60
"""Runs are listed unfolded in a small suite only; a thousand would bury the figures."""

_CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

# Colours of the plots: Okabe & Ito's, which people with colour blindness tell apart; darker on light where needed.
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d1d9e0; --back: #fff; --panel: #f6f8fa;
  --good: #cfeed7; --mid: #fbf0c4; --bad: #fbd9d6; --link: #0a5bc4;
  --c0: #0072b2; --c1: #b34700; --c2: #00785a; --c3: #9c4f7e; --c4: #8a6d00; --c5: #2f7fb5; --c6: #444; --c7: #7a3fb0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa5b1; --line: #3a424c; --back: #0f1319;
  --panel: #181d25; --good: #17432a; --mid: #4a3d10; --bad: #552421; --link: #6cb0ff;
  --c0: #56b4e9; --c1: #f0883e; --c2: #2ec59b; --c3: #e08fbd; --c4: #e0c040; --c5: #8ecbf0; --c6: #b8b8b8;
  --c7: #b894f0; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 1100px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
a { color: var(--link); } .soft { color: var(--soft); }
.notes { background: var(--panel); border-left: 4px solid var(--c1); padding: .5rem 1rem .5rem 2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td.figure, th.figure { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.good { background: var(--good); } td.mid { background: var(--mid); } td.bad { background: var(--bad); }
details { border-bottom: 1px solid var(--line); padding: .25rem 0; } summary { cursor: pointer; }
figure { margin: 1rem 0; } figcaption { color: var(--soft); font-size: .9rem; }
svg { max-width: 720px; display: block; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .tick { fill: var(--soft); } svg .grid { stroke: var(--line); }
svg .bar { fill: none; stroke-width: 2; }
"""
_COLOUR_STYLE = "".join(
    f"svg .c{n} {{ fill: var(--c{n}); }} svg .bar.c{n} {{ fill: none; stroke: var(--c{n}); }}\n" for n in range(COLOURS)
)


def render_html(summary: SuiteSummary) -> str:
    """The whole page."""
    title = f"{summary.suite}: suite report"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_CONTENT_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(_STYLE + _COLOUR_STYLE)),
    )
    body = element("body", *_intro(summary), *_plots(summary), *_sections(summary))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _intro(summary: SuiteSummary) -> Iterator[Markup]:
    yield element("h1", summary.suite)
    for fact in say_facts(summary):
        yield element("p", fact, class_="soft")
    if summary.notes:
        yield element("ul", *(element("li", note) for note in summary.notes), class_="notes")


def _plots(summary: SuiteSummary) -> Iterator[Markup]:
    points = [_point(model) for model in summary.models]
    yield element("h2", "Score")
    yield element("figure", score_bars(points, "bars"), element("figcaption", "Mean score, 95 % interval by task."))
    yield element("h2", "Score against dollars")
    caption = "Dollars of agent and judge, all tries, for each run with a result."
    yield element("figure", score_against_usd(points, "dollars"), element("figcaption", caption))


def _point(model: ModelSummary) -> Point:
    score = model.errors_left_out.score
    runs = model.counts.judged + model.counts.errors
    usd = None if model.spend.total_usd is None or not runs else model.spend.total_usd / runs
    return Point(model.model, score.value, score.interval, usd)


def _sections(summary: SuiteSummary) -> Iterator[Markup]:
    for table in all_tables(summary):
        yield element("h2", table.title)
        yield _table(table)
    yield element("h2", "Tasks and models")
    yield _matrix(summary)
    yield element("h2", "Runs")
    yield from _runs(summary)
    yield element("h2", "Methods")
    yield element("ul", *(element("li", method) for method in METHODS), class_="soft")


def _table(table: Table) -> Markup:
    head = [
        element("th", name, scope="col", class_="figure" if table.is_figure(column) else None)
        for column, name in enumerate(table.head)
    ]
    rows = [
        element(
            "tr",
            *(
                element("td", cell, class_="figure" if table.is_figure(column) else None)
                for column, cell in enumerate(row)
            ),
        )
        for row in table.rows
    ]
    return _wide(element("thead", element("tr", *head)), element("tbody", *rows))


def _matrix(summary: SuiteSummary) -> Markup:
    """Tasks down, models across: the score in words and as the cell's colour."""
    cells = {(cell.task_id, cell.model): cell for cell in summary.cells}
    models = [model.model for model in summary.models]
    rows = [
        element(
            "tr",
            element("th", element("a", task.task_id, href=f"#task-{number}"), scope="row", title=task.title),
            element("td", task.difficulty),
            element("td", task.domain),
            *(_score_cell(cells[task.task_id, model]) for model in models),
        )
        for number, task in enumerate(summary.tasks)
    ]
    return _wide(_heads("Task", "Difficulty", "Domain", *models), element("tbody", *rows))


def _score_cell(cell: Cell) -> Markup:
    told = f"{say_number(cell.score)}, {say_passes(cell.counts)}"
    share = cell.counts.passes / cell.counts.judged if cell.counts.judged else None
    colour = None if share is None else "good" if share == 1 else "bad" if share == 0 else "mid"
    return element("td", told, class_=f"figure {colour}" if colour else "figure")


def _runs(summary: SuiteSummary) -> Iterator[Markup]:
    is_open = "" if summary.counts.planned <= OPEN_UP_TO_RUNS else None
    for number, task in enumerate(summary.tasks):
        cells = [cell for cell in summary.cells if cell.task_id == task.task_id]
        passes = sum(cell.counts.passes for cell in cells)
        planned = sum(cell.counts.planned for cell in cells)
        name = join(element("b", task.task_id), f" {task.title}: {passes}/{planned} passed")
        rows = [element("tr", *_run_row(cell, run)) for cell in cells for run in cell.runs]
        totals = [element("tr", *_total_row(cell)) for cell in cells]
        yield element(
            "details",
            element("summary", name),
            _wide(_heads("Model", "Passes", "Score", "Tokens", "Dollars", "Time", "Killed or in error"), *totals),
            _wide(_heads("Model", "Attempt", "Run", "Ended", "Score", "Tokens", "Dollars", "Time"), *rows),
            id=f"task-{number}",
            open=is_open,
        )


def _heads(*names: str) -> Markup:
    return element("thead", element("tr", *(element("th", name, scope="col") for name in names)))


def _total_row(cell: Cell) -> Iterator[Markup]:
    yield element("td", cell.model)
    yield element("td", say_passes(cell.counts), class_="figure")
    yield element("td", say_number(cell.score), class_="figure")
    yield element("td", f"{cell.spend.tokens:,}", class_="figure")
    yield element("td", say_spend(cell.spend), class_="figure")
    yield element("td", say_duration(cell.spend.duration_s), class_="figure")
    yield element("td", say_counted({**cell.kill_reasons, **cell.error_kinds}))


def _run_row(cell: Cell, run: RunLine) -> Iterator[Markup]:
    usd = None if run.cost_status == "unknown" else run.cost_usd
    mark = "~" if run.cost_status == "estimated" else ""
    yield element("td", cell.model)
    yield element("td", run.attempt, class_="figure")
    yield element("td", link(run.run_id, run.folder) if run.run_id is not None else escape("none"))
    yield element("td", _ended(run))
    yield element("td", say_number(run.score), class_="figure")
    yield element("td", "-" if run.tokens is None else f"{run.tokens:,}", class_="figure")
    yield element("td", "-" if run.run_id is None else mark + say_usd(usd), class_="figure")
    yield element("td", say_duration(run.duration_s), class_="figure")


def _ended(run: RunLine) -> str:
    """How the run ended, in words."""
    if run.standing is Standing.OWED:
        return f"owed ({run.status})" if run.status else "owed"
    verdict = {True: "passed", False: "failed", None: "no verdict"}[run.passed]
    why = run.kill_reason or run.error_kind
    return f"{verdict}, {run.status}" + (f" ({why})" if why else "")


def _wide(*content: Markup) -> Markup:
    """A table that scrolls by itself on a narrow screen."""
    return element("div", element("table", *content), class_="wide")
