"""Recorded traffic played again: each request is answered as the recording has it, with no network, key or waiting.

Several recorded runs may have asked the same. A replayed run then follows one of them, so that its answers come from
one conversation: one that no other follows, of the same task, of the same attempt number and not cut off if there is
one, else the first in the file.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fbench.engine.errors import ModelUnavailable, ReplayMissing, UsageError
from fbench.engine.models.canonical import START, Canonical, Canonicaliser
from fbench.engine.models.estimate import estimate_request
from fbench.engine.models.recording import (
    AttemptLine,
    EndLine,
    RecordedEstimate,
    RecordedFailure,
    RecordedWindow,
    read_line,
)
from fbench.engine.records.comparing import as_text, excerpts
from fbench.engine.seams import ModelReply, ModelRequest, TokenEstimate


@dataclass(slots=True)
class Entry:
    """A recorded attempt; it is played once."""

    line: AttemptLine
    is_played: bool = False


@dataclass(slots=True)
class RecordedRun:
    """What one run recorded, in order; `end` is None where it was cut off, `window` where it was not told."""

    attempt: int
    window: RecordedWindow | None = None
    entries: list[Entry] = field(default_factory=list)
    end: EndLine | None = None

    def is_played(self) -> bool:
        """Whether all its attempts have been played."""
        return all(entry.is_played for entry in reversed(self.entries))


class Recording:
    """A recording that was read. Its answers are handed out once each, to all runs that share this object."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn_lines = 0
        self.runs: dict[str, RecordedRun] = {}
        self._followed: set[str] = set()
        self._by_key: dict[str, list[Entry]] = defaultdict(list)
        self._estimates: dict[str, dict[str, RecordedEstimate]] = defaultdict(dict)
        self._messages: dict[str, tuple[str, dict[str, Any]]] = {}
        self._tools: dict[str, tuple[dict[str, Any], ...]] = {}

    def add(self, line: AttemptLine | EndLine) -> None:
        """Take one line in, the next in the file."""
        for estimate in line.estimates:
            self._estimates[estimate.key][line.run_id] = estimate
        if isinstance(line, EndLine):
            if line.run_id in self.runs:
                self.runs[line.run_id].end = line
            return
        entry = Entry(line)
        self.runs.setdefault(line.run_id, RecordedRun(line.attempt, line.window)).entries.append(entry)
        self._by_key[line.key].append(entry)
        for message in line.messages:
            self._messages[message.digest] = message.after, message.message
        if line.tools is not None:
            self._tools[line.request.tools] = line.tools

    def follow(self, form: Canonical, *, task_id: str, attempt: int) -> str | None:
        """The run to follow by one that begins with the request, whatever its cap on output."""
        asked = (run_id for run_id in self._estimates.get(form.estimate_key, ()) if run_id in self.runs)
        left = [run_id for run_id in asked if not self.runs[run_id].is_played()]
        chosen = min(left, key=lambda run_id: self._distance(run_id, None, task_id, attempt), default=None)
        if chosen is not None:
            self._followed.add(chosen)
        return chosen

    def take(self, key: str, *, following: str | None, task_id: str, attempt: int) -> AttemptLine | None:
        """The next answer to a request that was not played yet, of the run that is followed where it has one."""
        left = [entry for entry in self._by_key.get(key, ()) if not entry.is_played]
        if not left:
            return None
        chosen = min(left, key=lambda entry: self._distance(entry.line.run_id, following, task_id, attempt))
        chosen.is_played = True
        self._followed.add(chosen.line.run_id)
        return chosen.line

    def _distance(self, run_id: str, following: str | None, task_id: str, attempt: int) -> tuple[bool, ...]:
        run = self.runs[run_id]
        is_of_task = run_id.partition("__")[2].startswith(f"{task_id}__")  # TIME__TASK__MODEL__HEX
        return run_id != following, run_id in self._followed, not is_of_task, run.attempt != attempt, run.end is None

    def estimate(self, form: Canonical, *, following: str | None) -> RecordedEstimate | None:
        """What a recorded run expected of the request, the one that is followed if it has asked so."""
        known = self._estimates.get(form.estimate_key, {})
        return known.get(following or "") or next(iter(known.values()), None)

    def explain(self, form: Canonical) -> str:
        """Why there is no answer to a request: the nearest recorded one, and where the two first differ."""
        torn = f" {self.torn_lines} torn lines of it were left out." if self.torn_lines else ""
        if played := len(self._by_key.get(form.key, ())):
            words = "answer to this request has" if played == 1 else f"{played} answers to this request have"
            return f"its only {words} been played." + torn if played == 1 else f"all {words} been played." + torn
        if not self.runs:
            return "it holds no request at all." + torn
        nearest, shared = self._nearest(form)
        return f"the nearest recorded one is of run {nearest.run_id}; {self._difference(form, nearest, shared)}" + torn

    def _nearest(self, form: Canonical) -> tuple[AttemptLine, int]:
        """The recorded request with the most first messages in common, and how many those are."""
        depths = {START: 0, **{link.digest: number for number, link in enumerate(form.links, start=1)}}

        def shared(line: AttemptLine) -> int:
            digest, path = line.request.conversation, []
            while digest not in depths:
                path.append(digest)
                digest = self._messages.get(digest, (START, {}))[0]
            depths.update(dict.fromkeys(path, depths[digest]))
            return depths[digest]

        def nearness(line: AttemptLine) -> tuple[bool, int, bool, int, int]:
            settings = line.request.settings
            same = sum(settings.get(name) == value for name, value in form.settings.items())
            return (
                settings.get("model") == form.settings["model"],
                shared(line),
                line.request.tools == form.tools_digest,
                same,
                -abs(self._length(line) - len(form.links)),
            )

        lines = [entry.line for run in self.runs.values() for entry in run.entries]
        best = max(lines, key=nearness)
        return best, shared(best)

    def _length(self, line: AttemptLine) -> int:
        return len(self._chain(line))

    def _chain(self, line: AttemptLine) -> list[dict[str, Any]]:
        """The messages of a recorded request, as far back as they are known."""
        messages, digest = [], line.request.conversation
        while digest in self._messages:
            digest, message = self._messages[digest]
            messages.append(message)
        return messages[::-1]

    def _difference(self, form: Canonical, nearest: AttemptLine, shared: int) -> str:
        for name, value in form.settings.items():
            if (recorded := nearest.request.settings.get(name)) != value:
                return f"its {name} is {as_text(recorded)}, now it is {as_text(value)}."
        mine, its = [link.message for link in form.links], self._chain(nearest)
        if len(mine) > shared and len(its) > shared:
            one, other = its[shared], mine[shared]
            place = f"message {shared + 1} ({other['role']})"
            for field_name in sorted({*one, *other}):
                if one.get(field_name) != other.get(field_name):
                    first, second = excerpts(one.get(field_name), other.get(field_name))
                    return f"{place} differs in `{field_name}`: recorded {first}, now {second}."
        if len(mine) != len(its):
            role = (mine if len(mine) > len(its) else its)[shared]["role"] if max(len(mine), len(its)) > shared else "?"
            return f"it has {len(its)} messages, now there are {len(mine)}; message {shared + 1} ({role}) is the first."
        first, second = excerpts(list(self._tools.get(nearest.request.tools, ())), form.tools)
        return f"its tools differ: recorded {first}, now {second}."


