"""The price data of the installed package genai-prices, read as text: nothing of the package is imported or run.

The package ships its data as one Python file of literal calls (`Provider(id='openai', models=[ModelInfo(...)])`).
Importing it costs half a second and an HTTP client; its syntax tree says the same.
"""

import ast
import datetime as dt
import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from fbench.pricing.errors import PricingError

PACKAGE = "genai-prices"
DATA_FILE = "genai_prices/data.py"
EXTRA = "prices"


@dataclass(frozen=True, slots=True)
class Record:
    """One of the data's calls: its name (`ModelInfo`) and its keyword arguments."""

    kind: str
    fields: Mapping[str, Any]

    def get(self, name: str) -> Any:  # noqa: ANN401 - a text, number, date, list or Record
        """The argument, None where it is not given."""
        return self.fields.get(name)


class SourceData(NamedTuple):
    """What the package holds: its version and its providers, in their order."""

    version: str
    providers: tuple[Record, ...]


def read_source() -> SourceData:
    """The installed package's data.

    Raises:
        PricingError: the package is not installed, or its data has a shape this fbench does not know.
    """
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        msg = (
            f"the package {PACKAGE} is not installed, and prices are taken from it; install the extra `{EXTRA}`: "
            f"`uv sync --extra {EXTRA}`, or `pip install 'factory-bench[{EXTRA}]'`"
        )
        raise PricingError(msg) from None
    path = Path(str(distribution.locate_file(DATA_FILE)))
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        msg = (
            f"{PACKAGE} {distribution.version} has no readable {DATA_FILE} ({error.strerror or error}); "
            f"install the package again, or another version of it"
        )
        raise PricingError(msg) from error
    return SourceData(distribution.version, parse_source(text, f"{PACKAGE} {distribution.version}"))


def parse_source(text: str, name: str) -> tuple[Record, ...]:
    """The providers in the text of a data file; `name` is how errors call it."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        msg = f"the data of {name} is no Python text ({error}); install the package again"
        raise PricingError(msg) from error
    for statement in tree.body:
        target = statement.target if isinstance(statement, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and target.id == "providers" and isinstance(statement, ast.AnnAssign):
            providers = _value(statement.value, name) if statement.value is not None else None
            if isinstance(providers, list) and all(isinstance(one, Record) for one in providers):
                return tuple(providers)
    return _unknown(None, name)


_CONSTRUCTORS: Mapping[str, Callable[..., object]] = {
    "Decimal": Decimal,
    "datetime.date": dt.date,
    "datetime.time": dt.time,
}
"""Calls that stand for a value of their own; any other call is a Record."""


def _value(node: ast.expr, name: str) -> Any:  # noqa: ANN401 - see Record.get
    match node:
        case ast.Constant(value):
            return value
        case ast.List(elements) | ast.Tuple(elements):
            return [_value(element, name) for element in elements]
        case ast.Dict(keys, values) if all(isinstance(key, ast.Constant) for key in keys):
            read = (_value(value, name) for value in values)
            return {key.value: value for key, value in zip(keys, read, strict=True) if isinstance(key, ast.Constant)}
        case ast.Attribute() if ast.unparse(node) in {"datetime.UTC", "datetime.timezone.utc"}:
            return dt.UTC
        case ast.Call(function, positional, keywords) if all(word.arg is not None for word in keywords):
            called = function.id if isinstance(function, ast.Name) else ast.unparse(function)
            arguments = [_value(argument, name) for argument in positional]
            named = {str(word.arg): _value(word.value, name) for word in keywords}
            if called in _CONSTRUCTORS:
                return _CONSTRUCTORS[called](*arguments, **named)
            if isinstance(function, ast.Name) and not arguments:
                return Record(called, named)
    return _unknown(node, name)


def _unknown(node: ast.expr | None, name: str) -> NoReturn:
    where = "" if node is None else f", line {node.lineno}: {ast.unparse(node)[:80]}"
    msg = f"the data of {name} has a shape this fbench does not know{where}; take another version, or upgrade fbench"
    raise PricingError(msg)
