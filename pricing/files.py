"""What a price file holds, and what is wrong with one: every problem with its line, key and what to do.

Version 1 had one price a model and one long-context tier; version 2 has dated prices, hours and several tiers; version
3 has windows. What an older version wrote means the same in a newer one.
"""

import difflib
import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from fbench.pricing.errors import PricingError
from fbench.pricing.rates import WINDOW, DatedPrice, Frozen, HourlyPrice, LongContext, WrittenTariff
from fbench.pricing.reading import Document, KeyPath

SCHEMA_VERSION = 3

FREE_PROVIDERS = ("fake", "replay")
"""Their models cost 0 by definition and cannot be priced."""

_NAME = re.compile(r"[A-Za-z0-9._-]+/\S+")


class PriceFile(Frozen):
    """The content of a price file."""

    schema_version: int = Field(default=SCHEMA_VERSION, ge=1)
    source: str | None = None
    source_version: Annotated[str, BeforeValidator(str)] | None = None
    retrieved: Annotated[str, BeforeValidator(str)] | None = None
    currency: Literal["USD"] = "USD"
    unit: Literal["per 1M tokens"] = "per 1M tokens"
    models: dict[str, WrittenTariff]


def read_document(document: Document, name: str) -> PriceFile:
    """The content of a file that has been read; `name` is how errors call it.

    Raises:
        PricingError: it is no price file, or of a newer schema; every problem in it is told.
    """
    value = document.value
    if not isinstance(value, dict):
        msg = f"{name}:1: a price file is a mapping like {{models: {{openai/NAME: {{input: 1, output: 2}}}}}}"
        raise PricingError(msg)
    _refuse_newer(value.get("schema_version"), document, name)
    problems = [] if not isinstance(value.get("models"), dict) else _name_problems(value["models"], document)
    try:
        content = PriceFile.model_validate(value)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            path = _as_written(tuple(item["loc"]), value)
            problems.append((document.line_of(path), f"`{'.'.join(map(str, path))}` {_say(item)}"))
        content = None
    if content is None or problems:
        told = "\n".join(f"{name}:{line}: {text}" for line, text in sorted(set(problems)))
        raise PricingError(told)
    return content


def _as_written(path: KeyPath, value: object) -> KeyPath:
    """`path` as the file has it: without the places of lists it does not write (one price, one tier), a model's window
    beside its first price."""
    match path:
        case ("models", name, "entries", *inside):
            path = ("models", name, *inside)
        case ("models", name, key) if key == WINDOW:
            path = ("models", name, 0, key)
    written: list[str | int] = []
    for key in path:
        if isinstance(key, int) and not isinstance(value, list):
            continue
        written.append(key)
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
    return tuple(written)


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
        if key == WINDOW:
            return "is the model's and not a price's: write it once, beside the model's first price"
        hint = f"did you mean `{near[0]}`?" if near else f"valid keys: {', '.join(valid)}"
        return f"is no key of a price file; {hint}"
    if item["type"] == "missing":
        return "is missing; write it beside the others"
    if item["type"] in {"model_type", "dict_type"}:
        return "is wrong: it must be a mapping, like {input: 1, output: 2} for a model"
    return "is wrong: " + str(item["msg"]).removeprefix("Value error, ")


def _valid_keys(path: tuple[str | int, ...]) -> tuple[str, ...]:
    if len(path) == 1:
        return tuple(PriceFile.model_fields)
    inside = LongContext if "long_context" in path[:-1] else HourlyPrice if "hours" in path[:-1] else DatedPrice
    keys = tuple(field.alias or name for name, field in inside.model_fields.items())
    is_first = inside is DatedPrice and 0 in path
    return (*keys, WINDOW) if is_first else keys
