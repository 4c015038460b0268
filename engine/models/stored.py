"""`replay/RUN_ID`: the answers of a stored run, played in order whatever is asked, at no cost."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fbench.engine.errors import UsageError
from fbench.engine.models.names import ModelSpec, split_model_name
from fbench.engine.records.ledger import LedgerLine, LedgerUnreadable, read_ledger
from fbench.engine.records.reading import LEDGER, TRANSCRIPT, Unreadable, find_run, read_transcript
from fbench.engine.seams import ModelReply, ModelRequest, TokenEstimate, ToolCall, Usage

_ENDED = "The stored answers have ended."


@dataclass(frozen=True, slots=True)
class StoredAnswers:
    """What a stored run's model said."""

    run_id: str
    replies: tuple[ModelReply, ...]


class StoredModel:
    """Plays a stored run; see the module. Past the last answer it has answered, which in json_text is a submit."""

    is_free = True

    def __init__(self, name: str, answers: StoredAnswers, *, as_text: bool) -> None:
        self.name = name
        self._answers = answers
        self._as_text = as_text
        self._position = 0

    def in_run(self, run_id: str) -> "StoredModel":
        """The same for a run: where an answer names the stored run, as paths of `local` do, it names this one."""
        old = self._answers.run_id

        def renamed(reply: ModelReply) -> ModelReply:
            calls = tuple(replace(call, arguments=call.arguments.replace(old, run_id)) for call in reply.tool_calls)
            return replace(reply, content=reply.content.replace(old, run_id), tool_calls=calls)

        answers = StoredAnswers(run_id, tuple(map(renamed, self._answers.replies)))
        return StoredModel(self.name, answers, as_text=self._as_text)

    def estimate(self, request: ModelRequest) -> TokenEstimate:  # noqa: ARG002 - the Protocol's
        """The usage of the answer that comes next."""
        usage = self._next().usage or Usage()
        return TokenEstimate(usage.input + usage.cache_read + usage.cache_write, min_output=usage.output)

    async def complete(self, request: ModelRequest) -> ModelReply:  # noqa: ARG002 - the Protocol's
        """The next answer."""
        reply = self._next()
        self._position += 1
        return reply

    def _next(self) -> ModelReply:
        replies = self._answers.replies
        if self._position < len(replies):
            reply = replies[self._position]
            return replace(reply, content=_text_of(reply), tool_calls=()) if self._as_text else reply
        content = f'{_ENDED}\n\n{{"tool": "submit", "arguments": {{}}}}' if self._as_text else _ENDED
        return ModelReply(content=content, usage=Usage(), model_answered=self.name, finish_reason="stop")


@asynccontextmanager
async def open_model(spec: ModelSpec) -> AsyncIterator[StoredModel]:
    """The answers of the run that the name means, as `fbench show-run` finds it.

    Raises:
        UnknownNameError: there is no such run, or more than one.
        UsageError: it cannot be read, or its model never answered.
    """
    folder = find_run(spec.runs_dir, split_model_name(spec.full_name)[1])
    yield StoredModel(spec.full_name, read_answers(folder), as_text=spec.style == "json_text")


def read_answers(folder: Path) -> StoredAnswers:
    """The assistant's messages of a run's transcript, each with the usage its ledger has for that turn.

    Raises:
        UsageError: the run cannot be read, or its model never answered.
    """
    try:
        lines = {line.turn: line for line in _answered(folder / LEDGER)}
        replies = tuple(
            _reply(event, lines.get(event.get("turn", 0)))
            for event in read_transcript(folder / TRANSCRIPT)
            if event.get("type") == "message" and event.get("role") == "assistant"
        )
    except (Unreadable, LedgerUnreadable, OSError, TypeError, KeyError, AttributeError) as error:
        msg = f"the answers of the run in {folder} cannot be read: {error}"
        raise UsageError(msg) from error
    if not replies:
        msg = f"the run in {folder} holds no answer of a model, so there is nothing to replay; name another run"
        raise UsageError(msg)
    return StoredAnswers(folder.name, replies)


def _answered(path: Path) -> list[LedgerLine]:
    """The agent's attempts that were answered; a run killed early may have no ledger."""
    if not path.exists():
        return []
    return [line for line in read_ledger(path) if line.who == "agent" and line.error is None]


def _reply(event: dict[str, Any], line: LedgerLine | None) -> ModelReply:
    calls = tuple(ToolCall(call["id"], call["name"], call["arguments"]) for call in event.get("tool_calls") or ())
    tokens = None if line is None else line.tokens
    return ModelReply(
        content=event.get("content") or "",
        tool_calls=calls,
        reasoning=event.get("reasoning"),
        usage=Usage() if tokens is None else Usage(**tokens.model_dump()),
        usage_raw=None if line is None else line.usage_raw,
        model_answered=None if line is None else line.model_answered,
        finish_reason="tool_calls" if calls else "stop",
    )


def _text_of(reply: ModelReply) -> str:
    """An answer as a json_text model writes it: what was stored as text stands as it is, calls become objects."""
    blocks = [
        f'{{"tool": {json.dumps(call.name, ensure_ascii=False)}, "arguments": {call.arguments or "{}"}}}'
        for call in reply.tool_calls
    ]
    return "\n\n".join([reply.content, *blocks] if reply.content else blocks)
