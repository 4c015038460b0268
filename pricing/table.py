"""The price table: what a model's tokens cost, by exact name.

The shipped list (`model_prices.yaml`) comes first, a user's file on top of it, name by name. A name that is not in the
table is unpriced: its cost is unknown, never 0.

An entry of a user's file that tells no context window keeps that of the shipped entry it replaces.

A run asks for one model or two, so of the shipped list only what is asked for is parsed: it is generated in a form
whose entries can be told apart line by line. A user's file is read as a whole, all its problems told at once.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

from fbench.pricing.files import FREE_PROVIDERS, SCHEMA_VERSION, PriceFile, read_document
from fbench.pricing.rates import DatedPrice, Frozen, LongContext, Price, Rates, Tariff
from fbench.pricing.reading import parse_yaml, read_yaml

__all__ = ["BUILT_IN", "FREE_PROVIDERS", "SCHEMA_VERSION", "LongContext", "Price", "PriceTable", "Rates", "load_prices"]

BUILT_IN = "model_prices.yaml"

_MODELS = "\nmodels:\n"
_ENTRY = re.compile(r"^  (\S+):(.*(?:\n    .*)*)", re.MULTILINE)


class PriceSource(Frozen):
    """Where prices come from: a file, and what the file says of its own origin."""

    kind: Literal["built-in", "user"]
    file: str
    source: str | None = None
    source_version: str | None = None
    retrieved: str | None = None

    def __str__(self) -> str:
        said = " ".join(word for word in (self.source, self.source_version) if word)
        dated = f"{said}, {self.retrieved}" if said and self.retrieved else said or self.retrieved or ""
        return f"{self.file} ({dated})" if dated else self.file


@dataclass(frozen=True, slots=True)
class PricedModel:
    """A model with what it costs over time, and the file that says so."""

    name: str
    tariff: Tariff
    source: PriceSource

    @classmethod
    def fixed(cls, name: str, price: Price, source: PriceSource) -> Self:
        """A model whose price never changes; its window is not known."""
        return cls(name, Tariff(entries=(DatedPrice(**dict(price)),)), source)

    def with_window(self, other: "PricedModel | None") -> "PricedModel":
        """The same with the window of `other`, the entry it replaces, where it tells none itself."""
        tokens = None if other is None else other.tariff.context_window
        if tokens is None or self.tariff.context_window is not None:
            return self
        return replace(self, tariff=self.tariff.model_copy(update={"context_window": tokens}))

    @property
    def price(self) -> Price:
        """The price in effect now."""
        return self.price_at(datetime.now(UTC))

    def price_at(self, moment: datetime) -> Price:
        """The price of a call that starts at `moment` (aware)."""
        return self.tariff.price_at(moment)

    def cost_usd(self, *, input: int, cache_read: int, cache_write: int, output: int) -> Decimal:  # noqa: A002 - the ledger's words
        """Dollars of a call that starts now; see `Price.cost_usd`."""
        return self.price.cost_usd(input=input, cache_read=cache_read, cache_write=cache_write, output=output)

    def rates_used(self, moment: datetime) -> dict[str, Any]:
        """What a run that begins at `moment` stores of the rates it uses, prices as exact texts.

        `rates` is what holds at that moment; `tariff` is everything from then on where that may change, else None.
        """
        now = self.tariff.entry_at(moment)
        later = self.tariff.entries[self.tariff.entries.index(now) :]
        changes = len(later) > 1 or bool(now.hours)
        return {
            "model": self.name,
            "currency": "USD",
            "unit": "per 1M tokens",
            "rates": self.price_at(moment).model_dump(mode="json"),
            "tariff": [entry.model_dump(mode="json", by_alias=True) for entry in later] if changes else None,
            "source": self.source.model_dump(mode="json"),
        }


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices by exact model name."""

    models: Mapping[str, PricedModel]

    def find(self, name: str, at: datetime | None = None) -> Price | None:
        """The price of exactly this name (`openai/gpt-4o`) at a moment (aware), by default now; None is unpriced."""
        entry = self.models.get(name)
        return None if entry is None else entry.price_at(at or datetime.now(UTC))

    def near(self, name: str) -> list[str]:
        """Up to five names somebody who wrote `name` may have meant."""
        if "/" not in name:
            same = [known for known in self.models if known.partition("/")[2] == name]
            if same:
                return same[:5]
        written = name if "/" in name else f"openai/{name}"
        return difflib.get_close_matches(written, list(self.models), n=5, cutoff=0.6)


def load_prices(user_file: Path | None = None, *, is_kept: bool = False) -> PriceTable:
    """The shipped prices, with those of `user_file` on top. With `is_kept` the shipped file is read once a process, for
    runs; what `fbench pricing update --write` makes of it is seen by the next process then.

    Raises:
        PricingError: the user's file cannot be used; every problem in it is named with its line.
    """
    built_in = _kept_built_in() if is_kept else _Entries(built_in_text())
    if user_file is None:
        return PriceTable(built_in)
    user = _priced(read_document(read_yaml(user_file), str(user_file)), str(user_file))
    return PriceTable(_Layered(user, built_in))


def built_in_text() -> str:
    """The shipped file."""
    return files("fbench.pricing").joinpath(BUILT_IN).read_text(encoding="utf-8")


@cache
def _kept_built_in() -> "_Entries":
    return _Entries(built_in_text())


class _Entries(Mapping[str, PricedModel]):
    """The shipped file, each entry parsed when it is asked for."""

    def __init__(self, text: str) -> None:
        head, _, models = text.partition(_MODELS)
        content = read_document(parse_yaml(f"{head}\nmodels: {{}}".encode(), BUILT_IN), BUILT_IN)
        self._source = _source_of(content, BUILT_IN, "built-in")
        self._texts = {found[1]: found[2] for found in _ENTRY.finditer(models)}
        self._read: dict[str, PricedModel] = {}

    def __getitem__(self, name: str) -> PricedModel:
        if (entry := self._read.get(name)) is None:
            value = parse_yaml(b"price:" + self._texts[name].encode(), BUILT_IN).value
            entry = PricedModel(name, Tariff.read(value["price"]), self._source)
            self._read[name] = entry
        return entry

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def __contains__(self, name: object) -> bool:
        return name in self._texts


class _Layered(Mapping[str, PricedModel]):
    """One table on top of another, name by name."""

    def __init__(self, top: Mapping[str, PricedModel], base: Mapping[str, PricedModel]) -> None:
        self._top = top
        self._base = base

    def __getitem__(self, name: str) -> PricedModel:
        return self._top[name].with_window(self._base.get(name)) if name in self._top else self._base[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._base
        yield from (name for name in self._top if name not in self._base)

    def __len__(self) -> int:
        return len(self._base) + sum(name not in self._base for name in self._top)

    def __contains__(self, name: object) -> bool:
        return name in self._top or name in self._base


def _priced(content: PriceFile, name: str) -> dict[str, PricedModel]:
    source = _source_of(content, name, "user")
    return {model: PricedModel(model, tariff, source) for model, tariff in content.models.items()}


def _source_of(content: PriceFile, name: str, kind: Literal["built-in", "user"]) -> PriceSource:
    return PriceSource(
        kind=kind,
        file=name,
        source=content.source,
        source_version=content.source_version,
        retrieved=content.retrieved,
    )
