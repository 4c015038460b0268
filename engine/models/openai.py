"""`openai/NAME`: any server that speaks Chat Completions, through the openai SDK, unstreamed and never retried here.

The SDK builds requests and holds connections. It does not read answers: servers send what its models do not foresee,
so bodies are bounded and read by `fbench.engine.models.answers`.
"""

import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio

from fbench.engine.errors import UsageError
from fbench.engine.logs import get_logger
from fbench.engine.models.answers import Answer, clean, excerpt, read_reply
from fbench.engine.models.estimate import RequestMeter
from fbench.engine.models.names import ModelSpec, parse_model_name
from fbench.engine.records.redaction import redactor
from fbench.engine.seams import AttemptFailed, Message, ModelReply, ModelRequest, TokenEstimate, ToolCall, ToolSchema

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

DEFAULT_BASE_URL = "https://api.openai.com/v1"
PLACEHOLDER_KEY = "none"
"""Sent where no key is set: local servers ignore it, and the SDK wants one."""
CONNECT_TIMEOUT_S = 30.0
CLOSE_GRACE_S = 5.0
MOST_BODY_BYTES = 64 * 1024**2
MOST_REFUSAL_BYTES = 64 * 1024
"""Of an answer that is no success only this much is read: its words are at the beginning."""

_NEVER_PROXIED = ("all://localhost", "all://127.0.0.1", "all://[::1]")
"""A proxy of the environment serves the world; a server on this machine is asked directly."""

# Reasoning models refuse `max_tokens`; other servers do not know `max_completion_tokens`.
_REASONING_NAMES = re.compile(r"(o[1-9]\d*|gpt-[5-9])(\b|[-.:_]).*")
_SENDABLE_KEY = re.compile(r"[\x21-\x7e]+")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_NAME = 64

log = get_logger(__name__)


