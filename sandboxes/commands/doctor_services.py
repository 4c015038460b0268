"""What doctor asks of models: the key, the endpoint that serves them, and the providers of a fbench.toml."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import anyio

from fbench.engine.errors import UsageError
from fbench.sandboxes.commands.doctor_machine import Finding

if TYPE_CHECKING:
    import httpx

    from fbench.engine.config import Provider

PATIENCE_S = 10.0
"""For one answer: a local engine takes milliseconds, a far endpoint a second or two."""

MAX_BODY_BYTES = 8 * 1024 * 1024
MODELS_SHOWN = 5

_KEY_VARIABLE = "OPENAI_API_KEY"
_SENDABLE_KEY = re.compile(r"[\x21-\x7e]+")


class _Answer(NamedTuple):
    status: int
    content_type: str
    location: str
    body: bytes


async def look_at_key(environ: Mapping[str, str]) -> Finding:
    """Whether there is a key for the models' server. It is never shown."""
    key = environ.get("OPENAI_API_KEY", "").strip()
    if not key:
        advice = "set OPENAI_API_KEY in the environment or in .env; fake models and most local servers need none"
        return Finding(name="key", status="missing", detail="OPENAI_API_KEY is not set", advice=advice)
    if not _SENDABLE_KEY.fullmatch(key):
        detail = "OPENAI_API_KEY holds characters that no HTTP header can carry"
        return Finding(name="key", status="fault", detail=detail, advice="copy it again")
    return Finding(name="key", status="ok", detail="OPENAI_API_KEY is set")


async def look_at_endpoint(base_url: str | None, environ: Mapping[str, str]) -> Finding:
    """Ask the endpoint for its models; without a base URL the provider's own, if there is a key for it."""
    from fbench.engine.models.endpoint import DEFAULT_BASE_URL  # noqa: PLC0415 - one name, kept in one place

    key = environ.get("OPENAI_API_KEY", "").strip()
    if not base_url and not key:
        advice = "name a server with --base-url or OPENAI_BASE_URL, or set OPENAI_API_KEY; fake models need neither"
        return Finding(name="endpoint", status="missing", detail="none configured, none asked", advice=advice)
    if key and not _SENDABLE_KEY.fullmatch(key):
        return Finding(name="endpoint", status="missing", detail="not asked: the key cannot be sent (see key)")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return await _ask_for_models("endpoint", base_url or DEFAULT_BASE_URL, headers, [key], _KEY_VARIABLE)


def looks_at_providers(config: Path | None, environ: Mapping[str, str]) -> list[Callable[[], Awaitable[Finding]]]:
    """A look at each provider of a fbench.toml; a file that cannot be used is the one finding."""
    from fbench.engine.config import load_config  # noqa: PLC0415 - late: pydantic models of prices

    if config is None:
        return []
    try:
        providers = load_config(config).providers
    except UsageError as problem:
        return [partial(_tell, Finding(name="config", status="fault", detail=str(problem), advice="mend the file"))]
    return [partial(_look_at_provider, name, provider, environ) for name, provider in providers.items()]


async def _tell(finding: Finding) -> Finding:
    return finding


async def _look_at_provider(name: str, provider: "Provider", environ: Mapping[str, str]) -> Finding:
    from fbench.engine.models.access import provider_access  # noqa: PLC0415 - late, as above

    called = f"provider {name}"
    try:
        access = provider_access(name, provider, environ)
    except UsageError as problem:
        return Finding(name=called, status="missing", detail=f"not asked: {problem}")
    headers = dict(access.headers)
    if access.api_key and "authorization" not in map(str.lower, headers):
        headers["Authorization"] = f"Bearer {access.api_key}"
    if not all(text.isascii() and text.isprintable() for text in headers.values()):
        detail = "not asked: its key or a header holds characters that no HTTP header can carry"
        return Finding(name=called, status="fault", detail=detail, advice="copy it again")
    variable = ", ".join(provider.variables()) or "api_key_env in fbench.toml"
    return await _ask_for_models(called, provider.base_url, headers, access.secrets, variable)


