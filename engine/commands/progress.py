"""What a person sees on stderr while a run goes on: one live line in a terminal, plain lines elsewhere."""

import os
import shutil
import sys
import time
import unicodedata
from decimal import Decimal
from typing import TextIO

from fbench.engine.events import (
    BudgetBreached,
    CheckFinished,
    Event,
    ModelAnswered,
    ModelAwaited,
    ModelRetried,
    PhaseStarted,
    RunStarted,
    ToolFinished,
    ToolOutput,
    ToolStarted,
    TurnStarted,
    Warned,
)

REDRAW_S = 0.1
TICK_S = 1.0
"""How often the live line is drawn again while nothing happens: the time left goes on."""

LINE_CHARS = 120
ERASE_LINE = "\r\x1b[K"
PHASES = {
    "preparing": "preparing the sandbox",
    "acting": "the agent works",
    "keeping": "keeping the workspace",
    "judging": "judging",
}


class Screen:
    """Where progress is shown; without a stream (started with stderr closed) nowhere.

    Attributes:
        is_live: whether what was drawn can be drawn again.
        is_lost: whether nothing more is shown: nobody is there, or the reader has gone.
    """

    def __init__(self, stream: TextIO | None, *, quiet: bool = False) -> None:
        self._stream = stream
        self.is_lost = quiet or stream is None
        self.is_live = not self.is_lost and stream is not None and can_redraw(stream)
        self.has_colour = self.is_live and not os.environ.get("NO_COLOR")

    def write(self, text: str) -> None:
        """Show it. A reader that has gone or a full disk behind it ends the show, never the work."""
        if self.is_lost or self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self.is_lost = True


class Progress:
    """Watches one run. Call it with each event; `close` ends the live line."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._screen = Screen(sys.stderr if stream is None else stream)
        self._limits: dict[str, float | int | None] = {}
        self._turn = 0
        self._tokens = 0
        self._cost: Decimal | None = Decimal(0)
        self._remaining_s: float | None = None
        self._remaining_at = 0.0
        self._doing = ""
        self._drawn_at = 0.0

    def __call__(self, event: Event) -> None:
        """Show an event."""
        line = self._take(event)
        if not self._screen.is_live:
            if line:
                self._print(line)
        elif isinstance(event, ModelRetried | BudgetBreached | CheckFinished | Warned | RunStarted):
            self._erase()
            self._print(line)
            self._draw()
        elif not isinstance(event, ToolOutput) or time.monotonic() - self._drawn_at > REDRAW_S:
            self._draw()

    async def tick(self) -> None:
        """Keep the live line's clock going, until cancelled."""
        import anyio  # noqa: PLC0415 - late: help stays cheap

        while self._screen.is_live:
            await anyio.sleep(TICK_S)
            if time.monotonic() - self._drawn_at >= TICK_S:
                self._draw()

    def close(self) -> None:
        """Remove the live line."""
        if self._screen.is_live:
            self._erase()

    def _take(self, event: Event) -> str:  # noqa: C901 - one line for each kind of event
        match event:
            case RunStarted():
                self._limits = event.limits
                return f"run {event.run_id} in {event.sandbox}"
            case PhaseStarted():
                self._doing = PHASES[event.phase]
                return self._doing
            case TurnStarted():
                self._turn, self._doing = event.turn, "waiting for the model"
                return ""
            case ModelAnswered():
                self._tokens, self._cost = event.tokens, event.cost_usd
                self._remaining_s, self._remaining_at = event.remaining_s, time.monotonic()
                return f"turn {event.turn}: {self._meters()}"
            case ModelRetried():
                self._doing = f"waiting {event.wait_s:.1f} s for the model"
                return f"turn {event.turn}: try {event.try_} failed ({event.error}); again in {event.wait_s:.1f} s"
            case ModelAwaited():
                self._doing = f"waiting to be sent: {event.why}"
                return f"turn {event.turn}: {self._doing}"
            case ToolStarted():
                self._doing = f"{event.name} {event.summary}"
                return f"turn {event.turn}: {event.name} {event.summary}"
            case ToolFinished():
                how = "timed out" if event.timed_out else f"exit {event.exit_code}"
                how = "done" if event.exit_code is None and not event.timed_out else how
                return f"turn {event.turn}: {event.name} {how} in {event.duration_s:.1f} s"
            case BudgetBreached():
                return f"stopped: {event.kill_reason}"
            case CheckFinished():
                check = event.check
                detail = f" ({shorten(check.detail, LINE_CHARS)})" if check.detail else ""
                return f"check {check.id}: {check.status} {check.score:g}{detail}"
            case Warned():
                return f"warning: {event.message}"
            case _:
                return ""

    def _meters(self) -> str:
        cost = "?" if self._cost is None else f"{self._cost:.4f}"
        parts = [
            f"{self._tokens}{_of(self._limits.get('tokens'))} tokens",
            f"${cost}{_of(self._limits.get('cost_usd'))}",
        ]
        if self._remaining_s is not None:
            left = max(0.0, self._remaining_s - (time.monotonic() - self._remaining_at))
            parts.append(f"{left:.0f} s left")
        return ", ".join(parts)

    def _draw(self) -> None:
        width = shutil.get_terminal_size().columns - 1
        line = f"turn {self._turn}{_of(self._limits.get('turns'))} | {self._meters()} | {self._doing}"
        line = fit(line, width)
        text = f"\x1b[2m{line}\x1b[0m" if self._screen.has_colour else line
        self._screen.write(f"{ERASE_LINE}{text}")
        self._drawn_at = time.monotonic()

    def _erase(self) -> None:
        self._screen.write(ERASE_LINE)

    def _print(self, line: str) -> None:
        clean = "".join(letter if letter.isprintable() else " " for letter in line)
        self._screen.write(f"{clean}\n")


def can_redraw(stream: TextIO) -> bool:
    """Whether the stream is a terminal that takes escape sequences."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def clear_live_line(stream: TextIO | None) -> None:
    """Remove what stands in the terminal's line, so that whole lines can be written; nothing elsewhere."""
    if stream is not None and can_redraw(stream):
        stream.write(ERASE_LINE)
        stream.flush()


def fit(text: str, columns: int) -> str:
    """`text` without control characters, cut to the columns a terminal has: wide letters and emoji take two.

    >>> fit("日本語", 5)
    '日本'
    """
    kept, used = [], 0
    for letter in text:
        shown = letter if letter.isprintable() else " "
        used += 2 if unicodedata.east_asian_width(shown) in {"W", "F"} else 1
        if used > columns:
            break
        kept.append(shown)
    return "".join(kept)


def shorten(text: str, chars: int) -> str:
    """`text` in one line of at most `chars` characters, its middle left out.

    >>> shorten("one two three four", 11)
    'one t…four'
    """
    line = " ".join(text.split())
    return line if len(line) <= chars else f"{line[: chars // 2]}…{line[-(chars - chars // 2 - 2) :]}"


def _of(limit: float | None) -> str:
    return "" if limit is None else f"/{limit:g}"
