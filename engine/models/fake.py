"""`fake/oracle`, `fake/nop`, `fake/script:FILE`: models that cost nothing and act only through the agent's own tools.

`fake/exploit:FILE` plays an exploit of the task as the oracle plays its solution; `fbench validate` runs it.

Nothing here touches a sandbox. What a fake does, it does by asking for tool calls like any model; with the style
`json_text` it writes them as text, so that the same parser reads them.
"""

import json
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from fbench.engine.errors import UnknownNameError, UsageError
from fbench.engine.models.answers import new_call_id
from fbench.engine.models.fake_judge import FakeJudge, load_judge
from fbench.engine.models.names import EXPLOIT_PREFIX, ModelSpec, parse_model_name
from fbench.engine.models.script import Script, ScriptCall, ScriptTurn, load_script
from fbench.engine.seams import ModelReply, ModelRequest, TokenEstimate, ToolCall, Usage
from fbench.tasks.folder_rules import exploit_files
from fbench.tasks.manifest import Tools

if TYPE_CHECKING:
    from fbench.tasks.loading import LoadedTask

PLAY_TIMEOUT_S = 3600
"""More than any budget leaves a solution or an exploit; the budget's own end comes first."""

_SUBMIT = "submit"
_SCRIPT_PREFIX = "script:"
_JUDGE_PREFIX = "judge:"
_PLAYERS = frozenset({"bash", "python"})
"""The tools that a script of the task can be played with."""


class _Play(Protocol):
    """What a fake answers in its n-th turn, counted from 0."""

    def turn(self, position: int) -> ScriptTurn: ...


class FakeModel:
    """Plays turns; see the module."""

    is_free = True

    def __init__(self, name: str, play: _Play, *, as_text: bool) -> None:
        self.name = name
        self._play = play
        self._as_text = as_text
        self._position = 0

    def estimate(self, request: ModelRequest) -> TokenEstimate:  # noqa: ARG002 - the Protocol's
        """Exactly the usage of the turn that comes next, so that a turn that cannot fit is refused beforehand."""
        usage = self._play.turn(self._position).usage
        return TokenEstimate(input=usage.input, min_output=usage.output) if usage else TokenEstimate(0, 0)

    async def complete(self, request: ModelRequest) -> ModelReply:  # noqa: ARG002 - the Protocol's
        """The next turn, after its latency."""
        turn = self._play.turn(self._position)
        await anyio.sleep(turn.latency_s)
        self._position += 1
        calls = turn.tool_calls
        given = turn.usage
        return ModelReply(
            content=_as_text(turn) if self._as_text else turn.content,
            tool_calls=() if self._as_text else tuple(map(_as_call, calls)),
            usage=given.counts() if given else Usage(),
            usage_raw=given.model_dump() if given else None,
            model_answered=self.name,
            finish_reason="tool_calls" if calls and not self._as_text else "stop",
        )


@asynccontextmanager
async def open_model(spec: ModelSpec) -> AsyncIterator["FakeModel | FakeJudge"]:
    """A fake model.

    Raises:
        UnknownNameError: there is no such fake.
        UsageError: the script is broken, or the oracle has no solution to play.
    """
    name = parse_model_name(spec.full_name)
    as_text = spec.style == "json_text"
    if name.name.startswith(_JUDGE_PREFIX) and (file := name.name.removeprefix(_JUDGE_PREFIX)):
        yield load_judge(Path(file), name.full)
        return
    play: _Play
    if name.name == "nop":
        play = _Nop()
    elif name.name == "oracle":
        play = _Played(_solution_call(spec), "reference solution")
    elif name.full.startswith(EXPLOIT_PREFIX):
        play = _Played(_exploit_call(spec, name.full.removeprefix(EXPLOIT_PREFIX)), "exploit")
    elif name.name.startswith(_SCRIPT_PREFIX) and (file := name.name.removeprefix(_SCRIPT_PREFIX)):
        play = _Scripted(load_script(Path(file)), submits_at_end=as_text)
    else:
        msg = f"unknown fake model {name.full!r}: known are fake/oracle, fake/nop, fake/script:FILE and fake/judge:FILE"
        raise UnknownNameError(msg)
    yield FakeModel(name.full, play, as_text=as_text)


@dataclass(frozen=True, slots=True)
class _Nop:
    """Submits at once."""

    def turn(self, position: int) -> ScriptTurn:  # noqa: ARG002 - every turn is the same
        return _submit("I do nothing.")


