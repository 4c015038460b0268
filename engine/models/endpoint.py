"""An OpenAI-compatible endpoint: opened with a key and headers, asked by POST, bounded in time and size, never retried.

The SDK builds requests, aiohttp carries them. Neither reads answers: servers send what the SDK's models do not foresee.
Of the ways a request can take through both this costs least: see docs/benchmarks.md.
"""

import os
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
from anyio.lowlevel import RunVar

from fbench.engine.errors import UsageError
from fbench.engine.logs import get_logger
from fbench.engine.models.addresses import is_address
from fbench.engine.models.answers import Answer, excerpt
from fbench.engine.models.names import ModelSpec
from fbench.engine.records.redaction import redactor
from fbench.engine.seams import AttemptFailed

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI, Omit

    from fbench.engine.models.wire import WirePath

DEFAULT_BASE_URL = "https://api.openai.com/v1"
PLACEHOLDER_KEY = "none"
"""Sent where no key is set: local servers ignore it, and the SDK wants one."""
CONNECT_TIMEOUT_S = 30.0
CLOSE_GRACE_S = 5.0
NO_LIMIT = 0
"""Of connections, as aiohttp writes it: how many calls are made at once is decided elsewhere."""
KEEPALIVE_S = 5.0
"""How long a connection that nobody uses is kept, which is httpx2's own default."""
MOST_BODY_BYTES = 64 * 1024**2
MOST_REFUSAL_BYTES = 64 * 1024
"""Of an answer that is no success only this much is read: its words are at the beginning."""

_NEVER_PROXIED = ("all://localhost", "all://127.0.0.1", "all://[::1]")
"""A proxy of the environment serves the world; a server on this machine is asked directly."""

_SENDABLE_KEY = re.compile(r"[\x21-\x7e]+")
_SENDABLE_HEADER = re.compile(r"[\t\x20-\x7e]*")

log = get_logger(__name__)


