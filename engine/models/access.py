"""From a model's name to its server: which address, key and headers, out of options, fbench.toml and environment."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fbench.engine.config import FROM_ENVIRONMENT, Config, Provider, is_reference
from fbench.engine.errors import UsageError
from fbench.engine.models.addresses import secrets_in
from fbench.engine.models.names import ModelSpec, parse_model_name
from fbench.engine.own_parts import own_parts

if TYPE_CHECKING:
    from fbench.tasks.loading import LoadedTask

OPENAI_KEY = "OPENAI_API_KEY"
OPENAI_URL = "OPENAI_BASE_URL"

_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Access:
    """What a provider of fbench.toml is reached with: `secrets` are the key, what headers take from the environment,
    and what those hold that are called like a secret."""

    api_key: str | None = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


def provider_access(
    name: str, provider: Provider, environ: Mapping[str, str], *, api_key: str | None = None, is_needed: bool = True
) -> Access:
    """Key and headers of a provider, `api_key` in place of the one its `api_key_env` names. Where they are not needed,
    since nothing will be sent, those that are not set are left out.

    Raises:
        UsageError: a variable that the provider names is not set.
    """
    key = api_key or None
    if key is None and provider.api_key_env:
        where = f"[providers.{name}] api_key_env"
        key = _look_up(provider.api_key_env, environ, where, is_needed=is_needed) or None
    headers, secrets = {}, [key] if key else []
    for header, text in provider.headers.items():
        value = text
        if is_reference(text):
            variable, where = text.removeprefix(FROM_ENVIRONMENT), f"[providers.{name}] headers.{header}"
            if not (value := _look_up(variable, environ, where, is_needed=is_needed)):
                continue
        headers[header] = value
        if is_reference(text) or _SECRET_HEADER.search(header):
            scheme, _, token = value.partition(" ")
            secrets += [value, *([token] if scheme.isalpha() else [])]  # also the latter of `Bearer TOKEN`
    return Access(key, headers, tuple(secrets))


def make_spec(
    full_name: str,
    config: Config,
    environ: Mapping[str, str],
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    task: "LoadedTask | None" = None,
    style: str = "native",
    runs_dir: Path = Path("runs"),
    is_replayed: bool = False,
    likely_window: int | None = None,
) -> ModelSpec:
    """Everything needed to open a model. `base_url` and `api_key` are options and win over what is configured. A model
    that `is_replayed` needs no key and no header. `likely_window` is its context window where fbench.toml tells none.

    A provider of fbench.toml is reached as its section says and in no other way: one called `openai` takes nothing
    from OPENAI_BASE_URL and OPENAI_API_KEY.

    Raises:
        UsageError: there is no such provider, or a variable that it names is not set.
    """
    parsed = parse_model_name(full_name, config.providers)
    provider = None if own_parts().model(parsed.full) is not None else config.providers.get(parsed.provider)
    if provider is None:
        url = base_url or environ.get(OPENAI_URL) or None
        return ModelSpec(
            full_name=parsed.full,
            base_url=url,
            api_key=api_key or environ.get(OPENAI_KEY) or None,
            secrets=secrets_in(url),
            context_window=likely_window,
            is_window_hint=likely_window is not None,
            task=task,
            style=style,
            runs_dir=runs_dir,
        )
    access = provider_access(parsed.provider, provider, environ, api_key=api_key, is_needed=not is_replayed)
    entry = provider.models.get(parsed.name)
    told_window = entry.context_window if entry else None
    url = base_url or provider.base_url
    return ModelSpec(
        full_name=parsed.full,
        base_url=url,
        api_key=access.api_key,
        key_variable=provider.api_key_env or OPENAI_KEY,
        headers=access.headers,
        secrets=(*access.secrets, *secrets_in(url)),
        is_configured=True,
        api=(entry.api if entry else None) or provider.api or (None if parsed.provider == "openai" else "chat"),
        context_window=told_window or likely_window,
        is_window_hint=told_window is None and likely_window is not None,
        requests_per_minute=provider.requests_per_minute,
        tokens_per_minute=provider.tokens_per_minute,
        max_concurrency=provider.max_concurrency,
        task=task,
        style=style,
    )


def _look_up(variable: str, environ: Mapping[str, str], where: str, *, is_needed: bool) -> str:
    value = environ.get(variable, "").strip()
    if value or not is_needed:
        return value
    msg = (
        f"the variable {variable} is not set, which {where} of fbench.toml names: set it in the environment or in .env"
    )
    raise UsageError(msg)
