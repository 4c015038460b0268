"""`fbench.toml`: model servers by name, `[providers.NAME]`, so that `--model NAME/MODEL` reaches them.

The command line looks for it in the working folder; the library reads only a file that its caller names. A key stands
in the environment, never in the file: `api_key_env` and header values `env:NAME` say where.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fbench.engine.errors import UsageError
from fbench.engine.models.addresses import is_address
from fbench.pricing.table import FREE_PROVIDERS, Price, PricedModel, PriceSource, PriceTable
from fbench.tasks.errors import Problem
from fbench.tasks.wording import say, unknown_key
from fbench.tasks.yaml_models import KeyPath, valid_keys

CONFIG_FILE = "fbench.toml"
FROM_ENVIRONMENT = "env:"
MAX_FILE_BYTES = 1024 * 1024

_PROVIDER = re.compile(r"[A-Za-z0-9._-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TABLE_LINE = re.compile(r"\s*\[\[?[^\[].*\]\s*(#.*)?")
_KEY_LINE = re.compile(
    r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)


def _address(value: str) -> str:
    if not is_address(value):
        msg = "is no address of a server: write it like http://127.0.0.1:8000/v1"
        raise ValueError(msg)
    return value.strip()


def _variable(value: str) -> str:
    if not _VARIABLE.fullmatch(value):
        msg = "must be the name of an environment variable, like LOCAL_API_KEY; the key itself does not belong here"
        raise ValueError(msg)
    return value


def _headers(value: Mapping[str, str]) -> Mapping[str, str]:
    for name, text in value.items():
        if not _HEADER.fullmatch(name):
            msg = f"{name!r} is no name of a header"
            raise ValueError(msg)
        if is_reference(text) and not _VARIABLE.fullmatch(text.removeprefix(FROM_ENVIRONMENT)):
            msg = f"{name}: `env:` wants the name of an environment variable, like env:GATEWAY_TOKEN"
            raise ValueError(msg)
    return value


def _provider_names(value: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in value:
        if name in FREE_PROVIDERS:
            msg = f"{name!r} is fbench's own and reaches no server; call the provider otherwise"
            raise ValueError(msg)
        if not _PROVIDER.fullmatch(name):
            msg = f"{name!r} is no name of a provider: write letters, digits, '.', '_' and '-'"
            raise ValueError(msg)
    return value


def _decimals(value: Any) -> Any:  # noqa: ANN401 - whatever the file holds
    """TOML's whole numbers as Decimals, as prices want them; its others are read so."""
    if isinstance(value, dict):
        return {key: _decimals(item) for key, item in value.items()}
    return Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else value


_Count = Annotated[int, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ModelEntry(_Section):
    """What differs for one model of a provider; `context_window` is tokens."""

    api: Literal["chat", "responses"] | None = None
    context_window: _Count | None = None


class Provider(_Section):
    """An OpenAI-compatible server.

    Attributes:
        base_url: with its `/v1`.
        api_key_env: the variable that holds the key; None sends no key.
        headers: sent with every request; a value `env:NAME` is that variable's.
        api: `chat` is /chat/completions, `responses` is /responses. None is chat, but for models of the provider
            `openai` that OpenAI serves by the other only.
        prices: by the model's name here, as in a price file, USD per 1M tokens.
        models: by the model's name here.
        requests_per_minute, tokens_per_minute, max_concurrency: what the endpoint grants; None is no limit.
    """

    base_url: Annotated[str, AfterValidator(_address)]
    api_key_env: Annotated[str, AfterValidator(_variable)] | None = None
    headers: Annotated[Mapping[str, str], AfterValidator(_headers)] = Field(default_factory=dict)
    api: Literal["chat", "responses"] | None = None
    prices: Annotated[Mapping[str, Price], BeforeValidator(_decimals)] = Field(default_factory=dict)
    models: Mapping[str, ModelEntry] = Field(default_factory=dict)
    requests_per_minute: _Count | None = None
    tokens_per_minute: _Count | None = None
    max_concurrency: _Count | None = None

    def variables(self) -> tuple[str, ...]:
        """The environment variables whose values are secret."""
        named = [text.removeprefix(FROM_ENVIRONMENT) for text in self.headers.values() if is_reference(text)]
        return (*([self.api_key_env] if self.api_key_env else []), *named)


class Config(_Section):
    """A whole fbench.toml."""

    providers: Annotated[Mapping[str, Provider], AfterValidator(_provider_names)] = Field(default_factory=dict)

    def price_over(self, table: PriceTable, provider: str, model: str) -> PricedModel | None:
        """The price of a model: a price file of the user's comes first, then this one, then the built-in list. It comes
        with the window that the table has for the name, whichever price goes before."""
        entry = table.models.get(f"{provider}/{model}")
        ours = self.providers[provider].prices.get(model) if provider in self.providers else None
        if ours is None or (entry and entry.source.kind == "user"):
            return entry
        priced = PricedModel.fixed(f"{provider}/{model}", ours, PriceSource(kind="user", file="fbench.toml"))
        return priced.with_window(entry)


def load_config(path: Path) -> Config:
    """What a fbench.toml says.

    Raises:
        UsageError: it cannot be read, or is wrong; every problem is named with its line and key.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read {path}: {error}; mend it, or name another file with --config"
        raise UsageError(msg) from error
    if len(data) > MAX_FILE_BYTES:
        msg = f"{path} is longer than {MAX_FILE_BYTES} bytes; is it a fbench.toml at all?"
        raise UsageError(msg)
    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        msg = f"{path}: no valid TOML: {error}"
        raise UsageError(msg) from error
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        _refuse(path, text, error)


def is_reference(text: str) -> bool:
    """Whether a header's value names a variable."""
    return text.startswith(FROM_ENVIRONMENT)


def _refuse(path: Path, text: str, error: ValidationError) -> NoReturn:
    lines = _lines_of(text)
    problems: dict[Problem, None] = {}
    for item in error.errors(include_url=False):
        where = tuple(part for part in item["loc"] if part != "[key]")
        if item["type"] == "extra_forbidden":
            message, hint = unknown_key(str(where[-1]), valid_keys(Config, where))
        elif item["type"] == "missing":
            message, hint = "is missing", "every provider has a base_url" if where[-1] == "base_url" else ""
        else:
            message, hint = say(item, None)
        problems[Problem(str(path), _line_of(where, lines), ".".join(map(str, where)), message, hint)] = None
    listed = sorted(problems, key=lambda problem: problem.line or 0)
    raise UsageError("\n".join(map(str, listed))) from error


def _line_of(path: KeyPath, lines: Mapping[KeyPath, int]) -> int | None:
    return next((line for end in range(len(path), 0, -1) if (line := lines.get(path[:end]))), None)


def _lines_of(text: str) -> dict[KeyPath, int]:
    """The line of each table and each key that begins a line; tomllib itself knows none."""
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if _TABLE_LINE.fullmatch(line):
            path = table = _path_in(line.replace("[[", "[").replace("]]", "]"))
        elif match := _KEY_LINE.match(line):
            path = (*table, *_path_in(f"{match[1]} = 0"))
        else:
            continue
        for end in range(1, len(path) + 1):
            lines.setdefault(path[:end], number)
    return lines


def _path_in(line: str) -> KeyPath:
    """The key path of one line of TOML, () where it is none by itself."""
    try:
        return tuple(_only_path(tomllib.loads(line)))
    except tomllib.TOMLDecodeError:
        return ()


def _only_path(value: object) -> Iterator[str]:
    while isinstance(value, dict) and value:
        key, value = next(iter(value.items()))
        yield key
