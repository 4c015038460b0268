"""What a turn of the loop does besides asking and working: what each part costs, and whether late turns cost more."""

import io
import json
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fbench.engine import Engine, RunOptions
from fbench.engine.context import Window
from fbench.engine.events import ModelAnswered, TurnStarted
from fbench.engine.models.chat import ChatWire
from fbench.engine.models.estimate import RequestMeter
from fbench.engine.records.index import open_index
from fbench.engine.records.ledger import Ledger, LedgerLine, LedgerTokens
from fbench.engine.records.reading import StartedRun, read_result
from fbench.engine.records.redaction import redactor
from fbench.engine.records.transcript import Transcript, utc_now
from fbench.engine.seams import Message, ModelRequest
from fbench.engine.tools import SUBMIT
from fbench.suites.live import SuiteView
from fbench.suites.plan import Cell

if TYPE_CHECKING:
    from tests.benchmarks.conftest import MakeTask, Say

MOST_GROWTH = 1.5
"""Of a turn's CPU, late over early. The conversation is there ten times over by then."""
EARLY, LATE, SPAN = 50, 1000, 50


def cost_us(work: Callable[[], object], times: int = 2000) -> float:
    """Microseconds of CPU, the best of five rounds."""
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for _ in range(times):
            work()
        best = min(best, (time.process_time() - began) / times)
    return best * 1e6


def test_what_is_written_and_counted_in_a_turn(tmp_path: Path, say: "Say") -> None:
    output = "x" * 2000
    with Transcript(tmp_path / "transcript.jsonl", redact=redactor(["sk-0123456789abcdef"])) as transcript:
        event = cost_us(lambda: transcript.write("tool_finished", turn=1, tool_call_id="call_1", output=output))
        say(f"a transcript event with 2 kB, redacted and written: {event:.0f} us")
    ledger = Ledger(tmp_path / "ledger.jsonl")
    usage = {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050}
    facts: dict[str, Any] = {"turn": 1, "try": 1, "model": "openai/some", "usage_raw": usage, "latency_s": 1.0}

    def line() -> None:
        tokens = LedgerTokens(input=1000, output=50)
        ledger.append(LedgerLine(**facts, tokens=tokens, cost_usd=Decimal("0.0042"), started_at=utc_now()))

    say(f"a ledger line, checked by pydantic, summed and written: {cost_us(line):.0f} us")
    view = SuiteView(100, stream=io.StringIO())
    cells = [Cell(position=n, task_id=f"task_{n}", model="fake/x", attempt=1) for n in range(40)]
    for cell in cells:
        view(cell, TurnStarted(1))
    told = cost_us(lambda: view(cells[0], ModelAnswered(1, 1000, None, None)))
    view._screen.is_live = True
    drawn = cost_us(view._draw, 50)
    say(f"an event told to the live view: {told:.1f} us; drawing 40 runs, five times a second: {drawn:.0f} us")


def test_the_size_of_a_conversation_is_known_from_what_is_new(say: "Say") -> None:
    def conversation(turns: int) -> list[Message]:
        pair = [Message("assistant", "I look. " * 20), Message("tool", "x" * 2000, tool_call_id="c", is_output=True)]
        return [Message("user", "go"), *(pair * turns)]

    figures = {}
    for turns in (50, 500):
        messages, window = conversation(turns), Window(10_000_000)
        meter = RequestMeter()
        meter.estimate(ModelRequest(messages, (SUBMIT,)))
        grown = [*messages, Message("tool", "x" * 2000, tool_call_id="c", is_output=True)]

        def measure(grown: list[Message] = grown, meter: RequestMeter = meter, window: Window = window) -> None:
            request = ModelRequest(grown, (SUBMIT,))
            window.excess(meter.estimate(request), 4096)

        wire = ChatWire("m")
        wire.body(ModelRequest(messages, (SUBMIT,)))

        def send(grown: list[Message] = grown, messages: list[Message] = messages, wire: ChatWire = wire) -> None:
            wire.body(ModelRequest(grown, (SUBMIT,)))
            wire.body(ModelRequest(messages, (SUBMIT,)))  # takes the new message out again

        whole = cost_us(lambda m=messages: json.dumps([{"role": x.role, "content": x.content} for x in m]), 50)  # type: ignore[misc]
        figures[turns] = cost_us(measure, 500)
        sent = cost_us(send, 100) / 2
        say(f"after {turns} turns: estimating {figures[turns]:.1f} us, body {sent:.0f} us; JSON of all {whole:.0f} us")
        assert figures[turns] < whole
        assert sent < whole


async def test_what_the_index_costs_a_run(make_task: "MakeTask", tmp_path: Path, say: "Say") -> None:
    options = RunOptions(task=make_task("one"), model="fake/nop", sandbox="local", runs_dir=tmp_path / "runs")
    async with Engine(environ={}) as engine:
        result = await engine.run(options)
    stored = read_result(tmp_path / "runs" / result.run_id)
    assert stored is not None
    async with open_index(tmp_path / "other") as index:

        async def record(number: int) -> None:
            run_id = f"{stored.run_id[:-4]}{number:04x}"
            folder = tmp_path / "other" / run_id
            await index.run_started(StartedRun(run_id, stored.task_id, stored.model, stored.started_at), folder)
            await index.run_finished(stored.model_copy(update={"run_id": run_id}), folder)

        await record(0)
        began, cpu = time.perf_counter(), time.process_time()
        for number in range(1, 201):
            await record(number)
        wall_ms, cpu_ms = (time.perf_counter() - began) * 5, (time.process_time() - cpu) * 5
    say(f"a run's two rows in the index, each committed: {wall_ms:.1f} ms, of it CPU {cpu_ms:.1f} ms")


async def test_a_late_turn_costs_what_an_early_one_does(make_task: "MakeTask", tmp_path: Path, say: "Say") -> None:
    view = {"tool_calls": [{"name": "text_editor", "arguments": {"command": "view", "path": "readme.txt"}}]}
    turn = {**view, "content": "I look at it. " * 10, "usage": {"input": 1000, "output": 50}}
    script = tmp_path / "long.yaml"
    script.write_text(yaml.safe_dump({"turns": [turn] * (LATE + SPAN) + [{"tool_calls": [{"name": "submit"}]}]}))
    options = RunOptions(
        task=make_task("long"),
        model=f"fake/script:{script}",
        sandbox="local",
        runs_dir=tmp_path / "runs",
        max_turns="none",
        max_tool_calls="none",
        max_tokens="none",
    )
    figures: list[tuple[float, float]] = []
    async with Engine(environ={}) as engine:
        for _ in range(3):
            at: dict[int, float] = {}

            def watch(event: object, at: dict[int, float] = at) -> None:
                if isinstance(event, TurnStarted):
                    at[event.turn] = time.process_time()

            result = await engine.run(options, watch)
            assert (result.status, result.turns) == ("completed", LATE + SPAN + 1), result
            figures.append(tuple((at[first + SPAN] - at[first]) / SPAN * 1000 for first in (EARLY, LATE)))  # type: ignore[arg-type]
    early, late = min(figure[0] for figure in figures), min(figure[1] for figure in figures)
    say(f"CPU a turn: {early:.3f} ms after {EARLY} turns, {late:.3f} ms after {LATE}")
    assert late / early < MOST_GROWTH