async def _ask_for_models(
    name: str, base_url: str, headers: Mapping[str, str], secrets: Sequence[str], variable: str
) -> Finding:
    """What `GET /models` says; `secrets` stand in no finding, `variable` is where the key comes from."""
    url = base_url.strip().rstrip("/")
    shown = _without_secrets(url)
    try:
        answer = await _get(f"{url}/models", headers=headers)
    except _Unreachable as problem:
        why = str(problem)
        for secret in filter(None, secrets):
            why = why.replace(secret, "***")
        advice = "look at the address (with its /v1?), the server and your network"
        return Finding(name=name, status="fault", detail=f"{shown} gave no answer: {why}", advice=advice)
    return _read_models(name, answer, shown, variable)


def _read_models(name: str, answer: _Answer, shown: str, variable: str) -> Finding:
    """What the answer to `GET /models` says of the endpoint."""

    def fault(problem: str, advice: str) -> Finding:
        return Finding(name=name, status="fault", detail=f"{shown} {problem}", advice=advice)

    if answer.status in {401, 403}:
        return fault(f"refused the key (HTTP {answer.status})", f"set the right {variable} for this server")
    if 300 <= answer.status < 400:  # noqa: PLR2004 - HTTP's own classes
        target = _without_secrets(answer.location) or "elsewhere"
        return fault(f"redirects to {target} (HTTP {answer.status})", "use the address it names, with its /v1")
    if answer.status in {404, 405}:
        return fault(f"has no /models (HTTP {answer.status})", "is the base URL complete? It usually ends in /v1")
    if answer.status != 200:  # noqa: PLR2004 - HTTP's own
        return fault(f"answered HTTP {answer.status}", "the server is up but not well: look at its log")
    try:
        document: Any = json.loads(answer.body)
        data = document["data"]
        names = [str(model["id"]) for model in data if model.get("id")]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        kind = answer.content_type or "no content type"
        return fault(f"answered with no list of models ({kind})", "is the base URL complete? It usually ends in /v1")
    listed = [re.sub(r"[^\x20-\x7e]", "?", name)[:100] for name in names]
    first = ", ".join(listed[:MODELS_SHOWN]) + (", ..." if len(listed) > MODELS_SHOWN else "")
    detail = f"{shown} serves {len(listed)} models: {first}" if listed else f"{shown} answers and lists no model"
    return Finding(name=name, status="ok", detail=detail, facts={"models": listed})


class _Unreachable(Exception):
    """No answer came; the text says why."""


async def _get(url: str, *, headers: Mapping[str, str]) -> _Answer:
    """One bounded GET, redirects not followed. Raises _Unreachable."""
    import httpx  # noqa: PLC0415 - heavy, and for this only

    _check_address(url)
    try:
        with anyio.fail_after(PATIENCE_S):
            async with httpx.AsyncClient(timeout=PATIENCE_S, headers=headers) as client:
                return await _read_bounded(client, url)
    except (TimeoutError, httpx.TimeoutException) as error:
        msg = f"nothing within {PATIENCE_S:g} s"
        raise _Unreachable(msg) from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError, TypeError) as error:
        raise _Unreachable(str(error) or type(error).__name__) from error


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        msg = "it is no address of a server, which is like http://127.0.0.1:8000/v1"
        raise _Unreachable(msg)


async def _read_bounded(client: "httpx.AsyncClient", url: str) -> _Answer:
    async with client.stream("GET", url) as response:
        parts, size = [], 0
        async for part in response.aiter_bytes():
            size += len(part)
            if size > MAX_BODY_BYTES:
                msg = f"its answer is longer than {MAX_BODY_BYTES} bytes"
                raise _Unreachable(msg)
            parts.append(part)
        kind, location = response.headers.get("content-type", ""), response.headers.get("location", "")
        return _Answer(response.status_code, kind, location, b"".join(parts))


def _without_secrets(url: str) -> str:
    """The address without user, password and query, which may be secret."""
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return "an address that cannot be read"
