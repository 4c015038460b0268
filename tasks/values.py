"""The values that a manifest's keys may hold: sizes, money, paths, commands, and how each is refused in words."""

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator

MAX_BYTES_VALUE = 2**60
MAX_USD = 10**9

_MEMORY = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_MEMORY_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_bytes(value: object) -> int:
    """Bytes of `512m`, `1g` or a plain number of bytes; units are powers of 1024, as Docker reads them."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        msg = "a size is a number of bytes or a text like 512m or 1g"
        raise ValueError(msg)  # noqa: TRY004 - pydantic reads ValueError as a finding
    match = _MEMORY.fullmatch(str(value).strip())
    size = int(Decimal(match[1]) * _MEMORY_UNITS[match[2].lower()]) if match else 0
    if size <= 0 or size > MAX_BYTES_VALUE:
        msg = f"{shorten(value)} is no size: write a number above 0 and a unit, like 512m or 1g"
        raise ValueError(msg)
    return size


def shorten(value: object, limit: int = 60) -> str:
    """The value in one printable line of at most `limit` characters."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _plain_text(value: object) -> object:
    """YAML reads `PORT: 5432` as a number; an environment variable is a text all the same."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _as_decimal(value: object) -> object:
    return Decimal(str(value)) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _inside(value: str) -> str:
    path = PurePosixPath(value)
    if not value or path.is_absolute() or ".." in path.parts or path == PurePosixPath() or "\0" in value:
        msg = f"{shorten(value)} must be a relative path that stays inside, without '..'"
        raise ValueError(msg)
    return value


def _inside_or_all(value: str) -> str:
    return value if value == "." else _inside(value)


def _env_names(value: Mapping[str, str]) -> Mapping[str, str]:
    for name, text in value.items():
        if not _ENV_NAME.fullmatch(name):
            msg = f"{shorten(name)} is no name of an environment variable"
            raise ValueError(msg)
        if name.startswith("FBENCH_"):
            msg = f"{name!r} is reserved: names that begin with FBENCH_ are set by fbench"
            raise ValueError(msg)
        if "\0" in text:
            msg = f"the value of {name!r} holds a NUL byte"
            raise ValueError(msg)
    return dict(value)


def internet_only(value: object) -> object:
    """The one word that a network may allow."""
    if value != "internet":
        msg = f"{shorten(value)} cannot be allowed: [internet] opens the network, [] keeps it to the services by name"
        raise ValueError(msg)
    return value


def _threshold(value: object) -> float | tuple[float, float]:
    if _is_finite(value):
        return float(value)  # type: ignore[arg-type]  # a number, as _is_finite found
    if isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_finite, value)):  # noqa: PLR2004 - a pair
        return float(value[0]), float(value[1])
    msg = f"must be a finite number, or [low, high] for op between; found {shorten(value)}"
    raise ValueError(msg)


def _as_written(threshold: float | tuple[float, float]) -> float | list[float]:
    return list(threshold) if isinstance(threshold, tuple) else threshold


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _json_cell(value: object) -> object:
    """A cell of an expected table: what a JSON document can hold, so that a database's answer can equal it."""
    if isinstance(value, list | tuple):
        return [_json_cell(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _json_cell(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | str) or _is_finite(value):
        return value
    msg = f"{shorten(str(value))} is neither a text, a finite number, true, false nor null; put a date in quotes"
    raise ValueError(msg)


def matching(pattern: str, words: str) -> AfterValidator:
    """A validator of texts that match `pattern` as a whole; `words` say what they must be."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            msg = f"{shorten(value)} must be {words}"
            raise ValueError(msg)
        return value

    return AfterValidator(check)


def _no_nul(value: str) -> str:
    if not value.strip() or "\0" in value:
        msg = f"{shorten(value)} must be a command: neither blank nor with a NUL byte"
        raise ValueError(msg)
    return value


def not_blank(value: str) -> str:
    """The text, refused when there is nothing in it."""
    if not value.strip():
        msg = "must not be blank"
        raise ValueError(msg)
    return value


Bytes = Annotated[int, BeforeValidator(parse_bytes)]
Money = Annotated[
    Decimal,
    BeforeValidator(_as_decimal),
    Field(ge=0, le=MAX_USD, allow_inf_nan=False),
    PlainSerializer(float, return_type=float, when_used="json"),
]
InsidePath = Annotated[str, AfterValidator(_inside)]
InsideFolder = Annotated[str, AfterValidator(_inside_or_all)]
Text = Annotated[str, BeforeValidator(_plain_text)]
Env = Annotated[Mapping[str, Text], AfterValidator(_env_names)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Command = Annotated[str, AfterValidator(_no_nul)]
Name = Annotated[str, Field(min_length=1)]
Threshold = Annotated[float | tuple[float, float], PlainValidator(_threshold), PlainSerializer(_as_written)]
Row = Annotated[tuple[Annotated[Any, AfterValidator(_json_cell)], ...], Field(strict=False)]
ServiceName = Annotated[str, matching(r"[a-z0-9][a-z0-9_-]{0,62}", "lower-case letters, digits, _ and -")]
ModuleName = Annotated[str, matching(r"[^\W\d]\w*(\.[^\W\d]\w*)*", "the dotted name of a Python module")]
