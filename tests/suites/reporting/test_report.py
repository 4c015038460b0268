"""report.md, report.html and report.json: whole, self-contained, and proof against what names and titles say."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fbench.suites.figures import summarize
from fbench.suites.markup import element, link
from fbench.suites.outcomes import SuiteOutcome
from fbench.suites.plots import Point, score_against_usd, score_bars, usd_ticks
from fbench.suites.report import write_reports
from fbench.suites.report_html import render_html
from fbench.suites.report_markdown import escape_markdown, render_markdown

OutcomeOf = Callable[..., SuiteOutcome]
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Reads a page, checks that tags are closed in order, and keeps tags, links and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all_of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_three_files_are_written_and_rewritten(realistic: SuiteOutcome, tmp_path: Path) -> None:
    folder = tmp_path / "suite"
    paths = write_reports(realistic, folder)
    assert [path.name for path in paths] == ["report.md", "report.html", "report.json"]
    first = [path.read_bytes() for path in paths]
    assert write_reports(realistic, folder) == paths
    assert [path.read_bytes() for path in paths] == first
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json", "report.md"]
    assert json.loads(paths[2].read_text())["counts"]["planned"] == 144


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(realistic: SuiteOutcome, tmp_path: Path) -> None:
    page = Page(render_html(summarize(realistic, tmp_path)))
    assert {tag for tag, _ in page.tags}.isdisjoint(
        {"script", "link", "img", "iframe", "object", "form", "base", "use"}
    )
    links = [attributes["href"] or "" for attributes in page.all_of("a")]
    assert len(links) == 12 + 144
    assert [href for href in links if re.match(r"[a-z][a-z0-9+.-]*:|//", href)] == []
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    style = next(text for text in page.text if ":root" in text)
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style


def test_both_plots_can_be_read_by_who_cannot_see_them(realistic: SuiteOutcome) -> None:
    page = Page(render_html(summarize(realistic)))
    plots = page.all_of("svg")
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert len(plots) == 2
    for plot in plots:
        assert plot["role"] == "img"
        assert set((plot["aria-labelledby"] or "").split()) <= ids
    text = " ".join(page.text)
    assert "openai/strong: 0.969 [0.933, 1.000]" in text
    assert "3 local/weak: 0.078, unknown" in text


def test_each_link_leads_to_a_run_s_folder(outcome_of: OutcomeOf, tmp_path: Path) -> None:
    outcome = outcome_of({"m/x": {"a": [1, 0]}})
    runs = {run_id: tmp_path / run_id for run_id in outcome.folders}
    outcome = outcome_of({"m/x": {"a": [1, 0]}}, folders=runs)
    folder = tmp_path / outcome.suite_run_id
    for run in runs.values():
        run.mkdir()
    page_file = write_reports(outcome, folder)[1]
    links = [attributes["href"] or "" for attributes in Page(page_file.read_text()).all_of("a")]
    assert [(folder / href).is_dir() for href in links if not href.startswith("#")] == [True, True]
    marked = re.findall(r"\]\(<(.+?)>\)", (folder / "report.md").read_text())
    assert [(folder / path).is_dir() for path in marked] == [True, True]


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=y>&amp;|`*[click](javascript:x)\n# \x1b[31m \ud800"


def test_hostile_names_stay_text(outcome_of: OutcomeOf, tmp_path: Path) -> None:
    killed: dict[str, Any] = {"status": "killed", "kill_reason": HOSTILE, "passed": False, "score": 0}
    error = {"status": "error", "passed": None, "score": None, "error": {"kind": HOSTILE, "message": HOSTILE}}
    outcome = outcome_of(
        {HOSTILE: {"a": [killed, error]}, "m/y": {"a": [1, 1]}},
        titles={"a": HOSTILE},
        tasks={"a": (HOSTILE, HOSTILE)},
        suite=HOSTILE,
        started_at=HOSTILE,
        suite_run_id=HOSTILE,
    )
    strange = {
        run_id: tmp_path / "javascript:x" / "<b> )>" / str(number) for number, run_id in enumerate(outcome.folders)
    }
    outcome = outcome_of(
        {HOSTILE: {"a": [killed, error]}, "m/y": {"a": [1, 1]}},
        titles={"a": HOSTILE},
        tasks={"a": (HOSTILE, HOSTILE)},
        suite=HOSTILE,
        folders=strange,
    )
    summary = summarize(outcome, tmp_path)
    page = Page(render_html(summary))
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "img", "b "})
    assert "<script>alert(1)</script>" in "".join(page.text)
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert all((a["href"] or "").startswith(("#", "javascript%3Ax/")) for a in page.all_of("a"))
    markdown = render_markdown(summary)
    assert "<script" not in markdown
    assert "<img" not in markdown
    assert "](javascript" not in markdown.replace("\\](", "")
    widths = {line.replace("\\|", "").count("|") for line in markdown.splitlines() if line.startswith("| a |")}
    assert widths == {10}
    assert "\x1b" not in markdown + "".join(page.text)


def test_a_thousand_runs_are_folded_and_a_few_are_not(outcome_of: OutcomeOf) -> None:
    many = outcome_of({f"m/{model}": {f"t{task}": [1] * 4 for task in range(50)} for model in range(5)})
    page = Page(render_html(summarize(many)))
    assert len(page.all_of("details")) == 50
    assert not any("open" in attributes for attributes in page.all_of("details"))
    few = Page(render_html(summarize(outcome_of({"m/x": {"a": [1]}}))))
    assert "open" in few.all_of("details")[0]


def test_both_rates_are_shown_where_they_differ(outcome_of: OutcomeOf) -> None:
    markdown = render_markdown(summarize(outcome_of({"m/x": {"a": [1, "error"], "b": [0, 1]}})))
    assert "| m/x | 1 left out | 2/3 | 0.750 " in markdown
    assert "| m/x | 1 as failures | 2/4 | 0.500 " in markdown
    assert "left out |" not in render_markdown(summarize(outcome_of({"m/x": {"a": [1], "b": [0]}})))


def test_the_markdown_tells_of_each_task_and_model(realistic: SuiteOutcome) -> None:
    markdown = render_markdown(summarize(realistic, Path("runs/suite")))
    (row,) = [line for line in markdown.splitlines() if line.startswith("| task_04 | openai/middle")]
    assert "| 1/4 | 0.438 | 4,000 | $0.0400 | 40.0 s | 1 budget_exceeded:tokens | [1P](<../" in row
    (row,) = [line for line in markdown.splitlines() if line.startswith("| task_07 | local/weak")]
    assert "unknown, at least $0.0300" in row
    assert len([line for line in markdown.splitlines() if line.startswith("| task_")]) == 36


@pytest.mark.parametrize("count", [0, 1, 12])
def test_plots_hold_any_number_of_systems(count: int) -> None:
    points = [Point(f"m/{n}", n / 12, None if n % 2 else (0.0, 1.0), None if n == 3 else n) for n in range(count)]  # type: ignore[arg-type]
    for plot in (score_bars(points, "a"), score_against_usd(points, "b")):
        assert len(Page(plot).all_of("svg")) == 1
        assert "nan" not in plot


def test_points_lie_where_their_figures_say() -> None:
    plot = score_against_usd([Point("m/x", 0.5, None, 0.5), Point("m/y", 1.0, None, 1.0)], "p")
    dots = [attributes for attributes in Page(plot).all_of("circle") if attributes["r"] == "6"]
    assert [(dot["cx"], dot["cy"]) for dot in dots] == [("380", "166"), ("696", "16")]


@pytest.mark.parametrize("most", [0.0, 1e-7, 0.009, 0.1, 0.35, 1.0, 2.5, 99.0, 12345.0])
def test_ticks_are_few_round_and_reach_the_most(most: float) -> None:
    ticks = usd_ticks(most)
    assert 3 <= len(ticks) <= 6
    assert ticks[0] == 0
    assert ticks[-1] >= most * (1 - 1e-9)
    assert most == 0 or ticks[-2] < most


def test_attributes_and_links_are_escaped_too() -> None:
    assert element("td", "x", title='"><b>') == '<td title="&quot;&gt;&lt;b&gt;">x</td>'
    assert link("<a>", "javascript:alert(1)") == '<a href="javascript%3Aalert%281%29">&lt;a&gt;</a>'
    assert link("a & b", None) == "a &amp; b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pandas_transform", "pandas_transform"),
        ("_emphasis_ **bold**", r"\_emphasis\_ \*\*bold\*\*"),
        ("a\nb | c", r"a b \| c"),
        ("![x](y) [0.1, 0.2] [a][b]", r"![x\](y) [0.1, 0.2] [a\][b]"),
        ("\\`", r"\\\`"),
        ("<!-- & -->", "&lt;!-- &amp; --&gt;"),
    ],
)
def test_markdown_is_escaped_where_it_means_something(text: str, expected: str) -> None:
    assert escape_markdown(text) == expected