@dataclass(frozen=True, slots=True)
class _Played:
    """Runs a script of the task, its solution or an exploit, then submits."""

    call: ScriptCall
    what: str

    def turn(self, position: int) -> ScriptTurn:
        if position == 0:
            return ScriptTurn(content=f"I run the {self.what}.", tool_calls=(self.call,))
        return _submit(f"The {self.what} has run.")


@dataclass(frozen=True, slots=True)
class _Scripted:
    """Plays a script; past its end it has answered, which only a submit can say in json_text."""

    script: Script
    submits_at_end: bool

    def turn(self, position: int) -> ScriptTurn:
        turns = self.script.turns
        if self.script.loop:
            return turns[position % len(turns)]
        if position < len(turns):
            return turns[position]
        words = "The script has ended."
        return _submit(words) if self.submits_at_end else ScriptTurn(content=words)


def _submit(words: str) -> ScriptTurn:
    return ScriptTurn(content=words, tool_calls=(ScriptCall(name=_SUBMIT),))


def can_play_scripts(tools: Tools) -> bool:
    """Whether a task's tools can run its solution and its exploits."""
    return not _PLAYERS.isdisjoint(tools.allow)


def _solution_call(spec: ModelSpec) -> ScriptCall:
    """The tool call that runs the solution of the spec's task, in the workspace."""
    if spec.task is None:
        msg = "fake/oracle plays a task's reference solution, but no task was given"
        raise UsageError(msg)
    manifest = spec.task.manifest
    if manifest.solution is None:
        msg = (
            f"the task {manifest.id} has no `solution`, which fake/oracle plays: name one in task.yaml, or use fake/nop"
        )
        raise UsageError(msg)
    return _script_call(spec.task, "solution", manifest.solution, "fake/oracle")


def _exploit_call(spec: ModelSpec, file: str) -> ScriptCall:
    """The same for an exploit of the task; `file` is its path in the task's folder."""
    if spec.task is None:
        msg = f"{spec.full_name} plays an exploit of a task, but no task was given"
        raise UsageError(msg)
    task = spec.task
    known = [path.relative_to(task.folder).as_posix() for path in exploit_files(task.folder, task.manifest.exploits)]
    if file not in known:
        msg = f"the task {task.manifest.id} has no exploit {file!r}: {', '.join(known) or '`exploits` names none'}"
        raise UnknownNameError(msg)
    return _script_call(task, "exploits", file, spec.full_name)


def _script_call(task: "LoadedTask", home: str, script: str, model: str) -> ScriptCall:
    """The tool call that runs a script below the task's folder `home`, which is mounted, in the workspace."""
    folder, *rest = PurePosixPath(script).parts
    if folder != home or not rest:
        msg = f"the script {script!r} of the task {task.manifest.id} must be a file in its folder {home}/"
        raise UsageError(msg)
    file, variable = "/".join(rest), f"FBENCH_{home.upper()}"
    arguments: dict[str, Any]
    if "bash" in task.manifest.tools.allow:
        command = f'cd -- "$FBENCH_WORKSPACE" && bash "${variable}"/{shlex.quote(file)}'
        arguments = {"command": command, "timeout_s": PLAY_TIMEOUT_S}
        return ScriptCall(name="bash", arguments=arguments)
    if "python" in task.manifest.tools.allow:
        code = (
            "import os, subprocess, sys\n"
            f"script = os.path.join(os.environ[{variable!r}], {file!r})\n"
            "done = subprocess.run(['bash', script], cwd=os.environ['FBENCH_WORKSPACE'])\n"
            "sys.exit(done.returncode)\n"
        )
        return ScriptCall(name="python", arguments={"code": code, "timeout_s": PLAY_TIMEOUT_S})
    msg = f"{model} needs the tool bash or python, and the task {task.manifest.id} allows neither (`tools.allow`)"
    raise UsageError(msg)


def _as_call(call: ScriptCall) -> ToolCall:
    return ToolCall(new_call_id() if call.id is None else call.id, call.name, _raw_arguments(call))


def _as_text(turn: ScriptTurn) -> str:
    """Content and calls as a json_text model writes them: prose, then a fenced object for each call. The agent runs
    the first call of a reply only, so a script for json_text has one call a turn."""
    blocks = [
        f'```json\n{{"tool": {json.dumps(call.name, ensure_ascii=False)}, "arguments": {_raw_arguments(call)}}}\n```'
        for call in turn.tool_calls
    ]
    return "\n\n".join([turn.content, *blocks] if turn.content else blocks)


def _raw_arguments(call: ScriptCall) -> str:
    if isinstance(call.arguments, str):
        return call.arguments
    return json.dumps(call.arguments, ensure_ascii=False, default=str)  # YAML knows dates
