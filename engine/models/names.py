"""Models by name: `provider/name`, our providers as dotted names, those of other packages as entry points."""

import difflib
from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from fbench.engine.errors import UnknownNameError
from fbench.engine.own_parts import own_parts
from fbench.engine.registry import import_dotted

if TYPE_CHECKING:
    from fbench.engine.models.wire import Api
    from fbench.engine.seams import Model
    from fbench.tasks.loading import LoadedTask

PROVIDERS: Mapping[str, str] = MappingProxyType(
    {
        "openai": "fbench.engine.models.openai:open_model",
        "fake": "fbench.engine.models.fake:open_model",
        "replay": "fbench.engine.models.stored:open_model",
    }
)
"""Providers of our own; an outside one comes by the entry-point group `fbench.models`."""

DEFAULT_ATTEMPT_TIMEOUT_S = 600.0
"""One HTTP attempt, from connecting to the last byte: long reasoning answers take minutes, none takes ten."""

ORACLE = "fake/oracle"
EXPLOIT_PREFIX = "fake/exploit:"
"""Begins the name of the fake that plays one exploit of the task, for `fbench validate`; its file follows."""

_FORM = "write it as provider/name, like openai/gpt-4o-mini or fake/oracle"


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model's name taken apart: `full` is `provider/name`; `name` may itself hold slashes."""

    provider: str
    name: str
    full: str

    @property
    def is_fake(self) -> bool:
        """Whether fbench itself plays the model: such runs may go unisolated."""
        return self.provider == "fake"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything needed to open one model for one run.

    Attributes:
        base_url: of an OpenAI-compatible server, with its `/v1`; None is the provider's own.
        api_key: None where none is set.
        key_variable: the environment variable the key is looked up in, for error texts.
        headers: sent with every request, environment already filled in.
        secrets: texts besides the key that no error may show: what headers hold.
        is_configured: the provider is one of fbench.toml; it speaks OpenAI's API, and without a key none is sent.
        api: the wire format fbench.toml asks for; None lets the model's name, then the server, decide.
        context_window: tokens, None where it is not known.
        is_window_hint: it is that of a price table, by the model's name alone: the server may take more or less.
        requests_per_minute, tokens_per_minute, max_concurrency: what fbench.toml grants one endpoint; None is no limit.
        task: the task at hand; only the fakes that play its solution or exploits look at it.
        style: the manifest's `tools.style`; in `json_text` the fakes write their calls as text.
        runs_dir: where stored runs lie; only `replay/RUN_ID` looks there.
        attempt_timeout_s: the longest one HTTP attempt may take.
    """

    full_name: str
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    key_variable: str = "OPENAI_API_KEY"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    is_configured: bool = False
    api: "Api | None" = None
    context_window: int | None = None
    is_window_hint: bool = False
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None
    task: "LoadedTask | None" = None
    style: str = "native"
    runs_dir: Path = Path("runs")
    attempt_timeout_s: float = DEFAULT_ATTEMPT_TIMEOUT_S


def split_model_name(text: str) -> tuple[str, str]:
    """What stands before and after the first slash; nothing is checked."""
    provider, _, name = text.strip().partition("/")
    return provider, name


def parse_model_name(text: str, configured: Collection[str] = ()) -> ModelName:
    """The parts of a model's name; `configured` are the providers of fbench.toml.

    >>> parse_model_name("openai/gpt-4o")
    ModelName(provider='openai', name='gpt-4o', full='openai/gpt-4o')

    Raises:
        UnknownNameError: there is no such provider, or a part is missing; the text says what is legal.
    """
    provider, slash, name = text.strip().partition("/")
    own = own_parts()
    if name and own.model(f"{provider}/{name}") is not None:
        return ModelName(provider, name, f"{provider}/{name}")
    # Outside providers come last: to list them reads the metadata of every installed package.
    if provider not in PROVIDERS and provider not in configured and provider not in (outside := _outside_providers()):
        known = sorted({*PROVIDERS, *outside, *configured, *own.models})
        near = difflib.get_close_matches(provider, known, n=1)
        meant = f"{near[0]}/{name or 'NAME'}" if near else f"openai/{provider}" if provider and not slash else ""
        what = f"unknown provider {provider!r} in the model name {text!r}" if slash else f"{text!r} is no model name"
        hint = f"; did you mean {meant}?" if meant else ""
        more = "; other servers get a name in fbench.toml (docs/models.md)" if slash else ""
        msg = f"{what}: {_FORM}; providers are {', '.join(known)}{more}{hint}"
        raise UnknownNameError(msg)
    if not name:
        msg = f"the model name {text!r} lacks the part after the provider: {_FORM}."
        raise UnknownNameError(msg)
    return ModelName(provider, name, f"{provider}/{name}")


def open_model(spec: ModelSpec) -> AbstractAsyncContextManager["Model"]:
    """A model to ask, while the context lasts.

    Raises:
        UnknownNameError: nothing answers to `spec.full_name`.
        UsageError: raised on entering, when the model cannot be used as asked (no key, no solution, a broken script).
    """
    factory: Any = own_parts().model(spec.full_name)
    if hasattr(factory, "complete"):  # the model itself, for all runs
        return nullcontext(factory)
    if factory is None:
        provider = "openai" if spec.is_configured else parse_model_name(spec.full_name).provider
        dotted = PROVIDERS.get(provider)
        factory = _outside_providers()[provider].load() if dotted is None else import_dotted(dotted)
    return cast("AbstractAsyncContextManager[Model]", factory(spec))


def _outside_providers() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group="fbench.models")}