def load_recording(path: Path) -> Recording:
    """Everything in a recording; torn lines are counted. Blocking.

    Raises:
        UsageError: it cannot be read, is no recording, or is of a newer fbench.
    """
    recording = Recording(path)
    is_empty = True
    try:
        if path.exists() and not path.is_file():
            msg = f"--replay {path} is no file; name one that --record has written"
            raise UsageError(msg)
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if not raw.strip():
                    continue
                line = read_line(raw, f"{path}:{number}")
                if line is None:
                    recording.torn_lines += 1
                else:
                    is_empty = False
                    recording.add(line)
    except OSError as error:
        msg = f"--replay {path} cannot be read: {error.strerror or error}; name a file that --record has written"
        raise UsageError(msg) from error
    if is_empty:
        msg = f"--replay {path} holds no recorded traffic; name a file that --record has written"
        raise UsageError(msg)
    return recording


class ReplayModel:
    """A model as it was recorded; see the module."""

    def __init__(
        self, name: str, recording: Recording, ids: Canonicaliser, *, task_id: str, attempt: int, is_free: bool
    ) -> None:
        self.name = name
        self.is_free = is_free
        self._recording = recording
        self._ids = ids
        self._task_id = task_id
        self._attempt = attempt
        self._following: str | None = None

    def window(self, first: ModelRequest) -> RecordedWindow | None:
        """What the recorded run knew of the model's window before it asked the same; it is followed from now on."""
        form = self._ids.request(first)
        self._following = self._recording.follow(form, task_id=self._task_id, attempt=self._attempt)
        run = self._recording.runs.get(self._following or "")
        return None if run is None else run.window

    def estimate(self, request: ModelRequest) -> TokenEstimate:
        """What the recorded run expected; by the rule over bytes where it did not ask this."""
        found = self._recording.estimate(self._ids.request(request), following=self._following)
        if found is None:
            return TokenEstimate(input=estimate_request(request))
        return TokenEstimate(found.input, found.min_output, found.input_at_most)

    async def complete(self, request: ModelRequest) -> ModelReply:
        """The recorded outcome of the next attempt at `request`.

        Raises:
            AttemptFailed: the recorded attempt failed; `final` is set where the recorded run gave up after it.
            ModelUnavailable: the recorded run gave up before it sent this.
            ReplayMissing: it is not in the recording.
        """
        form = self._ids.request(request)
        line = self._recording.take(form.key, following=self._following, task_id=self._task_id, attempt=self._attempt)
        if line is None:
            if (given_up := self._given_up()) is not None:
                raise given_up
            msg = (
                f"the recording {self._recording.path} has no answer to this request: {self._recording.explain(form)} "
                f"Replay what was recorded, or record it anew with --record"
            )
            raise ReplayMissing(msg)
        self._following = line.run_id
        if isinstance(line.outcome, RecordedFailure):
            failed = line.outcome.failure(self._ids)
            failed.final = self._given_up()
            raise failed
        return line.outcome.reply(self._ids)

    def _given_up(self) -> ModelUnavailable | None:
        """The error the followed run ended with, once all it recorded has been played."""
        run = self._recording.runs.get(self._following or "")
        if run is None or run.end is None or run.end.unavailable is None or not run.is_played():
            return None
        return ModelUnavailable(self._ids.inward(run.end.unavailable))
