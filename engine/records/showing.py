"""A stored run as text for people: the verdict, the checks, what it took, and the transcript turn by turn."""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from fbench.engine.records.index_schema import IndexedRun
from fbench.engine.records.reading import StartedRun
from fbench.engine.results import RunResult

FOLD_HEAD, FOLD_TAIL = 20, 10
"""Lines kept of a long text: a screen shows two of them."""

FOLD_LINE_CHARS = 600

Shorten = Callable[[str], str]

_FACTS_LENGTH = 400
_LOOK_AHEAD = 50
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_TOLD_BY_RESULT = ("run_started", "check_finished", "run_finished")
_NOT_VALIDATED = {True: "", False: ", not validated", None: ""}
_KNOWN_ENVELOPE = {"seq", "time", "type"}


def clean(text: str) -> str:
    """`text` without what could drive a terminal or cannot be encoded: control characters become `\\xNN`."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text.replace("\r\n", "\n"))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width; the first row is the head."""
    cleaned = [[" ".join(clean(cell).split()) for cell in row] for row in rows]
    widths = [max(_width(row[column]) for row in cleaned) for column in range(len(cleaned[0]))]
    return "\n".join(
        "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cleaned
    )


def runs_table(runs: Iterable[IndexedRun]) -> str:
    """The index's rows, one line a run."""
    rows = [("RUN", "TASK", "MODEL", "STATUS", "VERDICT", "SCORE", "TOKENS", "COST", "TIME")]
    rows += [
        (
            run.run_id,
            run.task_id or "-",
            run.model or "-",
            run.status or "-",
            {True: "passed", False: "failed", None: "-"}[run.passed],
            "-" if run.score is None else f"{run.score:.3f}",
            "-" if run.tokens_total is None else str(run.tokens_total),
            dollars(run.cost_usd) if run.cost_status is not None else "-",
            "-" if run.duration_s is None else f"{run.duration_s:.1f}s",
        )
        for run in runs
    ]
    return table(rows)


def run_text(folder: str, result: RunResult, events: Sequence[Mapping[str, Any]], *, is_full: bool) -> str:
    """A finished run. Prompts, arguments and outputs are shortened, unless `is_full`; the model's words never are."""
    shown = [event for event in events if event.get("type") not in _TOLD_BY_RESULT]
    return "\n".join([*_head(folder, result), *_checks(result), *_transcript(shown, _as_it_is if is_full else fold)])


def unfinished_text(
    folder: str,
    started: StartedRun,
    state: str,
    problem: str | None,
    events: Sequence[Mapping[str, Any]],
    *,
    is_full: bool,
) -> str:
    """A run without a readable result, as `run_text`; `state` says why in a word, `problem` in a sentence."""
    facts = [
        ("run", started.run_id),
        ("folder", folder),
        ("task", started.task_id or "unknown"),
        ("model", started.model or "unknown"),
        ("sandbox", started.sandbox or "unknown"),
        ("started", started.started_at or "unknown"),
        ("status", f"{state}: {problem}" if problem else state),
        ("verdict", "none"),
    ]
    return "\n".join([*_facts(facts), *_transcript(events, _as_it_is if is_full else fold)])


def fold(text: str) -> str:
    """`text` with the middle of a long line, and the middle of many lines, left out and counted.

    >>> print(fold("\\n".join(map(str, range(100)))).splitlines()[FOLD_HEAD])
    [... 70 lines left out, --full shows them ...]
    """
    lines = text.split("\n")
    left_out = len(lines) - FOLD_HEAD - FOLD_TAIL
    if left_out > 1:
        note = f"[... {left_out} lines left out, --full shows them ...]"
        lines = [*lines[:FOLD_HEAD], note, *lines[-FOLD_TAIL:]]
    return "\n".join(map(_fold_line, lines))


def dollars(amount: float | None) -> str:
    """An amount of dollars, or that it is not known."""
    return "unknown" if amount is None else f"${amount:.4f}"


def _head(folder: str, result: RunResult) -> Iterator[str]:
    tokens = result.tokens
    why = result.end_reason or result.kill_reason
    status = f"{result.status} ({why})" if why else str(result.status)
    if result.error is not None:
        status += f", {result.error.kind}: {result.error.message}"
    verdict = {True: "PASSED", False: "FAILED", None: "not judged"}[result.passed]
    score = "" if result.score is None else f", score {result.score:.3f}"
    isolation = {True: "isolated", False: "not isolated", None: "isolation unknown"}[result.isolated]
    taken = f"{tokens.input} in ({tokens.cached_input} cached) + {tokens.output} out ({tokens.reasoning} reasoning)"
    facts = [
        ("run", result.run_id),
        ("folder", folder),
        ("task", f"{result.task_id}, attempt {result.attempt}{_NOT_VALIDATED[result.task_validated]}"),
        ("model", result.model if result.seed is None else f"{result.model}, seed {result.seed}"),
        ("sandbox", f"{result.sandbox or 'none'}, {isolation}"),
        ("status", status),
        ("verdict", verdict + score),
        ("took", f"{result.duration_s:.1f} s, {result.turns} turns, {result.tool_calls} tool calls"),
        ("tokens", f"{tokens.total} = {taken}"),
        ("cost", f"{dollars(result.cost_usd)} ({result.cost_status}), judge {dollars(result.judge_cost_usd)}"),
        ("started", result.started_at),
    ]
    if result.suite_run_id is not None:
        facts.insert(2, ("suite", result.suite_run_id))
    yield from _facts(facts)