class _NoSuccess(Exception):
    """Carries an answer out of the SDK, which would read all of it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@asynccontextmanager
async def open_endpoint(spec: ModelSpec) -> AsyncIterator["Endpoint"]:
    """The endpoint of a model. Who opens the same one meanwhile shares its connections, which the last to leave closes.

    Raises:
        UsageError: no key for OpenAI itself, a key or header value that cannot be sent, or a base URL that is none.
    """
    base_url = _base_url(spec.base_url)
    api_key = _api_key(spec, base_url)
    for name, value in spec.headers.items():
        if not _SENDABLE_HEADER.fullmatch(value):
            msg = f"the value of the header {name} holds characters that no HTTP header can carry: copy it again"
            raise UsageError(msg)

    from openai import Omit  # noqa: PLC0415 - heavy: openai takes 0.75 s of CPU

    # The SDK's own header stays out where there is no key, and beside one of the provider's, however that is spelt.
    sends_key = api_key and "authorization" not in map(str.lower, spec.headers)
    headers: dict[str, str | Omit] = {**({} if sends_key else {"Authorization": Omit()}), **spec.headers}
    clients = _clients.get({})
    key = (base_url, api_key, spec.attempt_timeout_s, tls_context())
    shared = clients.get(key)
    if shared is None:
        shared = clients[key] = _SharedClient(_make_client(base_url, api_key, spec.attempt_timeout_s))
        _clients.set(clients)
    shared.users += 1
    try:
        yield Endpoint(spec, shared.client, headers, redactor([spec.api_key, *spec.secrets]))
    finally:
        shared.users -= 1
        if not shared.users:
            del clients[key]
            with anyio.move_on_after(CLOSE_GRACE_S, shield=True) as grace:
                await shared.client.close()
            if grace.cancelled_caught:
                log.error("model.close_timed_out", model=spec.full_name, grace_s=CLOSE_GRACE_S)


@dataclass(slots=True)
class _SharedClient:
    """A client, and how many endpoints use it."""

    client: "AsyncOpenAI"
    users: int = 0


_clients: RunVar[dict[tuple[str, str | None, float, ssl.SSLContext], _SharedClient]] = RunVar("fbench_clients")


def _make_client(base_url: str, api_key: str | None, attempt_timeout_s: float) -> "AsyncOpenAI":
    import httpx2  # noqa: PLC0415 - heavy
    from openai import AsyncOpenAI, DefaultAioHttpClient  # noqa: PLC0415 - heavy

    connect_s = _connect_timeout(attempt_timeout_s)
    # aiohttp's `connect`, which the SDK's transport takes from `pool`, is all until a connection is there, TLS too.
    timeout = httpx2.Timeout(attempt_timeout_s, connect=connect_s, pool=connect_s)
    http_client = DefaultAioHttpClient(
        timeout=timeout,
        follow_redirects=False,
        event_hooks={"response": [_refuse_no_success]},
        mounts=dict.fromkeys(_NEVER_PROXIED),
        verify=tls_context(),
    )
    client = AsyncOpenAI(
        api_key=api_key or PLACEHOLDER_KEY,
        base_url=base_url,
        max_retries=0,
        timeout=timeout,
        http_client=http_client,
        admin_api_key="",
    )
    _refuse_socks(http_client, base_url)
    _keep_no_cookies(http_client)
    # The SDK fills these from variables of its own; what a run sends must not depend on them.
    client.organization = client.project = None
    client._custom_headers = {}  # noqa: SLF001 - OPENAI_CUSTOM_HEADERS has no public way out
    return client


def _refuse_socks(http_client: "httpx2.AsyncClient", base_url: str) -> None:
    """Raises UsageError where the environment sends the endpoint's requests to a SOCKS proxy: aiohttp would speak HTTP
    to it, fail, and try again for as long as a run waits for its model."""
    import httpx2  # noqa: PLC0415 - heavy

    transport: Any = http_client._transport_for_url(httpx2.URL(base_url))  # noqa: SLF001 - no public way
    proxy = getattr(transport, "proxy", None)
    if proxy is not None and proxy.url.scheme not in {"http", "https"}:
        msg = (
            f"the environment names a {proxy.url.scheme} proxy for {base_url}, and only HTTP proxies are spoken to: "
            f"unset ALL_PROXY, or name the server in NO_PROXY"
        )
        raise UsageError(msg)


def _keep_no_cookies(http_client: "httpx2.AsyncClient") -> None:
    """What a server sets in its answer to one run would go out with the requests of others: the client keeps cookies,
    and so does the session of aiohttp beneath it, unless it is made with a jar that takes none."""
    import aiohttp  # noqa: PLC0415 - heavy

    def make_session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=NO_LIMIT, keepalive_timeout=KEEPALIVE_S, ssl=tls_context())
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    http_client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))
    transports: tuple[Any, ...] = (http_client._transport, *http_client._mounts.values())  # noqa: SLF001 - no public way
    for transport in filter(None, transports):
        transport.client = make_session


class Endpoint:
    """See the module; made by `open_endpoint`. `redact` takes the key and secret headers out of a text."""

    def __init__(
        self, spec: ModelSpec, client: "AsyncOpenAI", headers: "Mapping[str, str | Omit]", redact: Callable[[str], str]
    ) -> None:
        self.redact = redact
        self._client = client
        self._headers = headers
        self._attempt_timeout_s = spec.attempt_timeout_s

    async def post(self, path: "WirePath", body: bytes) -> Answer:
        """What the server answers to this JSON, whatever its status. Raises AttemptFailed without a whole answer."""
        import aiohttp  # noqa: PLC0415 - heavy
        import httpx2  # noqa: PLC0415 - heavy
        from openai import APIConnectionError, OpenAIError  # noqa: PLC0415 - heavy

        try:
            with anyio.fail_after(self._attempt_timeout_s):
                return await self._exchange(path, body)
        except _NoSuccess as refused:
            return refused.answer
        except (APIConnectionError, httpx2.HTTPError, httpx2.StreamError, aiohttp.ClientError, OSError) as error:
            # What the transport makes of aiohttp's errors is not used: a connection that broke is a timeout to it.
            words = f"the connection failed ({_cause(error)})"
            if _find_cause(error, aiohttp.ConnectionTimeoutError):
                words = f"no connection within {_connect_timeout(self._attempt_timeout_s):g} s"
            elif _find_cause(error, TimeoutError) and not _find_cause(error, aiohttp.ClientOSError):
                words = f"no whole answer within {self._attempt_timeout_s:g} s"
            if _find_cause(error, ssl.SSLCertVerificationError):
                words = f"the server's certificate is not trusted by this machine ({_cause(error)})"
                raise AttemptFailed(excerpt(words, self.redact), retryable=False) from error
            if _find_cause(error, httpx2.UnsupportedProtocol, httpx2.InvalidURL, aiohttp.InvalidURL):
                raise AttemptFailed(excerpt(words, self.redact), retryable=False) from error
        except UnicodeError as error:  # what carries requests stumbles over bytes that have no place in a head
            words = f"the answer cannot be read ({_cause(error)})"
        except OpenAIError as error:
            words = f"the SDK could not send the request ({_cause(error)})"
            raise AttemptFailed(excerpt(words, self.redact), retryable=False) from error
        raise AttemptFailed(excerpt(words, self.redact), retryable=True)

    async def _exchange(self, path: "WirePath", body: bytes) -> Answer:
        """Send and read, bounded. By the SDK's way for endpoints it does not know, which sends the body as it
        stands; typed parameters would be walked key by key, the whole conversation on every turn."""
        import httpx2  # noqa: PLC0415 - heavy
        from openai import AsyncStream  # noqa: PLC0415 - heavy

        response: Any = await self._client.post(
            f"/{path}",
            cast_to=httpx2.Response,
            content=body,
            options={"headers": self._headers},
            stream=True,
            stream_cls=AsyncStream[object],
        )
        try:
            data = bytearray()
            async for chunk in response.aiter_bytes():
                data += chunk
                if len(data) > MOST_BODY_BYTES:
                    message = f"HTTP {response.status_code} with a body over {MOST_BODY_BYTES} bytes, not read further"
                    raise AttemptFailed(message, retryable=True, http_status=response.status_code)
            return Answer(response.status_code, _lower(response.headers), bytes(data))
        finally:
            await response.aclose()


def tls_context() -> ssl.SSLContext:
    """What servers' certificates are checked against, as the SDK does it, shared by all clients of the process."""
    return _load_tls_context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _load_tls_context(_cert_file: str | None, _cert_dir: str | None) -> ssl.SSLContext:
    """Reads every certificate the machine trusts, which takes 30 ms of CPU: too much for each of many runs. The
    variables, which httpx2 reads by itself, are what it depends on."""
    import httpx2  # noqa: PLC0415 - heavy

    return httpx2.create_ssl_context()


