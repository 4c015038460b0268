"""The Docker engine to talk to: the one `DOCKER_HOST` or the docker context names, its client, its errors in words."""

import hashlib
import json
import os
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio

from fbench.engine.errors import SandboxFailed, UsageError

if TYPE_CHECKING:
    import ssl

    from aiodocker import Docker
    from aiohttp import ClientResponse, TraceConfig, TraceRequestEndParams

DEFAULT_ENGINE = "unix:///var/run/docker.sock"
REQUEST_PATIENCE_S = 60.0
"""How long one request to the engine may take: seen are 0.2 s; a busy engine needs seconds, not minutes."""
PING_PATIENCE_S = 5.0
NO_SUCH, CONFLICT = 404, 409
HOW_TO_START = "start it (`systemctl start docker`), or name another one with DOCKER_HOST or `docker context use`"


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """Where an engine answers.

    Attributes:
        url: `unix://PATH`, `http://HOST:PORT` or `https://HOST:PORT`.
        certificates: folder with ca.pem, cert.pem, key.pem; None without TLS or for the system's own.
        verifies: whether the engine's certificate is checked.
        source: what named it, for messages.
    """

    url: str
    certificates: Path | None = None
    verifies: bool = True
    source: str = "the default"

    @property
    def socket(self) -> Path | None:
        """The socket's path, None for an engine reached by TCP."""
        return Path(self.url.removeprefix("unix://")) if self.url.startswith("unix://") else None


@dataclass(frozen=True, slots=True)
class ContainerHost:
    """An engine that answers, with a client that any number of sandboxes may use at once; `info` is what it says of
    itself (`docker info`)."""

    client: "Docker"
    address: EngineAddress
    info: Mapping[str, Any]

    def errors(self, what: str, patience_s: float = REQUEST_PATIENCE_S) -> AbstractContextManager[None]:
        """Turns what the client raises into SandboxFailed; see `engine_errors`."""
        return engine_errors(self.address, what, patience_s)


def find_engine(environ: Mapping[str, str] | None = None) -> EngineAddress:
    """The engine that DOCKER_HOST, DOCKER_CONTEXT or the configuration's current context names, in this order.

    Raises:
        UsageError: what they name cannot be used.
    """
    env = os.environ if environ is None else environ
    if host := env.get("DOCKER_HOST", "").strip():
        certificates: Path | None = None
        if env.get("DOCKER_TLS_VERIFY") or env.get("DOCKER_TLS"):
            certificates = Path(env.get("DOCKER_CERT_PATH") or _configuration_folder(env))
        return _address(host, certificates, verifies=bool(env.get("DOCKER_TLS_VERIFY")), source="DOCKER_HOST")
    folder = _configuration_folder(env)
    name = env.get("DOCKER_CONTEXT", "").strip() or _current_context(folder / "config.json")
    if name in {"", "default"}:
        return EngineAddress(DEFAULT_ENGINE)
    return _context_address(folder, name)


async def ping(address: EngineAddress | None = None) -> str | None:
    """None when the engine answers, else why not and what to do."""
    try:
        address = address or find_engine()
        async with open_container_host(address, patience_s=PING_PATIENCE_S):
            return None
    except (SandboxFailed, UsageError) as error:
        return str(error)


@asynccontextmanager
async def open_container_host(
    address: EngineAddress | None = None, *, patience_s: float = PING_PATIENCE_S
) -> AsyncIterator[ContainerHost]:
    """A client of the engine, closed at the end.

    Raises:
        SandboxFailed: nothing answers there.
        UsageError: DOCKER_HOST or the context cannot be used.
    """
    address = address or find_engine()
    _refuse_a_missing_socket(address)
    import aiodocker  # noqa: PLC0415 - costs 0.3 s, and only runs in containers need it
    import aiohttp  # noqa: PLC0415

    # No limit: each live exec holds a connection, and with a limit even a kill would wait for a free one.
    socket = address.socket
    connector: aiohttp.BaseConnector
    if socket is not None:
        connector = aiohttp.UnixConnector(str(socket), limit=0)
    else:
        connector = aiohttp.TCPConnector(limit=0, limit_per_host=0, ssl=_tls(address) or True)
    answers = _OpenAnswers()
    session = aiohttp.ClientSession(connector=connector, trace_configs=[answers.watch()])
    client = aiodocker.Docker(
        url="unix://localhost" if socket is not None else address.url,
        connector=connector,
        session=session,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=PING_PATIENCE_S),
    )
    try:
        with engine_errors(address, "did not answer", patience_s):
            with anyio.fail_after(patience_s):
                info = await client.system.info()
        yield ContainerHost(client, address, info)
    finally:
        with anyio.CancelScope(shield=True):
            await client.close()
            answers.close()
            await session.close()


class _OpenAnswers:
    """The client's answers that still hold a connection: closed with it, they leave none to the garbage collector.

    aiodocker gives an answer up unread when it cannot make sense of its headers, and closing a stream whose other end
    broke off may stop half way.
    """

    def __init__(self) -> None:
        self._held: set[ClientResponse] = set()

    def watch(self) -> "TraceConfig":
        """What tells a session to report its answers here."""
        import aiohttp  # noqa: PLC0415 - loaded with the client

        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(self._keep)
        return trace

    def close(self) -> None:
        for answer in self._held:
            answer.close()
        self._held.clear()

    async def _keep(self, _session: object, _context: object, ended: "TraceRequestEndParams") -> None:
        self._held = {answer for answer in (*self._held, ended.response) if answer.connection is not None}


