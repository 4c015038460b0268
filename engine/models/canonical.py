"""A request in the one form it is recorded and looked up in: what belongs to one run only is taken out.

A conversation is a chain: each message is known by a digest of itself and of everything before it, so that a recording
holds every message once, and two requests that begin alike share the beginning of their chains.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from secrets import token_hex
from typing import Any, NamedTuple

from fbench.engine.models.conversation import count_unchanged
from fbench.engine.records.comparing import map_texts, mask_durations
from fbench.engine.scratch import scratch_root
from fbench.engine.seams import Message, ModelRequest, ToolCall, ToolSchema

RUN_ID_WORD = "<fbench-run-id>"
SCRATCH_WORD = "<fbench-scratch>"
EVIDENCE_WORD = "<fbench-evidence>"
EVIDENCE_MARK = re.compile(r"fbench-evidence-[0-9a-f]{32}")
"""What frames evidence in a request to a judge, as `new_evidence_mark` draws it."""
START = ""
"""The digest before the first message."""

_OUR_CALL_ID = re.compile(r"call_[0-9a-f]{16}")


class Link(NamedTuple):
    """A message of a conversation: its digest, that of the message before it, and its canonical form."""

    digest: str
    after: str
    message: dict[str, Any]


class Canonical(NamedTuple):
    """A request. `settings` are its scalar fields, `tools` its tools, `links` its messages in order."""

    settings: dict[str, Any]
    tools: list[dict[str, Any]]
    tools_digest: str
    links: tuple[Link, ...]

    @property
    def conversation(self) -> str:
        """The digest of the whole conversation."""
        return self.links[-1].digest if self.links else START

    @property
    def key(self) -> str:
        """What an answer is found by."""
        return digest_of([self.settings, self.tools_digest, self.conversation])

    @property
    def estimate_key(self) -> str:
        """The same without the cap on output, which is settled after the estimate."""
        settings = {**self.settings, "max_output_tokens": None}
        return digest_of([settings, self.tools_digest, self.conversation])


class Canonicaliser:
    """Canonical forms of one run's requests, each message looked at once. `redact` takes secrets out."""

    def __init__(self, model: str, run_id: str, redact: Callable[[str], str]) -> None:
        self._model = model
        self._run_id = run_id
        root = scratch_root()
        self._scratch = str(root)
        self._roots = sorted({str(root), os.path.realpath(root)}, key=len, reverse=True)
        self._redact = redact
        self._call_ids: dict[str, str] = {}
        self._messages: list[Message] = []
        self._links: list[Link] = []
        self._tools: Sequence[ToolSchema] = ()
        self._tool_forms: list[dict[str, Any]] = []
        self._tools_digest = digest_of([])

    def request(self, request: ModelRequest) -> Canonical:
        """The canonical form of `request`."""
        unchanged = count_unchanged(self._messages, request.messages)
        del self._messages[unchanged:], self._links[unchanged:]
        for message in request.messages[unchanged:]:
            after = self._links[-1].digest if self._links else START
            form = self._message(message)
            self._messages.append(message)
            self._links.append(Link(digest_of([after, form]), after, form))
        if request.tools is not self._tools:
            self._tools = request.tools
            self._tool_forms = [
                self.outward({"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)})
                for tool in request.tools
            ]
            self._tools_digest = digest_of(self._tool_forms)
        settings = {
            "model": self._model,
            "max_output_tokens": request.max_output_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "reasoning_effort": request.reasoning_effort,
        }
        return Canonical(settings, self._tool_forms, self._tools_digest, tuple(self._links))

    def outward(self, value: Any) -> Any:  # noqa: ANN401 - JSON values
        """`value` as it is recorded: without secrets, words in place of the run's id and the scratch root."""
        return map_texts(value, self._text_outward)

    def inward(self, value: Any) -> Any:  # noqa: ANN401 - JSON values
        """A recorded value with this run's id and scratch root in place of the words."""
        return map_texts(
            value, lambda text: text.replace(RUN_ID_WORD, self._run_id).replace(SCRATCH_WORD, self._scratch)
        )

    def _text_outward(self, text: str) -> str:
        for root in self._roots:
            text = text.replace(root, SCRATCH_WORD)
        return self._redact(EVIDENCE_MARK.sub(EVIDENCE_WORD, text.replace(self._run_id, RUN_ID_WORD)))

    def _message(self, message: Message) -> dict[str, Any]:
        # What a tool printed may hold how long it took, as that of a test runner does.
        content = mask_durations(message.content) if message.is_output else message.content
        form: dict[str, Any] = {"role": message.role, "content": content}
        if message.tool_calls:
            form["tool_calls"] = [call_form(call, self._call_id(call.id)) for call in message.tool_calls]
        if message.tool_call_id is not None:
            form["tool_call_id"] = self._call_id(message.tool_call_id)
        if message.reasoning is not None:
            form["reasoning"] = message.reasoning
        if message.provider_items:
            form["provider_items"] = [dict(item) for item in message.provider_items]
        changed: dict[str, Any] = self.outward(form)
        return changed

    def _call_id(self, given: str) -> str:
        """Ids of our own making are random: they are numbered in the order they come."""
        if not _OUR_CALL_ID.fullmatch(given):
            return given
        return self._call_ids.setdefault(given, f"call {len(self._call_ids) + 1}")


def call_form(call: ToolCall, call_id: str) -> dict[str, str]:
    """A tool call as JSON."""
    return {"id": call_id, "name": call.name, "arguments": call.arguments}


def new_evidence_mark() -> str:
    """A word that no evidence holds, for one request to a judge."""
    return f"fbench-evidence-{token_hex(16)}"


def digest_of(value: Any) -> str:  # noqa: ANN401 - JSON values
    """SHA-256 of a JSON value, the order of keys set aside."""
    text = json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
