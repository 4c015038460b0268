"""One conversation: what an agent loop may do, with everything counted and written down on the way.

An agent loop decides what to ask and when to stop. It never talks to the model, the sandbox, the transcript or the
budget itself: it does so through a `Session`, so that every loop, also one from outside, is metered alike.
"""

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pydantic import BaseModel, ValidationError

from fbench.engine.context import MOST_REFUSALS, Window, shorten_outputs
from fbench.engine.errors import ContextExceeded, ToolRefused
from fbench.engine.events import (
    ModelAnswered,
    ToolFinished,
    ToolOutput,
    ToolStarted,
    TurnStarted,
    Warned,
    Watcher,
)
from fbench.engine.execs import OutputBuffer
from fbench.engine.purse import PurseEmpty
from fbench.engine.seams import Message, ModelReply, ModelRequest, Tool, ToolCall, ToolContext, ToolOutcome, ToolSchema
from fbench.engine.tools import SUBMIT, tool_schema

if TYPE_CHECKING:
    from pathlib import Path

    from fbench.engine.budgets import Budget, PricesCalls
    from fbench.engine.confine import ConfinedFolder
    from fbench.engine.models.calls import CompletedCall, ModelCaller
    from fbench.engine.records.transcript import Transcript
    from fbench.engine.seams import Model, Sandbox
    from fbench.tasks.manifest import TaskManifest

KEEP_OUTPUT_BYTES = 16_000
"""Tool output the model reads, bytes: about 4,000 tokens. The middle of longer output is left out."""

UNUSABLE_REPLIES = 3
"""This many unusable replies in a row end the run."""

_SUMMARY_LENGTH = 160
_MOST_PROBLEMS = 8
"""A correction names this many of a call's problems, so that nonsense cannot fill the conversation."""


class SubmitArguments(BaseModel):
    """`submit` takes nothing; whatever a model adds is ignored, for it clearly wants to end."""


class CheckedCall(NamedTuple):
    """A call that may run: its tool (None is `submit`) and its validated arguments."""

    call: ToolCall
    tool: Tool | None
    arguments: Any


class Refusal(NamedTuple):
    """A call that was not run, and what the model should do instead."""

    call: ToolCall
    correction: str


class RunAgent(Protocol):
    """An agent loop. Returns how it ended: `submitted`, `answered` or `unusable_replies`."""

    async def __call__(self, session: "Session") -> str: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What a session is made of."""

    manifest: "TaskManifest"
    prompt: str
    model: "Model"
    caller: "ModelCaller"
    price: "PricesCalls | None"
    budget: "Budget"
    sandbox: "Sandbox"
    workspace: "ConfinedFolder"
    baseline: "Path"
    before_tools: Callable[[], Awaitable[None]]
    """Returns once the baseline is there: awaited before anything may change the workspace."""
    tools: Mapping[str, Tool]
    transcript: "Transcript"
    watch: Watcher
    redact: Callable[[str], str]
    window_of: Callable[[ModelRequest], Window]
    """What is known of the model's window before its first request."""


