"""Greetings that know what time it is."""

from hello.clock import format_clock, format_span, parse_clock
from hello.greeting import greet, time_left
from hello.names import clean_name, join_names
from hello.schedule import DEFAULT, Schedule, Window

__all__ = [
    "DEFAULT",
    "Schedule",
    "Window",
    "clean_name",
    "format_clock",
    "format_span",
    "greet",
    "join_names",
    "parse_clock",
    "time_left",
]
