"""What stands on a terminal while a run goes on."""

import io
import logging
import unicodedata
from decimal import Decimal
from pathlib import Path

import anyio
import pytest

from fbench.engine.commands import progress
from fbench.engine.commands.logging import log_to_stderr
from fbench.engine.commands.progress import ERASE_LINE, Progress
from fbench.engine.events import ModelAnswered, PhaseStarted, RunStarted, ToolStarted


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    def live_lines(self) -> list[str]:
        """What was drawn between two erasures, whole lines left out."""
        return [text for text in self.getvalue().split(ERASE_LINE) if text and not text.endswith("\n")]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """80 columns, no colour."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    return Terminal()


def columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


@pytest.mark.parametrize("letter", ["x", "日", "🙂", "\t"])
def test_the_live_line_fits_the_terminal_whatever_the_letters(terminal: Terminal, letter: str) -> None:
    show = Progress(terminal)
    show(ToolStarted(1, "call", "bash", letter * 200))
    assert 78 <= columns(terminal.live_lines()[-1]) <= 79


async def test_the_time_left_goes_on_while_nothing_happens(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "TICK_S", 0.05)
    show = Progress(terminal)
    show(RunStarted("id", "task", "fake/nop", "local", Path("runs/id"), {}))
    show(ModelAnswered(1, 0, Decimal(0), 2.4))
    assert "2 s left" in terminal.live_lines()[-1]
    with anyio.move_on_after(1.5):
        await show.tick()
    assert "1 s left" in terminal.live_lines()[-1]


async def test_without_a_terminal_nothing_ticks() -> None:
    stream = io.StringIO()
    show = Progress(stream)
    show(PhaseStarted("acting"))
    with anyio.fail_after(1.0):
        await show.tick()
    assert stream.getvalue() == "the agent works\n"


def test_a_warning_of_the_log_takes_the_live_lines_place(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("fbench")
    before = (list(logger.handlers), logger.level, logger.propagate)
    monkeypatch.setattr("sys.stderr", terminal)
    try:
        log_to_stderr(quiet=False)
        Progress(terminal)(PhaseStarted("acting"))
        logging.getLogger("fbench.engine").warning("the disk is nearly full")
    finally:
        logger.handlers, logger.level, logger.propagate = before
    assert terminal.getvalue().endswith(f"{ERASE_LINE}WARNING the disk is nearly full\n")
