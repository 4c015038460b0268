"""Greetings, put together."""

from collections.abc import Sequence

from hello.clock import format_span, parse_clock
from hello.names import join_names
from hello.schedule import DEFAULT, Schedule


def greet(names: Sequence[str], at: str, schedule: Schedule = DEFAULT) -> str:
    """What to say to these people at this time of day (`HH:MM`)."""
    window = schedule.at(parse_clock(at))
    return f"{window.greeting}, {join_names(names)}!"


def time_left(at: str, schedule: Schedule = DEFAULT) -> str:
    """How long the greeting of this time of day stays the right one, like `2 h 5 min`."""
    minute = parse_clock(at)
    return format_span(schedule.at(minute).minutes_left(minute))
