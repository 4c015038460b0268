"""Plots as SVG inside a page: coloured by the page's style sheet, with a title and the figures in words for who cannot
see them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from fbench.suites.intervals import Interval
from fbench.suites.markup import Markup, element, join
from fbench.suites.wording import say_interval, say_number, say_usd

WIDTH = 720
_LEFT = 64
_RIGHT = 24
_TOP = 16
_ROW = 26
_SCATTER_HEIGHT = 300
_LEGEND_LINE = 20
_LABEL_CHARS = 34
_LEGEND_CHARS = 84
_SCORE_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
COLOURS = 8
"""Colours of the style sheet; beyond, they come round again, and the numbers tell points apart."""


class Point(NamedTuple):
    """One system: its score in [0, 1] with an interval, and its dollars; None where unknown."""

    name: str
    score: float | None
    interval: Interval | None
    usd: float | None


def score_bars(points: Sequence[Point], name: str) -> Markup:
    """Each system's score and interval on a line of its own; `name` makes the ids on the page its own."""
    label_width = 8 * min(_LABEL_CHARS, max((len(point.name) for point in points), default=0)) + 16
    axis_y = _TOP + _ROW * len(points)

    def x_of(score: float) -> float:
        return label_width + score * (WIDTH - _RIGHT - label_width)

    parts = []
    for tick in _SCORE_TICKS:
        parts += [
            element("line", class_="grid", x1=x_of(tick), x2=x_of(tick), y1=_TOP, y2=axis_y),
            element("text", f"{tick:.1f}", class_="tick", x=x_of(tick), y=axis_y + 18, text_anchor="middle"),
        ]
    for number, point in enumerate(points):
        y = _TOP + _ROW * (number + 0.5)
        label = shorten_middle(point.name, _LABEL_CHARS)
        parts.append(element("text", label, class_="label", x=label_width - 12, y=y + 4, text_anchor="end"))
        if point.interval is not None:
            low, high = map(x_of, point.interval)
            whiskers = f"M{low:.1f} {y - 5:.1f}v10M{low:.1f} {y:.1f}H{high:.1f}M{high:.1f} {y - 5:.1f}v10"
            parts.append(element("path", class_=f"bar {_colour(number)}", d=whiskers))
        if point.score is not None:
            parts.append(element("circle", class_=_colour(number), cx=x_of(point.score), cy=y, r=5))
    described = "; ".join(f"{point.name}: {say_number(point.score)} {say_interval(point.interval)}" for point in points)
    title = "Mean score of each model with its 95 % interval"
    return _svg(name, title, described, axis_y + 28, join(*parts))


def score_against_usd(points: Sequence[Point], name: str) -> Markup:
    """Score upwards, dollars to the right, one numbered point a system; one without dollars or score is only named."""
    shown = [point for point in points if point.usd is not None and point.score is not None]
    ticks = usd_ticks(max((point.usd or 0.0 for point in shown), default=0.0))
    bottom = _TOP + _SCATTER_HEIGHT

    def x_of(usd: float) -> float:
        return _LEFT + usd / ticks[-1] * (WIDTH - _LEFT - _RIGHT)

    def y_of(score: float) -> float:
        return bottom - score * _SCATTER_HEIGHT

    parts = []
    for score in _SCORE_TICKS:
        parts += [
            element("line", class_="grid", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y_of(score), y2=y_of(score)),
            element("text", f"{score:.1f}", class_="tick", x=_LEFT - 8, y=y_of(score) + 4, text_anchor="end"),
        ]
    for usd in ticks:
        parts += [
            element("line", class_="grid", x1=x_of(usd), x2=x_of(usd), y1=_TOP, y2=bottom),
            element("text", say_usd(usd), class_="tick", x=x_of(usd), y=bottom + 18, text_anchor="middle"),
        ]
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(element("text", "dollars per run", class_="label", x=middle, y=bottom + 38, text_anchor="middle"))
    described = []
    for number, point in enumerate(points):
        told = f"{number + 1} {point.name}: {say_number(point.score)}, {say_usd(point.usd)}"
        described.append(told)
        y = bottom + 62 + _LEGEND_LINE * number
        is_shown = point.usd is not None and point.score is not None
        if is_shown:
            parts.append(element("circle", class_=_colour(number), cx=_LEFT, cy=y - 4, r=5))
        text = shorten_middle(told, _LEGEND_CHARS) + ("" if is_shown else " (not shown)")
        parts.append(element("text", text, class_="label", x=_LEFT + 14, y=y))
        if point.usd is None or point.score is None:
            continue
        x, at = x_of(point.usd), y_of(point.score)
        if point.interval is not None:
            low, high = map(y_of, point.interval)
            parts.append(element("path", class_=f"bar {_colour(number)}", d=f"M{x:.1f} {low:.1f}V{high:.1f}"))
        parts.append(element("circle", class_=_colour(number), cx=x, cy=at, r=6))
        parts.append(element("text", str(number + 1), class_="label", x=x + 9, y=at - 6))
    title = "Mean score against dollars per run"
    return _svg(name, title, "; ".join(described), bottom + 62 + _LEGEND_LINE * len(points), join(*parts))


def usd_ticks(most: float) -> list[float]:
    """Round amounts from 0 to at least `most`, four to six of them.

    >>> usd_ticks(0.83)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if most <= 0:
        return [0.0, 0.25, 0.5, 0.75, 1.0]
    magnitude = 10.0 ** math.floor(math.log10(most))
    step = next(step * magnitude for step in (0.2, 0.5, 1.0, 2.0) if step * magnitude * 5 >= most * (1 - 1e-9))
    return [round(step * count, 12) for count in range(math.ceil(most / step * (1 - 1e-9)) + 1)]


def shorten_middle(text: str, chars: int) -> str:
    """`text` with its middle left out where it is longer.

    >>> shorten_middle("abcdefghij", 6)
    'abc…ij'
    """
    if len(text) <= chars:
        return text
    front = chars // 2
    return f"{text[:front]}…{text[len(text) - (chars - front - 1) :]}"


def _svg(name: str, title: str, described: str, height: float, content: Markup) -> Markup:
    return element(
        "svg",
        element("title", title, id=f"{name}-title"),
        element("desc", described, id=f"{name}-desc"),
        content,
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
        viewBox=f"0 0 {WIDTH} {height:g}",
        width="100%",
    )


def _colour(number: int) -> str:
    return f"c{number % COLOURS}"
