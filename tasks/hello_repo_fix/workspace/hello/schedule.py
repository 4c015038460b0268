"""Which greeting belongs to which time of day."""

from collections.abc import Iterable
from dataclasses import dataclass

from hello.clock import format_clock, parse_clock


@dataclass(frozen=True)
class Window:
    """A greeting and the time of day it is used, from `start` to just before `end` (minutes since midnight)."""

    greeting: str
    start: int
    end: int

    def contains(self, minute: int) -> bool:
        """Whether the greeting is used at this minute of the day."""
        return self.start <= minute < self.end

    def minutes_left(self, minute: int) -> int:
        """Minutes from `minute`, which lies in the window, to the window's end."""
        return self.end - minute


class Schedule:
    """Windows in order of precedence."""

    def __init__(self, windows: Iterable[Window]) -> None:
        self.windows = tuple(windows)

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """A schedule of lines like `05:00-12:00 Good morning`; empty lines are skipped."""
        windows = []
        for line in text.splitlines():
            if not line.strip():
                continue
            span, _, greeting = line.strip().partition(" ")
            start, dash, end = span.partition("-")
            if not dash or not greeting.strip():
                raise ValueError(f"{line!r} is no window, write HH:MM-HH:MM and a greeting")
            windows.append(Window(greeting.strip(), parse_clock(start), parse_clock(end)))
        return cls(windows)

    def at(self, minute: int) -> Window:
        """The first window that contains the minute; LookupError when there is none."""
        for window in self.windows:
            if window.contains(minute):
                return window
        raise LookupError(f"no greeting is planned for {format_clock(minute)}")


DEFAULT = Schedule.parse(
    """
    05:00-12:00 Good morning
    12:00-18:00 Good afternoon
    18:00-22:00 Good evening
    22:00-05:00 Good night
    """
)
