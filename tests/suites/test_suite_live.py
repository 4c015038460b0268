"""What stands on a terminal, and in a log, while a suite runs."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from fbench.engine.events import (
    ModelAnswered,
    ModelAwaited,
    PhaseStarted,
    RunFinished,
    RunStarted,
    ToolStarted,
    TurnStarted,
    Warned,
)
from fbench.engine.results import ErrorInfo, RunResult
from fbench.suites import live
from fbench.suites.fan_out import RunRefused, RunRetried, SuiteEvent
from fbench.suites.live import ERASE_BELOW, SuiteView
from fbench.suites.plan import Cell

if TYPE_CHECKING:
    from tests.suites.conftest import Workshop


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    def blocks(self) -> list[list[str]]:
        """The blocks that were drawn, each as its lines, without escapes; whole lines between them left out."""
        drawn = [text for text in self.getvalue().split(ERASE_BELOW) if text and not text.endswith("\n")]
        return [re.sub(r"\x1b\[\d*[A-Za-z]|\r", "", text).split("\n") for text in drawn]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """60 columns, 10 rows, no colour."""
    for name, value in {"COLUMNS": "60", "LINES": "10", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


def cell(number: int = 0, attempt: int = 1) -> Cell:
    return Cell(position=number, task_id=f"task_{number}", model="fake/nop", attempt=attempt)


def started(number: int = 0) -> RunStarted:
    return RunStarted(f"run-{number}", f"task_{number}", "fake/nop", "local", Path("runs"), {})


def finished(number: int = 0, **facts: Any) -> RunFinished:
    result = RunResult.model_validate(
        {
            "run_id": f"run-{number}",
            "task_id": f"task_{number}",
            "model": "fake/nop",
            "status": "completed",
            "passed": True,
            "score": 1.0,
            "started_at": "",
            "finished_at": "",
            "duration_s": 2.0,
            "fbench_version": "1",
            "task_hash": "",
            **facts,
        }
    )
    return RunFinished(result, Path("runs"))


def test_each_running_task_has_a_line_under_the_totals(terminal: Terminal) -> None:
    view = SuiteView(4, spent_usd=Decimal("0.5"), cap_usd=Decimal(2), stream=terminal)
    view(cell(0), started(0))
    view(cell(0), TurnStarted(3))
    view(cell(0), ModelAnswered(3, 100, Decimal("0.25"), None))
    view(cell(0), ToolStarted(3, "call", "bash", "ls\n-la"))
    view(cell(1), PhaseStarted("judging"))
    view(cell(2), ModelAwaited(1, "openai asked for a pause", 2.0))
    view._draw()
    totals, *lines = terminal.blocks()[-1]
    assert totals == "0/4 done, 0 passed, 0 failed, 0 in error, 3 running, $0.7500 of $2, 1 waiting for a model"[:59]
    assert [line.split(": ", 1)[0] for line in lines] == [f"  task_{n} fake/nop #1" for n in range(3)]
    assert "turn 3, $0.2500, 0 s, bash ls -la" in lines[0]
    assert lines[1].endswith("judging")
    assert "waits to be sent: openai" in lines[2]
    view(cell(0), finished(0, cost_usd=0.3))
    assert "[1/4] task_0 fake/nop #1: passed, score 1, $0.3000, 2 s\n" in terminal.getvalue()
    assert "$0.8000 of $2" in view.totals()
    assert "about" in view.totals()


def test_the_block_never_outgrows_the_terminal_and_the_cursor_rests_at_its_top(terminal: Terminal) -> None:
    view = SuiteView(50, stream=terminal)
    for number in range(50):
        view(cell(number), started(number))
    view._draw()
    block = terminal.blocks()[-1]
    assert len(block) == 9
    assert block[-1] == "  ... and 43 more"
    assert max(map(len, block)) <= 59
    assert terminal.getvalue().endswith("\r\x1b[8A")
    view.close()
    assert terminal.getvalue().endswith(ERASE_BELOW)


def test_what_holds_for_every_run_is_said_once(terminal: Terminal) -> None:
    view = SuiteView(3, stream=terminal)
    for number in range(3):
        view(cell(number), Warned("no isolation"))
    assert terminal.getvalue().count("no isolation") == 1


def test_errors_retries_and_refusals_are_told_and_counted() -> None:
    stream = io.StringIO()
    view = SuiteView(3, stream=stream)
    failed = {"status": "error", "passed": None, "score": None, "error": ErrorInfo(kind="sandbox_lost", message="gone")}
    view(cell(0), finished(0, **failed))
    assert "1/3 done, 0 passed, 0 failed, 1 in error" in view.totals()
    view(cell(0), RunRetried(1, 5.0))
    assert "0/3 done, 0 passed, 0 failed, 0 in error" in view.totals()
    view(cell(0), finished(0))
    view(cell(1), finished(1, passed=False, score=0.5, status="killed", kill_reason="budget_exceeded:turns"))
    view(cell(2), RunRefused("no such image"))
    assert "2/3 done, 1 passed, 1 failed, 1 in error" in view.totals()
    assert stream.getvalue().splitlines() == [
        "[1/3] task_0 fake/nop #1: error sandbox_lost: gone",
        "task_0 fake/nop #1: try 1 ended in error; again in 5 s",
        "[1/3] task_0 fake/nop #1: passed, score 1, $0.0000, 2 s",
        "[2/3] task_1 fake/nop #1: failed, score 0.5, budget_exceeded:turns, $0.0000, 2 s",
        "task_2 fake/nop #1: could not begin: no such image",
    ]


async def test_a_log_gets_plain_lines_and_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HEARTBEAT_S", 0.01)
    stream = io.StringIO()
    view = SuiteView(2, stream=stream)
    view(cell(0), started(0))
    with anyio.move_on_after(5.0) as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(view.tick)
            while stream.getvalue().count("1 running") < 2:  # noqa: ASYNC110 - another task writes
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
    assert not scope.cancelled_caught
    assert "\x1b" not in stream.getvalue()


async def test_quiet_shows_nothing(terminal: Terminal) -> None:
    view = SuiteView(2, stream=terminal, quiet=True)
    view(cell(0), finished(0))
    with anyio.fail_after(5.0):
        await view.tick()
    view.close()
    assert terminal.getvalue() == ""


def test_a_terminal_that_went_away_ends_the_show_and_not_the_suite() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    view = SuiteView(2, stream=Gone())
    view(cell(0), finished(0))
    assert "1/2 done" in view.totals()


def test_a_thousand_runs_are_drawn_in_little_time(terminal: Terminal) -> None:
    view = SuiteView(1000, stream=terminal)
    cells = [cell(number) for number in range(100)]
    for one in cells:
        view(one, started(one.position))
    events: list[SuiteEvent] = [
        TurnStarted(1),
        ToolStarted(1, "call", "bash", "x" * 2000),
        ModelAnswered(1, 5, Decimal(0), None),
    ]
    began = time.process_time()
    for _ in range(10):
        for one in cells:
            for event in events:
                view(one, event)
    per_event_s = (time.process_time() - began) / 3000
    began = time.process_time()
    for _ in range(20):
        view._draw()
    per_draw_s = (time.process_time() - began) / 20
    assert per_event_s < 0.002
    assert per_draw_s < live.REDRAW_S / 4


def test_a_real_terminal_shows_the_block_and_is_left_clean(workshop: "Workshop") -> None:
    workshop.task("one")
    path = workshop.suite(models=[workshop.script("slow", command="sleep 1.5; echo done > done.txt")])
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    code = "from fbench.engine.cli import main; main()"
    environ = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    process = subprocess.Popen(
        [sys.executable, "-c", code, "suite", "run", str(path), "--runs-dir", str(workshop.runs_dir), "--attempts", "2",
         "--concurrency", "2"],
        env={**environ, "TERM": "xterm"},
        stdin=child,
        stdout=subprocess.PIPE,
        stderr=child,
    )  # fmt: skip
    os.close(child)
    shown = b""
    try:
        while piece := _read(parent):
            shown += piece
        stdout = process.communicate(timeout=60)[0].decode()
    finally:
        process.kill()
        process.wait()
        os.close(parent)
    text = shown.decode()
    assert process.returncode == 0
    assert "runs     2 planned: 2 completed; 2 passed" in stdout
    assert re.search(r"0/2 done, .* 2 running, \$0\.0000\r\n  one fake/script:[^\r]*\r\n  one fake/script:", text)
    assert "[2/2] one fake/script" in text
    assert text.rstrip("\n").endswith(ERASE_BELOW)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:  # the other end of a terminal is closed
        return b""
