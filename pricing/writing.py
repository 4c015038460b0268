"""A price file as text, one model an entry, in the form of the shipped one; and its way onto the disk."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from fbench.pricing.errors import PricingError
from fbench.pricing.files import SCHEMA_VERSION
from fbench.pricing.rates import Tariff

WIDTH = 120

_HEAD = """\
# What a model costs, and how much it takes. Made by `fbench pricing update` from the data of the package named below
# (licence: MIT), as it stood on the date below; the rules of that are in pricing/convert.py. Names are PROVIDER/NAME,
# and a lookup is exact: a name that is not here is unpriced.
#
# Keys of a price: input, cached_input (tokens read from the provider's cache), cache_write (tokens written to it),
# output. A missing cached_input or cache_write costs what input costs. `long_context` replaces all prices of a call
# whose input (cached tokens included) is longer than `above_input_tokens`; several stand in a list. A price that
# changed is a list: each further one holds from 00:00 UTC of its `from` on. `hours` go before the prices beside them,
# for calls that start in that part of the day, UTC. `context_window` is no price but how many tokens the model takes,
# told once, beside its first price; a server that takes more or less is believed. Names and prices of your own go into
# a file of the same form: `--prices FILE` or FBENCH_PRICES.
"""


def price_file_text(models: Mapping[str, Tariff], *, source: str, source_version: str, retrieved: str) -> str:
    """The file; `retrieved` is a date like 2026-01-31. Entries stand in the order of `models`."""
    lines = [
        f"schema_version: {SCHEMA_VERSION}",
        f"source: {source}",
        f"source_version: {source_version}",
        f"retrieved: {retrieved}",
        "currency: USD",
        "unit: per 1M tokens",
        "models:",
    ]
    for name, tariff in models.items():
        lines += _entry(f"  {name}:", tariff.written())
    return _HEAD + "\n".join(lines) + "\n"


def write_file(path: Path, text: str) -> None:
    """Put `text` there, all of it or nothing.

    Raises:
        PricingError: it cannot be written.
    """
    try:
        fd, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text)
            Path(made).chmod(0o644)
            Path(made).replace(path)
        except BaseException:
            Path(made).unlink(missing_ok=True)
            raise
    except OSError as error:
        msg = (
            f"cannot write {path} ({error.strerror or error}); `fbench pricing update --output FILE` writes a file of "
            f"your own, for --prices FILE or FBENCH_PRICES"
        )
        raise PricingError(msg) from error


def _entry(head: str, value: Any) -> Iterator[str]:  # noqa: ANN401 - what Tariff.written gives
    if not isinstance(value, list) and _fits(line := f"{head} {_flow(value)}"):
        yield line
        return
    yield head
    if isinstance(value, list):
        for item in value:
            yield from _item("    ", item)
    else:
        yield from _block("    ", value)


def _item(indent: str, value: dict[str, Any]) -> Iterator[str]:
    """One of a list."""
    if _fits(line := f"{indent}- {_flow(value)}"):
        yield line
        return
    for number, text in enumerate(_block(indent + "  ", value)):
        yield f"{indent}- {text.lstrip()}" if number == 0 else text


def _block(indent: str, value: dict[str, Any]) -> Iterator[str]:
    for key, part in value.items():
        if isinstance(part, list):
            yield f"{indent}{key}:"
            for item in part:
                yield from _item(indent + "  ", item)
        else:
            yield f"{indent}{key}: {_flow(part)}"


def _flow(value: Any) -> str:  # noqa: ANN401 - see _entry
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, Decimal):
        return f"{value:f}"
    return f'"{value}"' if isinstance(value, str) and ":" in value else str(value)


def _fits(line: str) -> bool:
    """Also no tier or hour inside: those read better in lines of their own."""
    return len(line) <= WIDTH and line.count("{") <= 1
