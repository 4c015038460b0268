"""What a person sees on stderr while a suite runs: a block of live lines in a terminal, plain lines elsewhere."""

import shutil
import sys
import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TextIO

import anyio

from fbench.engine.commands.progress import PHASES, Screen, fit, shorten
from fbench.engine.events import (
    ModelAnswered,
    ModelAwaited,
    ModelRetried,
    PhaseStarted,
    RunFinished,
    ToolStarted,
    TurnStarted,
    Warned,
)
from fbench.engine.results import RunResult
from fbench.suites.fan_out import RunRefused, RunRetried, SuiteEvent
from fbench.suites.plan import Cell

REDRAW_S = 0.2
HEARTBEAT_S = 30.0
"""How often a plain log is told how far it is, besides a line for each run that ended."""

DETAIL_CHARS = 160
ERASE_BELOW = "\r\x1b[J"
_SPARE_ROWS = 2
"""Rows of the terminal left for the totals and the prompt's line."""


@dataclass(slots=True)
class _Running:
    """A run that has begun and not ended."""

    cell: Cell
    began: float = field(default_factory=time.monotonic)
    doing: str = "starting"
    turn: int = 0
    cost_usd: Decimal = Decimal(0)
    is_waiting: bool = False


class SuiteView:
    """Watches the runs of a suite: call it with each event; `tick` draws, `close` ends the block.

    The cursor rests at the block's first line, so that whatever else is written to the terminal scrolls up before it.

    Args:
        planned: runs of the whole plan.
        done: those that were done before.
        spent_usd: what was spent before; `cap_usd` is the cap on all of it.
    """

    def __init__(
        self,
        planned: int,
        *,
        done: int = 0,
        spent_usd: Decimal = Decimal(0),
        cap_usd: Decimal | None = None,
        stream: TextIO | None = None,
        quiet: bool = False,
    ) -> None:
        self._screen = Screen(stream or sys.stderr, quiet=quiet)
        self._planned = planned
        self._done = self._done_before = done
        self._passed = self._failed = self._errors = 0
        self._spent_usd, self._cap_usd = spent_usd, cap_usd
        self._running: dict[Cell, _Running] = {}
        self._warned: set[str] = set()
        self._began = time.monotonic()

    def __call__(self, cell: Cell, event: SuiteEvent) -> None:
        """Take an event; whole lines are written at once, the block when it is due."""
        match event:
            case RunFinished():
                self._running.pop(cell, None)
                self._finished(cell, event.result)
            case RunRefused():
                self._running.pop(cell, None)
                self._errors += 1
                self.say(f"{_name(cell)}: could not begin: {event.why}")
            case RunRetried():
                self._done, self._errors = self._done - 1, self._errors - 1
                self.say(f"{_name(cell)}: try {event.try_} ended in error; again in {event.wait_s:.0f} s")
            case Warned():
                if event.message not in self._warned:  # what holds for one run holds for a thousand
                    self._warned.add(event.message)
                    self.say(f"warning: {event.message}")
            case _:
                self._take(self._running.setdefault(cell, _Running(cell)), event)

    async def tick(self) -> None:
        """Draw, or tell plainly how far it is, until cancelled."""
        while not self._screen.is_lost:
            await anyio.sleep(REDRAW_S if self._screen.is_live else HEARTBEAT_S)
            if self._screen.is_live:
                self._draw()
            else:
                self.say(self.totals())

    def close(self) -> None:
        """Remove the block."""
        if self._screen.is_live:
            self._screen.write(ERASE_BELOW)

    def say(self, line: str) -> None:
        """Write a whole line, above the block."""
        clean = "".join(letter if letter.isprintable() else " " for letter in line)
        self._screen.write(f"{ERASE_BELOW}{clean}\n" if self._screen.is_live else f"{clean}\n")

    def totals(self) -> str:
        """How far it is, in one line."""
        running = sum((run.cost_usd for run in self._running.values()), self._spent_usd)
        cap = "" if self._cap_usd is None else f" of ${self._cap_usd:g}"
        parts = [
            f"{self._done}/{self._planned} done",
            f"{self._passed} passed",
            f"{self._failed} failed",
            f"{self._errors} in error",
            f"{len(self._running)} running",
            f"${running:.4f}{cap}",
        ]
        if waiting := sum(run.is_waiting for run in self._running.values()):
            parts.append(f"{waiting} waiting for a model")
        if (left_s := self._left_s()) is not None:
            parts.append(f"about {_duration(left_s)} left")
        return ", ".join(parts)

    def _take(self, run: _Running, event: SuiteEvent) -> None:
        run.is_waiting = isinstance(event, ModelRetried | ModelAwaited)
        match event:
            case PhaseStarted():
                run.doing = PHASES[event.phase]
            case TurnStarted():
                run.turn, run.doing = event.turn, "asks the model"
            case ModelAnswered():
                run.cost_usd = event.cost_usd or Decimal(0)
            case ModelRetried():
                run.doing = f"try {event.try_} failed, again in {event.wait_s:.0f} s: {event.error}"
            case ModelAwaited():
                run.doing = f"waits to be sent: {event.why}"
            case ToolStarted():
                run.doing = f"{event.name} {event.summary}"
            case _:
                pass

    def _finished(self, cell: Cell, result: RunResult) -> None:
        self._spent_usd += Decimal(str(result.cost_usd or 0)) + Decimal(str(result.judge_cost_usd or 0))
        if result.status == "cancelled":
            return
        self._done += 1
        if result.status == "error":
            self._errors += 1
        elif result.passed:
            self._passed += 1
        else:
            self._failed += 1
        self.say(f"[{self._done}/{self._planned}] {_name(cell)}: {_verdict(result)}")

    def _left_s(self) -> float | None:
        """Seconds left at the pace so far; None before there is one."""
        done = self._done - self._done_before
        if done <= 0:
            return None
        return (time.monotonic() - self._began) / done * max(0, self._planned - self._done)

    def _draw(self) -> None:
        columns, rows = shutil.get_terminal_size()
        room = max(1, rows - _SPARE_ROWS)
        shown = list(self._running.values())
        if len(shown) > room:
            shown, more = shown[: room - 1], [f"  ... and {len(shown) - room + 1} more"]
        else:
            more = []
        now = time.monotonic()
        lines = [self.totals(), *(f"  {_line(run, now)}" for run in shown), *more]
        text = "\n".join(fit(line, columns - 1) for line in lines)
        back = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
        shade = ("\x1b[2m", "\x1b[0m") if self._screen.has_colour else ("", "")
        self._screen.write(f"{ERASE_BELOW}{shade[0]}{text}{shade[1]}\r{back}")


def _name(cell: Cell) -> str:
    return f"{cell.task_id} {cell.model} #{cell.attempt}"


def _line(run: _Running, now: float) -> str:
    turn = f"turn {run.turn}, " if run.turn else ""
    cost = f"${run.cost_usd:.4f}, " if run.cost_usd else ""
    return f"{_name(run.cell)}: {turn}{cost}{_duration(now - run.began)}, {run.doing}"


def _verdict(result: RunResult) -> str:
    if result.error is not None:
        return shorten(f"error {result.error.kind}: {result.error.message}", DETAIL_CHARS)
    word = "passed" if result.passed else "failed"
    killed = f", {result.kill_reason}" if result.kill_reason else ""
    cost = "cost unknown" if result.cost_usd is None else f"${result.cost_usd:.4f}"
    return f"{word}, score {result.score or 0:g}{killed}, {cost}, {_duration(result.duration_s)}"


def _duration(seconds: float) -> str:
    """
    >>> _duration(7.4), _duration(125), _duration(7300)
    ('7 s', '2 min 5 s', '2 h 1 min')
    """
    whole = int(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{whole} s"
    if whole < 3600:  # noqa: PLR2004 - seconds of an hour
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