def _facts(facts: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, value in facts:
        yield f"{name:<9}{' '.join(clean(value).split())}"


def _checks(result: RunResult) -> Iterator[str]:
    if not result.checks:
        return
    rows = [("CHECK", "TYPE", "STATUS", "SCORE", "WEIGHT", "GATING", "DETAIL")]
    rows += [
        (
            check.id,
            check.type,
            check.status,
            f"{check.score:.3f}",
            f"{check.weight:g}",
            "yes" if check.gating else "",
            check.detail,
        )
        for check in result.checks
    ]
    yield ""
    yield table(rows)


def _fold_line(line: str) -> str:
    if len(line) <= FOLD_LINE_CHARS:
        return line
    half = FOLD_LINE_CHARS // 2
    return f"{line[:half]} [... {len(line) - 2 * half} characters left out ...] {line[-half:]}"


def _as_it_is(text: str) -> str:
    return text


def _transcript(events: Sequence[Mapping[str, Any]], shorten: Shorten) -> Iterator[str]:
    turn: object = None
    yield ""
    yield "no transcript" if not events else "transcript"
    for place, event in enumerate(events):
        if (of_event := event.get("turn")) is not None and of_event != turn:
            turn = of_event
            yield f"\n== turn {clean(str(turn))}"
        yield from _event(event, events[place + 1 : place + 1 + _LOOK_AHEAD], shorten)


def _event(event: Mapping[str, Any], following: Sequence[Mapping[str, Any]], shorten: Shorten) -> Iterator[str]:
    match event.get("type"):
        case "message":
            yield from _message(event, shorten)
        case "tool_started":
            yield f"-- {_word(event, 'name')}({shorten(_arguments(event.get('arguments')))})"
        case "tool_finished":
            yield from _tool_finished(event, following, shorten)
        case "unreadable":
            yield f"!! line {event.get('line')} of the transcript is damaged and left out"
        case kind:
            facts = {name: value for name, value in event.items() if name not in _KNOWN_ENVELOPE and value is not None}
            told = ", ".join(f"{name}={_compact(value)}" for name, value in facts.items())
            yield f"** {clean(str(kind))}: {told[:_FACTS_LENGTH]}".rstrip(": ")


def _message(event: Mapping[str, Any], shorten: Shorten) -> Iterator[str]:
    role = _word(event, "role")
    yield f"[{role}]"
    if reasoning := _word(event, "reasoning"):
        yield _indented("(reasoning) " + reasoning)
    if content := _word(event, "content"):
        yield _indented(content if role == "assistant" else shorten(content))
    calls = event.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        if isinstance(call, Mapping):
            yield f"  -> {_word(call, 'name')}({shorten(_arguments(call.get('arguments')))})"


def _tool_finished(event: Mapping[str, Any], following: Sequence[Mapping[str, Any]], shorten: Shorten) -> Iterator[str]:
    facts = []
    if event.get("exit_code") is not None:
        facts.append(f"exit {event['exit_code']}")
    if event.get("timed_out"):
        facts.append("timed out")
    if isinstance(duration_s := event.get("duration_s"), int | float):
        facts.append(f"{duration_s:.2f} s")
    if event.get("dropped_bytes"):
        facts.append(f"{event['dropped_bytes']} bytes left out")
    yield clean(f"   = {', '.join(facts) or 'done'}")
    output = _word(event, "output")
    if output.strip() and not _is_told_again(str(event.get("output")), following):
        yield _indented(shorten(output))


def _is_told_again(output: str, following: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the model was told this output in a message that will be shown anyway."""
    for event in following:
        if event.get("type") == "message":
            if event.get("role") == "assistant":
                return False
            if output in str(event.get("content")):
                return True
    return False


def _arguments(value: object) -> str:
    """Arguments as `name=value`; what is no JSON object stays as the model wrote it."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return clean(str(value))
    if not isinstance(value, dict):
        return _compact(value)
    return ", ".join(f"{clean(str(name))}={_compact(given)}" for name, given in value.items())


def _compact(value: object) -> str:
    return clean(json.dumps(value, ensure_ascii=False, default=str))


def _word(event: Mapping[str, Any], key: str) -> str:
    value = event.get(key)
    return "" if value is None else clean(value if isinstance(value, str) else json.dumps(value, default=str))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n"))


def _width(text: str) -> int:
    """Terminal cells: East Asian wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
