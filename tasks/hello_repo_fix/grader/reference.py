"""What the package should say, worked out minute by minute and not the way the package does it."""

import re

DAY = 1440
DEFAULT_TEXT = "05:00-12:00 Good morning\n12:00-18:00 Good afternoon\n18:00-22:00 Good evening\n22:00-05:00 Good night"
PUBLIC = [
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


def minutes_of(start, end):
    """The minutes of a window in order; equal ends make a whole day."""
    minutes = [start]
    while (following := (minutes[-1] + 1) % DAY) != end:
        minutes.append(following)
    return minutes


def clock(minute):
    return f"{minute // 60:02d}:{minute % 60:02d}"


def schedule_text(windows):
    return "\n".join(f"{clock(start)}-{clock(end)} {greeting}" for greeting, start, end in windows)


def windows_of(text):
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        match = re.fullmatch(r"(\d\d):(\d\d)-(\d\d):(\d\d) (.+)", line)
        first, second = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
        found.append((match[5].strip(), first, second))
    return found


def window_at(windows, minute):
    """The first window that holds the minute, or None."""
    return next((window for window in windows if minute in minutes_of(*window[1:])), None)


def left(window, minute):
    minutes = minutes_of(*window[1:])
    return len(minutes) - minutes.index(minute)


def span(minutes):
    hours, rest = minutes // 60, minutes % 60
    if not hours:
        return f"{rest} min"
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def cleaned(name):
    return " ".join(part[:1].upper() + part[1:] for part in name.split())


def joined(names):
    names = [cleaned(name) for name in names if name.strip()]
    match names:
        case []:
            return "everyone"
        case [one]:
            return one
        case [one, two]:
            return f"{one} and {two}"
        case [*most, last]:
            return f"{', '.join(most)}, and {last}"


def greeted(names, minute, windows):
    return f"{window_at(windows, minute)[0]}, {joined(names)}!"
