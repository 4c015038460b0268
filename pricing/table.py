"""The price table: what a model's tokens cost, by exact name.

The shipped list (`model_prices.yaml`) comes first, a user's file on top of it, name by name. Prices are exact decimals
per 1M tokens. A name that is not in the table is unpriced: its cost is unknown, never 0.
"""

import difflib
import re
from collections.abc import Mapping
from decimal import Context, Decimal, localcontext
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fbench.pricing.errors import PricingError
from fbench.pricing.reading import Document, parse_number, parse_yaml, read_yaml

SCHEMA_VERSION = 1
TOKENS_PER_UNIT_EXPONENT = 6
"""Prices are for 10**6 tokens."""

FREE_PROVIDERS = ("fake", "replay")
"""Their models cost 0 by definition and cannot be priced."""

BUILT_IN = "model_prices.yaml"

_NAME = re.compile(r"[A-Za-z0-9._-]+/\S+")
_MAX_DECIMALS = 12
_EXACT = Context(prec=200)
"""Wide enough for any sum of (count below 10**150) x (price of at most 19 digits) without rounding."""


def _as_price(value: object) -> object:
    if isinstance(value, str):
        number = parse_number(value.strip())
        if number is None:
            msg = f"{value!r} is no number"
            raise ValueError(msg)
        return number
    if isinstance(value, Decimal):
        return value
    msg = "a price is a plain number (USD per 1M tokens)"
    raise ValueError(msg)


def _exact_price(value: Decimal) -> Decimal:
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -_MAX_DECIMALS:
        msg = f"a price has at most {_MAX_DECIMALS} decimals"
        raise ValueError(msg)
    return value


PerMillion = Annotated[
    Decimal,
    BeforeValidator(_as_price),
    Field(ge=0, le=1_000_000, allow_inf_nan=False),
    AfterValidator(_exact_price),
]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rates(_Frozen):
    """USD per 1M tokens. Where the provider tells no price of cached tokens, they cost what input costs."""

    input: PerMillion
    cached_input: PerMillion | None = None
    cache_write: PerMillion | None = None
    output: PerMillion

    def _cost_usd(self, *, input: int, cache_read: int, cache_write: int, output: int) -> Decimal:  # noqa: A002 - the ledger's words
        read_price = self.input if self.cached_input is None else self.cached_input
        write_price = self.input if self.cache_write is None else self.cache_write
        with localcontext(_EXACT):
            total = input * self.input + cache_read * read_price + cache_write * write_price + output * self.output
            return total.scaleb(-TOKENS_PER_UNIT_EXPONENT)


class LongContext(Rates):
    """The rates of a whole call whose input, cached tokens included, is longer than `above_input_tokens`."""

    above_input_tokens: int = Field(gt=0)


class Price(Rates):
    """What one model costs."""

    long_context: LongContext | None = None

    def cost_usd(self, *, input: int, cache_read: int, cache_write: int, output: int) -> Decimal:  # noqa: A002 - the ledger's words
        """Dollars of one call, exactly; the four counts share no token.

        >>> price = Price(input=Decimal("2.5"), cached_input=Decimal("1.25"), output=Decimal(10))
        >>> price.cost_usd(input=1000, cache_read=200, cache_write=0, output=50)
        Decimal('0.00325000')
        """
        rates: Rates = self
        if self.long_context is not None and input + cache_read + cache_write > self.long_context.above_input_tokens:
            rates = self.long_context
        return rates._cost_usd(  # noqa: SLF001 - the base class's own
            input=input, cache_read=cache_read, cache_write=cache_write, output=output
        )


class PriceSource(_Frozen):
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


class PricedModel(_Frozen):
    """A name's price and the file that set it."""

    price: Price
    source: PriceSource


class PriceTable(_Frozen):
    """Prices by exact model name."""

    models: Annotated[Mapping[str, PricedModel], AfterValidator(MappingProxyType)]

    def find(self, name: str) -> Price | None:
        """The price of exactly this name (`openai/gpt-4o`); None is unpriced."""
        entry = self.models.get(name)
        return None if entry is None else entry.price

    def near(self, name: str) -> list[str]:
        """Up to five names somebody who wrote `name` may have meant."""
        if "/" not in name:
            same = [known for known in self.models if known.partition("/")[2] == name]
            if same:
                return same[:5]
        written = name if "/" in name else f"openai/{name}"
        return difflib.get_close_matches(written, list(self.models), n=5, cutoff=0.6)


