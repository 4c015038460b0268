"""A recording: model traffic in a file of JSON lines, one for each attempt and one for each run's end.

Runs of one engine and of several processes may write to one file: each line is a single write at its end. A line that
a crash or a full disk tore is left out by the reader.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from fbench.engine.errors import UsageError
from fbench.engine.models.canonical import Canonical, Canonicaliser, call_form
from fbench.engine.models.overlong import Overlong
from fbench.engine.results import Record
from fbench.engine.seams import AttemptFailed, Model, ModelReply, ModelRequest, TokenEstimate, ToolCall, Usage

RECORDING_VERSION = 2
"""Version 2 has the windows of models; version 1 means what it meant."""


class RecordedMessage(Record):
    """A message as it first stood in a request: `digest` covers it and all before it, whose digest is `after`."""

    digest: str
    after: str
    message: dict[str, Any]


class RecordedEstimate(Record):
    """What was expected of a request before it was sent; `key` leaves its cap on output out."""

    key: str
    input: int
    min_output: int
    input_at_most: int | None = None


class RecordedWindow(Record):
    """What was known of the model's window before anything was asked; see `fbench.engine.context.Window`."""

    tokens: int | None
    is_hint: bool = False


class RecordedRequest(Record):
    """A request by its parts; `tools` and `conversation` are digests of what stands in this or an earlier line."""

    settings: dict[str, Any]
    tools: str
    conversation: str


class RecordedUsage(Record):
    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0


class RecordedCall(Record):
    id: str
    name: str
    arguments: str


class RecordedReply(Record):
    """An answer."""

    type: Literal["reply"] = "reply"
    content: str
    tool_calls: tuple[RecordedCall, ...] = ()
    reasoning: str | None = None
    usage: RecordedUsage | None = None
    usage_raw: Any = None
    model_answered: str | None = None
    finish_reason: str | None = None
    http_status: int | None = None
    provider_items: tuple[dict[str, Any], ...] = ()

    def reply(self, ids: Canonicaliser) -> ModelReply:
        """The reply, in the words of the run that `ids` serves."""
        plain = ids.inward(self.model_dump())
        return ModelReply(
            content=plain["content"],
            tool_calls=tuple(ToolCall(**call) for call in plain["tool_calls"]),
            reasoning=plain["reasoning"],
            usage=None if self.usage is None else Usage(**self.usage.model_dump()),
            usage_raw=plain["usage_raw"],
            model_answered=plain["model_answered"],
            finish_reason=plain["finish_reason"],
            http_status=self.http_status,
            provider_items=tuple(plain["provider_items"]),
        )


class RecordedFailure(Record):
    """An attempt that failed. `window_tokens` matters where it was `overlong`."""

    type: Literal["failure"] = "failure"
    message: str
    retryable: bool
    http_status: int | None = None
    retry_after_s: float | None = None
    overlong: bool = False
    window_tokens: int | None = None

    def failure(self, ids: Canonicaliser) -> AttemptFailed:
        """The failure without the server's wish to wait: a replay has nothing to wait for."""
        return AttemptFailed(
            ids.inward(self.message),
            retryable=self.retryable,
            http_status=self.http_status,
            overlong=Overlong(self.window_tokens) if self.overlong else None,
        )


class AttemptLine(Record):
    """One attempt of the run `run_id`, with the messages, tools, estimates and window that no earlier line of this run
    has. Of a judge and before version 2 no window is told."""

    schema_version: int = RECORDING_VERSION
    type: Literal["attempt"] = "attempt"
    run_id: str
    attempt: int
    key: str
    request: RecordedRequest
    outcome: Annotated[RecordedReply | RecordedFailure, Field(discriminator="type")]
    messages: tuple[RecordedMessage, ...] = ()
    tools: tuple[dict[str, Any], ...] | None = None
    estimates: tuple[RecordedEstimate, ...] = ()
    window: RecordedWindow | None = None


class EndLine(Record):
    """The end of a run. `unavailable` is its error where the model gave no answer within its patience."""

    schema_version: int = RECORDING_VERSION
    type: Literal["end"] = "end"
    run_id: str
    unavailable: str | None = None
    estimates: tuple[RecordedEstimate, ...] = ()


Line = AttemptLine | EndLine
_LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="type")])


class Recorder:
    """Appends lines to a recording; see `open_recorder`."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    def append(self, line: Line) -> None:
        """Write one line with one write. Raises OSError, after which a later line begins on a line of its own."""
        data = json.dumps(line.model_dump(mode="json"), ensure_ascii=True, separators=(",", ":")).encode("ascii")
        if os.write(self._fd, data + b"\n") != len(data) + 1:
            os.write(self._fd, b"\n")
            msg = f"the recording {self._path} could not take a whole line: is the disk full?"
            raise OSError(msg)


@contextmanager
def open_recorder(path: Path) -> Iterator[Recorder]:
    """A recording to append to, made when it is missing.

    Raises:
        UsageError: it cannot be written, or the file there is no recording, or one of a newer fbench.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, 0o600)  # prompts and answers are nobody else's
    except OSError as error:
        msg = f"--record {path} cannot be written: {error.strerror or error}; name a file in a folder that is there"
        raise UsageError(msg) from error
    try:
        if not S_ISREG(os.fstat(fd).st_mode):
            msg = f"--record {path} is no regular file: name one that is, or a new one"
            raise UsageError(msg)
        _check_first_line(path)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            os.write(fd, b"\n")  # ends what a crash tore
        yield Recorder(path, fd)
    finally:
        os.close(fd)