class Session:
    """See the module. One session serves one loop; calls come one after the other."""

    def __init__(self, parts: Parts) -> None:
        self.manifest = parts.manifest
        self.prompt = parts.prompt
        self.workspace = parts.sandbox.workspace
        self.schemas: tuple[ToolSchema, ...] = (*map(tool_schema, parts.tools.values()), SUBMIT)
        self.messages: list[Message] = []
        self.turn = 0
        self._parts = parts
        self._pending_turns = list(parts.manifest.agent.turns)
        self._tool_notes: dict[str, Any] = {}
        self._window = Window(None)

    def say(self, message: Message) -> None:
        """Add a message to the conversation and the transcript."""
        self.messages.append(message)
        self._parts.transcript.write(
            "message",
            turn=self.turn,
            role=message.role,
            content=message.content,
            tool_calls=[{"id": call.id, "name": call.name, "arguments": call.arguments} for call in message.tool_calls],
            tool_call_id=message.tool_call_id,
            reasoning=message.reasoning,
        )

    async def ask(self, tools: Sequence[ToolSchema] = ()) -> ModelReply:
        """The model's answer to the conversation so far, which it joins. One turn of the budget."""
        parts = self._parts
        await parts.budget.start_turn()
        self.turn += 1
        parts.watch(TurnStarted(self.turn))
        try:
            done = await self._call_within_window(tools)
        except PurseEmpty:
            await parts.budget.end("suite_cost")
        reply, usage = done.reply, done.usage
        self.say(
            Message(
                "assistant",
                reply.content,
                tool_calls=reply.tool_calls,
                reasoning=reply.reasoning,
                provider_items=reply.provider_items,
            )
        )
        tokens = usage.input + usage.cache_read + usage.cache_write + usage.output
        await parts.budget.settle_model_call(tokens, done.cost_usd)
        spent = None if done.cost_usd is None else parts.budget.cost_usd
        parts.watch(ModelAnswered(self.turn, parts.budget.tokens, spent, parts.budget.remaining_s()))
        return reply

    async def _call_within_window(self, tools: Sequence[ToolSchema]) -> "CompletedCall":
        """The answer; a refusal for length teaches the window and is met by shortening, as long as that helps."""
        if self.turn == 1:
            self._window = self._parts.window_of(self._whole_request(tools))
        tries = 0
        for refusals in count(1):
            request, input_tokens = await self._next_request(tools)
            try:
                return await self._parts.caller.call(request, turn=self.turn, tries_before=tries)
            except ContextExceeded as refused:
                if refusals > MOST_REFUSALS:
                    raise
                tries = refused.tries
                self._window.learn(refused.window_tokens, input_tokens, request.max_output_tokens)
        raise AssertionError  # count() has no end

    async def _next_request(self, tools: Sequence[ToolSchema]) -> tuple[ModelRequest, int]:
        """The conversation as it is sent, and its estimated tokens; output tokens as window and budget allow."""
        parts, settings = self._parts, self.manifest.model
        request = self._whole_request(tools)
        estimate = parts.model.estimate(request)
        if excess_tokens := self._window.excess(estimate.input, settings.max_output_tokens):
            request = self._shorten(request, excess_tokens, estimate.input)
            estimate = parts.model.estimate(request)
        wanted = self._window.output_room(estimate.input, settings.max_output_tokens)
        allowed = await parts.budget.fit_model_call(estimate, wanted, parts.price)
        if allowed != request.max_output_tokens:
            request = replace(request, max_output_tokens=allowed)
        return request, estimate.input

    def _whole_request(self, tools: Sequence[ToolSchema]) -> ModelRequest:
        """The conversation as it is, with what the manifest says of the model."""
        settings = self.manifest.model
        return ModelRequest(
            messages=self.messages,
            tools=tools,
            max_output_tokens=settings.max_output_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=settings.seed,
            reasoning_effort=settings.reasoning_effort,
        )

    def _shorten(self, request: ModelRequest, excess_tokens: int, input_tokens: int) -> ModelRequest:
        """The request with old tool output shortened, which the transcript notes. Raises ContextExceeded when nothing
        is left to shorten and it does not fit at all, by what is known and no mere hint."""
        parts, window_tokens = self._parts, self._window.tokens or 0
        shortened = shorten_outputs(self.messages, excess_tokens)
        if not shortened.positions:
            if input_tokens < window_tokens or self._window.is_hint:
                return request
            msg = (
                f"the conversation takes about {input_tokens} tokens, {parts.model.name} about {window_tokens}, and no "
                f"old tool output is left to shorten; take a model with a longer window, or a shorter prompt"
            )
            raise ContextExceeded(msg, window_tokens)
        self.messages = shortened.messages
        parts.transcript.write(
            "context_shortened",
            turn=self.turn,
            messages=list(shortened.positions),
            freed_tokens=shortened.freed_tokens,
            input_tokens=input_tokens,
            window_tokens=window_tokens,
        )
        parts.watch(
            Warned(
                f"{len(shortened.positions)} old tool outputs shortened: {parts.model.name} takes "
                f"about {window_tokens} tokens"
            )
        )
        return replace(request, messages=self.messages)

    def check(self, call: ToolCall) -> CheckedCall | Refusal:
        """Whether a call names a tool of this task and has arguments that fit its schema."""
        tool = self._parts.tools.get(call.name)
        if tool is None and call.name != SUBMIT.name:
            known = ", ".join(schema.name for schema in self.schemas)
            return Refusal(call, f"there is no tool {_summary(call.name)!r}. Tools: {known}.")
        if tool is None:
            return CheckedCall(call, None, SubmitArguments())
        try:
            arguments = json.loads(call.arguments or "{}", strict=False)
        except (ValueError, RecursionError) as error:
            return Refusal(call, f"the arguments of {call.name} are not valid JSON: {error}. {_usage_of(tool)}")
        if not isinstance(arguments, dict):
            return Refusal(call, f"the arguments of {call.name} must be one JSON object. {_usage_of(tool)}")
        try:
            return CheckedCall(call, tool, tool.arguments.model_validate(arguments))
        except ValidationError as error:
            return Refusal(call, f"the arguments of {call.name} do not fit: {_explain(error)}. {_usage_of(tool)}")

    async def run_tool(self, checked: CheckedCall) -> ToolOutcome:
        """Run a checked call: one tool call of the budget. What the tool refuses is an outcome, told to the model."""
        parts, call, tool = self._parts, checked.call, checked.tool
        if tool is None:
            msg = "submit is not run; ask `next_prompt` what follows"
            raise ValueError(msg)
        await parts.before_tools()
        await parts.budget.start_tool_call()
        parts.transcript.write(
            "tool_started", turn=self.turn, tool_call_id=call.id, name=call.name, arguments=call.arguments
        )
        summary = _summary(parts.redact(call.arguments))  # shown as progress, which may be kept as a log
        parts.watch(ToolStarted(self.turn, call.id, call.name, summary))
        started = time.monotonic()
        seen = OutputBuffer(KEEP_OUTPUT_BYTES)
        outcome: ToolOutcome | None = None
        try:
            outcome = await tool.run(checked.arguments, self._tool_context(call.id, seen))
        except ToolRefused as refused:
            outcome = ToolOutcome(f"error: {refused}")
        finally:
            if outcome is None:  # cut off by a breach, a cancellation or a lost sandbox: keep what was seen
                outcome = ToolOutcome(f"{seen.text()}\n[cut off before it ended]", dropped_bytes=seen.dropped_bytes)
            duration_s = round(time.monotonic() - started, 6)
            parts.transcript.write(
                "tool_finished",
                turn=self.turn,
                tool_call_id=call.id,
                exit_code=outcome.exit_code,
                output=outcome.output,
                dropped_bytes=outcome.dropped_bytes,
                timed_out=outcome.timed_out,
                duration_s=duration_s,
            )
        parts.watch(ToolFinished(self.turn, call.id, call.name, outcome.exit_code, outcome.timed_out, duration_s))
        return outcome

    def next_prompt(self) -> str | None:
        """After a `submit`: the user's next message, or None when the run ends with it."""
        return self._pending_turns.pop(0) if self._pending_turns else None

    def _tool_context(self, call_id: str, seen: OutputBuffer) -> ToolContext:
        parts = self._parts

        def emit(data: bytes) -> None:
            seen.add(data)
            parts.watch(ToolOutput(call_id, data))

        return ToolContext(
            sandbox=parts.sandbox,
            workspace=parts.workspace,
            baseline=parts.baseline,
            remaining_s=parts.budget.remaining_s,
            keep_bytes=KEEP_OUTPUT_BYTES,
            emit_output=emit,
            notes=self._tool_notes,
        )


def _usage_of(tool: Tool) -> str:
    schema = tool_schema(tool)
    return f"Its JSON Schema: {json.dumps(schema.parameters, separators=(',', ':'))}"


def _explain(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    told = [
        f"{_summary('.'.join(map(str, problem['loc']))) or 'arguments'}: {problem['msg']}"
        for problem in problems[:_MOST_PROBLEMS]
    ]
    if len(problems) > len(told):
        told.append(f"and {len(problems) - len(told)} problems more")
    return "; ".join(told)


def _summary(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SUMMARY_LENGTH else f"{line[: _SUMMARY_LENGTH - 1]}…"
