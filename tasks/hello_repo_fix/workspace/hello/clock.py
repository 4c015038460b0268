"""Times of day as minutes since midnight."""

import re

MINUTES_PER_DAY = 24 * 60

_CLOCK = re.compile(r"(\d{1,2}):(\d{2})", re.ASCII)


def parse_clock(text: str) -> int:
    """Minutes since midnight of `HH:MM`; ValueError for anything that is no time of day."""
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no time of day, write HH:MM")
    hours, minutes = int(match[1]), int(match[2])
    if hours > 23 or minutes > 59:
        raise ValueError(f"{text!r} is no time of day, 00:00 to 23:59 are")
    return hours * 60 + minutes


def format_clock(minute: int) -> str:
    """`HH:MM` of minutes since midnight."""
    if not 0 <= minute < MINUTES_PER_DAY:
        raise ValueError(f"{minute} is outside a day of {MINUTES_PER_DAY} minutes")
    return f"{minute // 60:02d}:{minute % 60:02d}"


def format_span(minutes: int) -> str:
    """A length of time as people write it: `45 min`, `2 h`, `1 h 5 min`."""
    if minutes < 0:
        raise ValueError(f"a span of {minutes} minutes has no length")
    hours, rest = divmod(minutes, 60)
    parts = []
    if hours:
        parts.append(f"{hours} h")
    if rest or not hours:
        parts.append(f"{rest} min")
    return " ".join(parts)