def read_line(raw: bytes, where: str) -> Line | None:
    """A line of a recording; None for one that was torn.

    Raises:
        UsageError: it is whole and no line of a recording, or one of a newer fbench.
    """
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > RECORDING_VERSION:
        msg = (
            f"{where}: recorded by a newer fbench (schema_version {version}); this one reads up to "
            f"{RECORDING_VERSION}: upgrade fbench (distribution factory-bench)"
        )
        raise UsageError(msg)
    try:
        return _LINE.validate_python(document)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        at = ".".join(map(str, problem["loc"])) or "the line"
        msg = f"{where}: no line of a recording ({at}: {problem['msg']}); name a file that --record has written"
        raise UsageError(msg) from None


class RecordingModel:
    """A model whose attempts are recorded; asks `model`.

    An answer whose line could not be written is handed on all the same, for it is paid for; no other attempt is made.
    """

    def __init__(
        self,
        model: Model,
        recorder: Recorder,
        ids: Canonicaliser,
        run_id: str,
        attempt: int,
        *,
        window: RecordedWindow | None = None,
    ) -> None:
        self.name = model.name
        self.is_free = model.is_free
        self._model = model
        self._recorder = recorder
        self._ids = ids
        self._run_id = run_id
        self._attempt = attempt
        self._window = window
        self._known: set[str] = set()
        self._lost: OSError | None = None
        self._estimates: dict[str, RecordedEstimate] = {}

    def estimate(self, request: ModelRequest) -> TokenEstimate:
        """The model's own, kept for the next line."""
        found = self._model.estimate(request)
        key = self._ids.request(request).estimate_key
        self._estimates[key] = RecordedEstimate(
            key=key, input=found.input, min_output=found.min_output, input_at_most=found.input_at_most
        )
        return found

    async def complete(self, request: ModelRequest) -> ModelReply:
        """One attempt of the model, recorded before it is handed on. Raises AttemptFailed; OSError where the line of
        the one before was lost."""
        if self._lost is not None:
            raise self._lost
        form = self._ids.request(request)
        try:
            reply = await self._model.complete(request)
        except AttemptFailed as failed:
            failure = RecordedFailure(
                message=self._ids.outward(str(failed)),
                retryable=failed.retryable,
                http_status=failed.http_status,
                retry_after_s=failed.retry_after_s,
                overlong=failed.overlong is not None,
                window_tokens=failed.overlong.window_tokens if failed.overlong else None,
            )
            self._write(form, failure)
            raise
        self._write(form, self._reply(reply))
        return reply

    def end(self, unavailable: str | None) -> None:
        """Record the run's end. Raises OSError, also where the line of the last attempt was lost."""
        if self._lost is not None:
            raise self._lost
        words = None if unavailable is None else self._ids.outward(unavailable)
        self._recorder.append(EndLine(run_id=self._run_id, unavailable=words, estimates=self._take_estimates()))

    def _reply(self, reply: ModelReply) -> RecordedReply:
        usage = reply.usage
        facts = {
            "content": reply.content,
            "tool_calls": [call_form(call, call.id) for call in reply.tool_calls],
            "reasoning": reply.reasoning,
            "usage_raw": reply.usage_raw,
            "model_answered": reply.model_answered,
            "finish_reason": reply.finish_reason,
            "http_status": reply.http_status,
            "provider_items": [dict(item) for item in reply.provider_items],
        }
        counts = None
        if usage is not None:
            counts = RecordedUsage(
                input=usage.input,
                cache_read=usage.cache_read,
                cache_write=usage.cache_write,
                output=usage.output,
                reasoning=usage.reasoning,
            )
        recorded = self._ids.outward(facts)
        return RecordedReply.model_validate({**recorded, "usage": counts})

    def _write(self, form: Canonical, outcome: RecordedReply | RecordedFailure) -> None:
        new = [link for link in form.links if link.digest not in self._known]
        tools = None if form.tools_digest in self._known else tuple(form.tools)
        line = AttemptLine(
            run_id=self._run_id,
            attempt=self._attempt,
            key=form.key,
            request=RecordedRequest(settings=form.settings, tools=form.tools_digest, conversation=form.conversation),
            outcome=outcome,
            messages=tuple(RecordedMessage(digest=item.digest, after=item.after, message=item.message) for item in new),
            tools=tools,
            estimates=self._take_estimates(),
            window=self._window,
        )
        try:
            self._recorder.append(line)
        except OSError as error:
            self._lost = error
            return
        self._known.update(item.digest for item in new)
        self._known.add(form.tools_digest)
        self._window = None

    def _take_estimates(self) -> tuple[RecordedEstimate, ...]:
        taken = tuple(self._estimates.values())
        self._estimates.clear()
        return taken


def _check_first_line(path: Path) -> None:
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            if read_line(raw, f"{path}:{number}") is None:
                msg = f"--record {path}: the file there is no recording and is left as it is; name another"
                raise UsageError(msg)
            return