async def _refuse_no_success(response: "httpx2.Response") -> None:
    """Ends an exchange whose answer is no success, before the SDK would read all of it. Words that break off do not
    make less of its status, nor of how long it asks to wait."""
    import httpx2  # noqa: PLC0415 - heavy

    if response.is_success:
        return
    data = bytearray()
    with suppress(httpx2.HTTPError, OSError):
        async for chunk in response.aiter_bytes():
            data += chunk
            if len(data) > MOST_REFUSAL_BYTES:
                break
    raise _NoSuccess(Answer(response.status_code, _lower(response.headers), bytes(data[:MOST_REFUSAL_BYTES])))


def _base_url(given: str | None) -> str:
    url = (given or DEFAULT_BASE_URL).strip()
    if not is_address(url):
        msg = f"the base URL {url!r} is no address of a server: write it like http://127.0.0.1:8000/v1"
        raise UsageError(msg)
    return url


def _api_key(spec: ModelSpec, base_url: str) -> str | None:
    """The key to send; None sends none, which only a provider of fbench.toml may ask for."""
    key = (spec.api_key or "").strip()
    if not key:
        if spec.is_configured:
            return None
        if urlsplit(base_url).hostname == urlsplit(DEFAULT_BASE_URL).hostname:
            msg = (
                "no API key for OpenAI: set OPENAI_API_KEY in the environment or in .env,"
                " or name another server with --base-url"
            )
            raise UsageError(msg)
        return PLACEHOLDER_KEY
    if not _SENDABLE_KEY.fullmatch(key):
        msg = f"the API key holds characters that no HTTP header can carry: copy it again into {spec.key_variable}"
        raise UsageError(msg)
    return key


def _connect_timeout(attempt_timeout_s: float) -> float:
    """Always the first of the two to come: a TLS handshake that is cancelled from outside leaves its socket to the
    garbage collector (httpcore2 closes it on errors only)."""
    return min(CONNECT_TIMEOUT_S, attempt_timeout_s / 2)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _cause(error: BaseException) -> str:
    """The innermost error that says something: the SDK's own say only that something went wrong."""
    chain = list(_chain(error))
    inner = next((link for link in reversed(chain) if str(link)), chain[-1])
    return f"{type(inner).__name__}: {inner}" if str(inner) else type(inner).__name__


def _find_cause(error: BaseException, *kinds: type[BaseException]) -> bool:
    return any(isinstance(link, kinds) for link in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