@contextmanager
def engine_errors(address: EngineAddress, what: str, patience_s: float = REQUEST_PATIENCE_S) -> Iterator[None]:
    """Turns what the client raises into SandboxFailed; `what` says what could not be done.

    A refusal reads "the Docker engine at ADDRESS WHAT: REASON".
    """
    import aiohttp  # noqa: PLC0415 - loaded with the client
    from aiodocker import DockerError  # noqa: PLC0415

    where = f"the Docker engine at {address.url} (named by {address.source})"
    try:
        yield
    except TimeoutError as error:
        # The client's own patience, for connecting, is another one than the caller's.
        waited = PING_PATIENCE_S if isinstance(error, aiohttp.ClientError) else patience_s
        msg = f"{where} {what} within {waited:.0f} s: it may be overloaded or hung; look at its log, then try again"
        raise SandboxFailed(msg) from error
    except DockerError as error:
        reason = error.message
        msg = f"{where} {what}: {reason}"
        if _is_unreachable(error):
            msg += f". Is it running? {HOW_TO_START}"
        raise SandboxFailed(msg) from error
    except (aiohttp.ClientError, OSError) as error:
        msg = f"{where} {what}: {str(error) or type(error).__name__}. Is it running? {HOW_TO_START}"
        raise SandboxFailed(msg) from error
    except (ValueError, TypeError, LookupError) as error:
        # aiodocker on an answer without a Content-Type, with broken JSON, or without the fields that are asked for.
        reason = str(error) or type(error).__name__
        msg = (
            f"{where} {what}: what answers there does not speak as a Docker engine ({type(error).__name__}: {reason}); "
            f"check the address and what is between, such as a proxy"
        )
        raise SandboxFailed(msg) from error


def status_of(error: BaseException) -> int:
    """The HTTP status of an engine's refusal, 0 when there was none because it could not be reached."""
    status = getattr(error, "status", 0)
    return status if isinstance(status, int) and not _is_unreachable(error) else 0


def _is_unreachable(error: BaseException) -> bool:
    import aiohttp  # noqa: PLC0415 - loaded with the client

    # What aiodocker makes of a broken connection; it raises it in the handler of the first and names no cause.
    return isinstance(error.__cause__ or error.__context__, aiohttp.ClientConnectionError)


def _refuse_a_missing_socket(address: EngineAddress) -> None:
    """An answer in microseconds where there is no engine, before the client is imported."""
    if address.socket is None:
        return
    try:
        is_socket = stat.S_ISSOCK(address.socket.stat().st_mode)
    except OSError as error:
        why = error.strerror or str(error)
    else:
        if is_socket:
            return
        why = "not a socket"
    msg = f"no Docker engine at {address.url} (named by {address.source}): {why}; {HOW_TO_START}"
    raise SandboxFailed(msg)


# ---------------------------------------------------------------------------------------------------------- addresses


def _configuration_folder(env: Mapping[str, str]) -> Path:
    named = env.get("DOCKER_CONFIG", "")
    return Path(named) if named else Path(env.get("HOME") or Path.home()) / ".docker"


def _current_context(file: Path) -> str:
    try:
        content = _read_json(file)
    except FileNotFoundError:
        return ""
    name = content.get("currentContext", "")
    return name if isinstance(name, str) else ""


def _context_address(folder: Path, name: str) -> EngineAddress:
    digest = hashlib.sha256(name.encode()).hexdigest()
    source = f"the docker context {name!r}"
    try:
        meta = _read_json(folder / "contexts" / "meta" / digest / "meta.json")
        endpoint = meta["Endpoints"]["docker"]
        host = endpoint["Host"]
    except (OSError, KeyError, TypeError) as error:
        msg = f"{source} is not there or names no engine ({error}): see `docker context ls`, or set DOCKER_HOST"
        raise UsageError(msg) from error
    certificates = folder / "contexts" / "tls" / digest / "docker"
    verifies = not endpoint.get("SkipTLSVerify", False)
    return _address(str(host), certificates if certificates.is_dir() else None, verifies=verifies, source=source)


def _address(host: str, certificates: Path | None, *, verifies: bool, source: str) -> EngineAddress:
    scheme, separator, rest = host.partition("://")
    if not separator:
        scheme, rest = "tcp", host
    if scheme == "unix" and rest.startswith("/"):
        return EngineAddress(host, source=source)
    if scheme in {"tcp", "http", "https"} and urlsplit(f"tcp://{rest}").hostname:
        is_secured = certificates is not None or scheme == "https"
        return EngineAddress(f"{'https' if is_secured else 'http'}://{rest}", certificates, verifies, source)
    msg = (
        f"{source} names the engine {host!r}, which fbench cannot reach: use unix:///path or tcp://host:port; for an "
        f"engine behind ssh, forward its socket (`ssh -nNT -L /path/docker.sock:/var/run/docker.sock HOST`)"
    )
    raise UsageError(msg)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        msg = f"{file} is not valid JSON ({error}): repair it, or set DOCKER_HOST"
        raise UsageError(msg) from error
    return content if isinstance(content, dict) else {}


def _tls(address: EngineAddress) -> "ssl.SSLContext | None":
    if not address.url.startswith("https://"):
        return None
    import ssl  # noqa: PLC0415 - few engines are reached by TLS

    folder = address.certificates
    try:
        ca = folder / "ca.pem" if folder is not None else None
        context = ssl.create_default_context(cafile=str(ca) if ca is not None and ca.exists() else None)
        if not address.verifies:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if folder is not None and (folder / "cert.pem").exists():
            context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    except (OSError, ValueError) as error:
        msg = f"the certificates in {folder} ({address.source}) cannot be used: {error}"
        raise UsageError(msg) from error
    return context