class _NoSuccess(Exception):
    """Carries an answer out of the SDK, which would read all of it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@asynccontextmanager
async def open_model(spec: ModelSpec) -> AsyncIterator["OpenAIModel"]:
    """A model of an OpenAI-compatible server; its connections are closed on leaving.

    Raises:
        UsageError: no key for OpenAI itself, a key that no header can carry, or a base URL that is none.
    """
    base_url = _base_url(spec.base_url)
    api_key = _api_key(spec.api_key, base_url)

    import httpx2  # noqa: PLC0415 - heavy: openai takes 0.75 s of CPU
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient  # noqa: PLC0415 - heavy

    timeout = httpx2.Timeout(spec.attempt_timeout_s, connect=_connect_timeout(spec.attempt_timeout_s))
    http_client = DefaultAsyncHttpxClient(
        timeout=timeout,
        follow_redirects=False,
        event_hooks={"response": [_refuse_no_success]},
        mounts=dict.fromkeys(_NEVER_PROXIED),
    )
    client = AsyncOpenAI(
        api_key=api_key, base_url=base_url, max_retries=0, timeout=timeout, http_client=http_client, admin_api_key=""
    )
    # The SDK fills these from variables of its own; what a run sends must not depend on them.
    client.organization = client.project = None
    client._custom_headers = {}  # noqa: SLF001 - OPENAI_CUSTOM_HEADERS has no public way out
    try:
        yield OpenAIModel(spec, client, redactor([spec.api_key]))
    finally:
        with anyio.move_on_after(CLOSE_GRACE_S, shield=True) as grace:
            await client.close()
        if grace.cancelled_caught:
            log.error("model.close_timed_out", model=spec.full_name, grace_s=CLOSE_GRACE_S)


class OpenAIModel:
    """See the module; made by `open_model`."""

    is_free = False

    def __init__(self, spec: ModelSpec, client: "AsyncOpenAI", redact: Callable[[str], str]) -> None:
        parsed = parse_model_name(spec.full_name)
        self.name = parsed.full
        self._asked_name = parsed.name
        self._client = client
        self._redact = redact
        self._attempt_timeout_s = spec.attempt_timeout_s
        self._meter = RequestMeter()
        self._wire = _WireMessages()
        self._taken_ids: set[str] = set()
        is_reasoning = _REASONING_NAMES.fullmatch(parsed.name.rpartition("/")[2])
        self._cap_key = "max_completion_tokens" if is_reasoning else "max_tokens"

    def estimate(self, request: ModelRequest) -> TokenEstimate:
        """Input by the server's own counts so far and the rule of `estimate` for what is new."""
        return TokenEstimate(input=self._meter.estimate(request), input_at_most=self._meter.at_most())

    async def complete(self, request: ModelRequest) -> ModelReply:
        """One HTTP attempt. Raises AttemptFailed."""
        answer = await self._post(self._body(request))
        try:
            reply = read_reply(answer, taken_ids=self._taken_ids, redact=self._redact)
        except AttemptFailed as failed:
            if self._learns_cap_key(answer):
                raise AttemptFailed(str(failed), retryable=True, http_status=failed.http_status) from None
            raise
        self._taken_ids.update(call.id for call in reply.tool_calls)
        if reply.usage is not None:
            self._meter.observe(request, reply.usage)
        return reply

    def _body(self, request: ModelRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._asked_name,
            "messages": self._wire.render(request.messages),
            self._cap_key: request.max_output_tokens,
        }
        if request.tools:
            body["tools"] = [_wire_tool(tool) for tool in request.tools]
        for key in ("temperature", "top_p", "seed", "reasoning_effort"):
            if (value := getattr(request, key)) is not None:
                body[key] = value
        return body

    def _learns_cap_key(self, answer: Answer) -> bool:
        """Whether the server only wants the cap under its other name, which is used from now on."""
        if answer.status not in {400, 422} or self._cap_key != "max_tokens":
            return False
        if b"max_completion_tokens" not in answer.body:
            return False
        self._cap_key = "max_completion_tokens"
        return True

    async def _post(self, body: dict[str, Any]) -> Answer:
        import httpx2  # noqa: PLC0415 - heavy
        from openai import APIConnectionError, APITimeoutError, OpenAIError  # noqa: PLC0415 - heavy

        try:
            with anyio.fail_after(self._attempt_timeout_s):
                return await self._exchange(body)
        except _NoSuccess as refused:
            return refused.answer
        except (TimeoutError, APITimeoutError, httpx2.TimeoutException) as error:
            words = f"no whole answer within {self._attempt_timeout_s:g} s"
            if _find_cause(error, httpx2.ConnectTimeout):
                words = f"no connection within {_connect_timeout(self._attempt_timeout_s):g} s"
        except (APIConnectionError, httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            words = f"the connection failed ({_cause(error)})"
            if _find_cause(error, ssl.SSLCertVerificationError):
                words = f"the server's certificate is not trusted by this machine ({_cause(error)})"
                raise AttemptFailed(excerpt(words, self._redact), retryable=False) from error
            if _find_cause(error, httpx2.UnsupportedProtocol, httpx2.InvalidURL):
                raise AttemptFailed(excerpt(words, self._redact), retryable=False) from error
        except OpenAIError as error:
            words = f"the SDK could not send the request ({_cause(error)})"
            raise AttemptFailed(excerpt(words, self._redact), retryable=False) from error
        raise AttemptFailed(excerpt(words, self._redact), retryable=True)

    async def _exchange(self, body: dict[str, Any]) -> Answer:
        """Send and read, bounded. The body goes as `extra_body`, which the SDK sends as it stands; its typed
        parameters would be walked key by key, the whole conversation on every turn."""
        create = self._client.chat.completions.with_streaming_response.create
        async with create(model=self._asked_name, messages=(), extra_body=body) as response:
            data = bytearray()
            async for chunk in response.iter_bytes():
                data += chunk
                if len(data) > MOST_BODY_BYTES:
                    message = f"HTTP {response.status_code} with a body over {MOST_BODY_BYTES} bytes, not read further"
                    raise AttemptFailed(message, retryable=True, http_status=response.status_code)
            return Answer(response.status_code, _lower(response.headers), bytes(data))


class _WireMessages:
    """Messages as they are sent; those already sent before are not rendered again."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._rendered: list[dict[str, Any]] = []

    def render(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        for position, message in enumerate(messages):
            if position < len(self._messages):
                if self._messages[position] is message:
                    continue
                del self._messages[position:], self._rendered[position:]
            self._messages.append(message)
            self._rendered.append(_wire_message(message))
        return self._rendered[: len(messages)]


async def _refuse_no_success(response: "httpx2.Response") -> None:
    """Ends an exchange whose answer is no success, before the SDK would read all of it."""
    if response.is_success:
        return
    data = bytearray()
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > MOST_REFUSAL_BYTES:
            break
    raise _NoSuccess(Answer(response.status_code, _lower(response.headers), bytes(data[:MOST_REFUSAL_BYTES])))


def _wire_message(message: Message) -> dict[str, Any]:
    content = clean(message.content)
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": clean(message.tool_call_id or ""), "content": content}
    if message.role == "assistant" and message.tool_calls:
        calls = [_wire_call(call) for call in message.tool_calls]
        return {"role": "assistant", "content": content or None, "tool_calls": calls}
    return {"role": message.role, "content": content}


def _wire_call(call: ToolCall) -> dict[str, Any]:
    """A call as it is echoed. Strict servers refuse a history with odd names or arguments that do not parse, so what
    the model got wrong goes back in a legal form; the tool message after it says what was wrong."""
    name = _NOT_IN_NAMES.sub("_", call.name)[:_LONGEST_NAME] or "unknown"
    try:
        is_object = isinstance(json.loads(call.arguments), dict)
    except (ValueError, RecursionError):
        is_object = False
    arguments = clean(call.arguments) if is_object else "{}"
    return {"id": clean(call.id), "type": "function", "function": {"name": name, "arguments": arguments}}


def _wire_tool(tool: ToolSchema) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _base_url(given: str | None) -> str:
    url = (given or DEFAULT_BASE_URL).strip()
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        msg = f"the base URL {url!r} is no address of a server: write it like http://127.0.0.1:8000/v1"
        raise UsageError(msg)
    return url


def _api_key(given: str | None, base_url: str) -> str:
    key = (given or "").strip()
    if not key:
        if urlsplit(base_url).hostname == urlsplit(DEFAULT_BASE_URL).hostname:
            msg = (
                "no API key for OpenAI: set OPENAI_API_KEY in the environment or in .env,"
                " or name another server with --base-url"
            )
            raise UsageError(msg)
        return PLACEHOLDER_KEY
    if not _SENDABLE_KEY.fullmatch(key):
        msg = "the API key holds characters that no HTTP header can carry: copy it again into OPENAI_API_KEY"
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
