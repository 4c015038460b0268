"""`openai/NAME` and the providers of fbench.toml: any server that speaks Chat Completions or the Responses API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fbench.engine.models.answers import Answer
from fbench.engine.models.chat import ChatWire
from fbench.engine.models.endpoint import Endpoint, open_endpoint
from fbench.engine.models.estimate import RequestMeter
from fbench.engine.models.families import needs_responses
from fbench.engine.models.names import ModelSpec, split_model_name
from fbench.engine.models.responses import ResponsesWire
from fbench.engine.seams import AttemptFailed, ModelReply, ModelRequest, TokenEstimate

if TYPE_CHECKING:
    from fbench.engine.models.wire import Wire

_ONLY_RESPONSES = b"v1/responses"
"""OpenAI's refusals name it where a model is served there only, or takes tools and an effort together there only."""


@asynccontextmanager
async def open_model(spec: ModelSpec) -> AsyncIterator["OpenAIModel"]:
    """A model of an OpenAI-compatible server; its connections are closed on leaving.

    Raises:
        UsageError: no key for OpenAI itself, a key or header value that cannot be sent, or a base URL that is none.
    """
    async with open_endpoint(spec) as endpoint:
        yield OpenAIModel(spec, endpoint)


def uses_responses(spec: ModelSpec) -> bool:
    """Whether a model is asked by the Responses API from the start: fbench.toml says so, or OpenAI's name does."""
    provider, name = split_model_name(spec.full_name)
    if spec.api is not None:
        return spec.api == "responses"
    return provider == "openai" and needs_responses(name)


class OpenAIModel:
    """See the module; made by `open_model`."""

    is_free = False

    def __init__(self, spec: ModelSpec, endpoint: Endpoint) -> None:
        _, self._asked_name = split_model_name(spec.full_name)
        self.name = spec.full_name.strip()
        self._endpoint = endpoint
        self._meter = RequestMeter()
        self._taken_ids: set[str] = set()
        self._may_change_api = spec.api is None
        self._wire: Wire = ResponsesWire(self._asked_name) if uses_responses(spec) else ChatWire(self._asked_name)

    def estimate(self, request: ModelRequest) -> TokenEstimate:
        """Input by the server's own counts so far and the rule of `estimate` for what is new."""
        return TokenEstimate(input=self._meter.estimate(request), input_at_most=self._meter.at_most())

    async def complete(self, request: ModelRequest) -> ModelReply:
        """One HTTP attempt. Raises AttemptFailed."""
        answer = await self._endpoint.post(self._wire.path, self._wire.body(request))
        try:
            reply = self._wire.read(answer, taken_ids=self._taken_ids, redact=self._endpoint.redact)
        except AttemptFailed as failed:
            if (change := self._learn(answer)) is None:
                raise
            words = f"{failed}; {change}"
            raise AttemptFailed(words, retryable=True, http_status=failed.http_status) from None
        self._taken_ids.update(call.id for call in reply.tool_calls)
        if reply.usage is not None:
            self._meter.observe(request, reply.usage, keeps_reasoning=self._wire.keeps_reasoning)
        return reply

    def _learn(self, answer: Answer) -> str | None:
        """What is done otherwise on the next try, None when the refusal asks for nothing that can be done."""
        if self._may_change_api and answer.status in {400, 404} and _ONLY_RESPONSES in answer.body:
            self._may_change_api = False
            if self._wire.path != "responses":
                self._wire = ResponsesWire(self._asked_name)
                return "the Responses API is asked from now on"
        return self._wire.learn(answer)
