"""HTML and SVG that cannot be broken out of: what is not markup already is escaped on its way in."""

import html
from urllib.parse import quote

from fbench.engine.records.showing import clean

_EMPTY = frozenset({"br", "circle", "line", "meta", "path", "rect"})
_IN_SVG = frozenset({"circle", "line", "path", "rect"})


class Markup(str):
    """Text that is markup and goes in as it stands. Made by `element` and `join`, and by hand from constants only."""

    __slots__ = ()


Content = str | int | None


def element(name: str, /, *content: Content, **attributes: str | float | None) -> Markup:
    """An element with content and attributes; None leaves either out, `class_` is written `class`, `x_y` is `x-y`.

    >>> element("b", "1 < 2", class_="sum")
    '<b class="sum">1 &lt; 2</b>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value if isinstance(value, str) else f"{value:g}")}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _EMPTY:
        return Markup(f"<{name}{given}{'/' if name in _IN_SVG else ''}>")
    return Markup(f"<{name}{given}>{join(*content)}</{name}>")


def join(*content: Content) -> Markup:
    """The pieces one after another."""
    return Markup(
        "".join(piece if isinstance(piece, Markup) else escape(str(piece)) for piece in content if piece is not None)
    )


def escape(text: str) -> Markup:
    """`text` as it is to be read, in content and in attributes."""
    return Markup(html.escape(clean(text), quote=True))


def link(text: str, path: str | None) -> Markup:
    """A link to a file or folder beside this one; just the text without a path. No path can name another scheme."""
    return element("a", text, href=relative_url(path)) if path is not None else escape(text)


def relative_url(path: str) -> str:
    """A relative path as a URL.

    >>> relative_url("../a b/javascript:x")
    '../a%20b/javascript%3Ax'
    """
    return quote(path, safe="/", errors="replace")