class _PriceFile(_Frozen):
    schema_version: int = Field(default=SCHEMA_VERSION, ge=1)
    source: str | None = None
    source_version: Annotated[str, BeforeValidator(str)] | None = None
    retrieved: Annotated[str, BeforeValidator(str)] | None = None
    currency: Literal["USD"] = "USD"
    unit: Literal["per 1M tokens"] = "per 1M tokens"
    models: dict[str, Price]


def load_prices(user_file: Path | None = None) -> PriceTable:
    """The shipped prices, with those of `user_file` on top.

    Raises:
        PricingError: the user's file cannot be used; every problem in it is named with its line.
    """
    document = parse_yaml(files("fbench.pricing").joinpath(BUILT_IN).read_bytes(), BUILT_IN)
    models = _priced(document, BUILT_IN, "built-in")
    if user_file is not None:
        models |= _priced(read_yaml(user_file), str(user_file), "user")
    return PriceTable(models=models)


def _priced(document: Document, name: str, kind: Literal["built-in", "user"]) -> dict[str, PricedModel]:
    content = _validate(document, name)
    source = PriceSource(
        kind=kind,
        file=name,
        source=content.source,
        source_version=content.source_version,
        retrieved=content.retrieved,
    )
    return {model: PricedModel(price=price, source=source) for model, price in content.models.items()}


def _validate(document: Document, name: str) -> _PriceFile:
    value = document.value
    if not isinstance(value, dict):
        msg = f"{name}:1: a price file is a mapping like {{models: {{openai/NAME: {{input: 1, output: 2}}}}}}"
        raise PricingError(msg)
    _refuse_newer(value.get("schema_version"), document, name)
    problems = [] if not isinstance(value.get("models"), dict) else _name_problems(value["models"], document)
    try:
        content = _PriceFile.model_validate(value)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            path = tuple(item["loc"])
            problems.append((document.line_of(path), f"`{'.'.join(map(str, path))}` {_say(item)}"))
        content = None
    if content is None or problems:
        told = "\n".join(f"{name}:{line}: {text}" for line, text in sorted(set(problems)))
        raise PricingError(told)
    return content


def _refuse_newer(version: object, document: Document, name: str) -> None:
    if isinstance(version, Decimal) and version > SCHEMA_VERSION:
        msg = (
            f"{name}:{document.line_of(('schema_version',))}: the price file has schema_version {version}, this fbench "
            f"reads up to {SCHEMA_VERSION}; upgrade fbench (distribution factory-bench)"
        )
        raise PricingError(msg)


def _name_problems(models: dict[str, Any], document: Document) -> list[tuple[int, str]]:
    problems = []
    for model in models:
        line = document.line_of(("models", model))
        if _NAME.fullmatch(model) is None:
            problems.append((line, f"`models.{model}` is no model name; write PROVIDER/NAME, like openai/{model}"))
        elif model.partition("/")[0] in FREE_PROVIDERS:
            problems.append((line, f"`models.{model}` costs 0 by definition and takes no price; remove the line"))
    return problems


def _say(item: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    if item["type"] == "extra_forbidden":
        key = str(item["loc"][-1])
        valid = list(_valid_keys(tuple(item["loc"])))
        near = difflib.get_close_matches(key, valid, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"valid keys: {', '.join(valid)}"
        return f"is no key of a price file; {hint}"
    if item["type"] == "missing":
        return "is missing; write it beside the others"
    if item["type"] in {"model_type", "dict_type"}:
        return "is wrong: it must be a mapping, like {input: 1, output: 2} for a model"
    return "is wrong: " + str(item["msg"]).removeprefix("Value error, ")


def _valid_keys(path: tuple[str | int, ...]) -> tuple[str, ...]:
    if "long_context" in path[:-1]:
        return tuple(LongContext.model_fields)
    return tuple(_PriceFile.model_fields) if len(path) == 1 else tuple(Price.model_fields)
