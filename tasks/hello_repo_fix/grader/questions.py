"""Questions to the package with the answers that are right, drawn anew for every run.

Each group holds the corner cases always and random cases around them, so that chance decides which values are asked
and never whether a fault is seen. An answer is a value, or an exception class's name for a call that must raise.
"""

import random
from dataclasses import dataclass

import reference as ref

SYLLABLES = ("ba", "ko", "mi", "ren", "tu", "la", "sha", "vor", "ne", "qui")
DEFAULT = ref.windows_of(ref.DEFAULT_TEXT)
NIGHT = DEFAULT[3]


@dataclass(frozen=True, slots=True)
class Raises:
    """The answer of a call that must end in this exception."""

    name: str


def call(name, /, *args, **kwargs):
    return {"ask": "call", "name": name, "args": list(args), "kwargs": kwargs}


def a_name(rng):
    return " ".join("".join(rng.choices(SYLLABLES, k=rng.randint(2, 3))) for _ in range(rng.randint(1, 2)))


def some_names(rng):
    return [a_name(rng) for _ in range(rng.randint(0, 4))]


def a_minute(rng, window):
    return rng.choice(ref.minutes_of(*window[1:]))


def a_greeting(rng):
    return f"Good {a_name(rng)}"


def a_night(rng):
    """A window over midnight, of any length."""
    end = rng.randrange(1, ref.DAY - 1)
    return (a_greeting(rng), rng.randrange(end + 1, ref.DAY), end)


def a_day(rng):
    start = rng.randrange(0, ref.DAY - 2)
    return (a_greeting(rng), start, rng.randrange(start + 1, ref.DAY))


def corners(window):
    minutes = ref.minutes_of(*window[1:])
    return [minutes[0], minutes[-1], *(minute for minute in (ref.DAY - 1, 0) if minute in minutes)]


def night_greeting(rng):
    minutes = [1320, 1410, 1439, 0, 1, 299, *(a_minute(rng, NIGHT) for _ in range(20))]
    minutes += [300, 719, 720, 1319, *(rng.randrange(ref.DAY) for _ in range(10))]
    for minute in minutes:
        names = some_names(rng)
        yield call("greet", names, at=ref.clock(minute)), ref.greeted(names, minute, DEFAULT)


def time_left(rng):
    minutes = [minute for window in DEFAULT for minute in corners(window)]
    minutes += [a_minute(rng, window) for window in DEFAULT for _ in range(8)]
    for minute in minutes:
        window = ref.window_at(DEFAULT, minute)
        yield call("time_left", ref.clock(minute)), ref.span(ref.left(window, minute))
        facts = dict(zip(("greeting", "start", "end"), window, strict=True))
        asked = {"ask": "window", "window": facts, "method": "minutes_left", "minute": minute}
        yield asked, ref.left(window, minute)


def custom_schedules(rng):
    for _ in range(12):
        windows = [a_night(rng), a_day(rng), a_night(rng)]
        rng.shuffle(windows)
        text = ref.schedule_text(windows)
        minutes = [minute for window in windows for minute in (*corners(window), window[2])]
        for minute in [*minutes, *(rng.randrange(ref.DAY) for _ in range(6))]:
            window = ref.window_at(windows, minute)
            right = list(window) if window else Raises("LookupError")
            yield {"ask": "at", "text": text, "minute": minute}, right
            yield {"ask": "built", "windows": windows, "minute": minute}, right
            left = ref.span(ref.left(window, minute)) if window else Raises("LookupError")
            yield call("time_left", at=ref.clock(minute), schedule=text), left


def whole_day(rng):
    for start in (0, 720, ref.DAY - 1, *(rng.randrange(ref.DAY) for _ in range(8))):
        window = (a_greeting(rng), start, start)
        facts = dict(zip(("greeting", "start", "end"), window, strict=True))
        before = (start - 1) % ref.DAY
        for minute in (start, before, 0, ref.DAY - 1, rng.randrange(ref.DAY)):
            yield {"ask": "window", "window": facts, "method": "contains", "minute": minute}, True
            asked = {"ask": "window", "window": facts, "method": "minutes_left", "minute": minute}
            yield asked, ref.left(window, minute)
            names = some_names(rng)
            text = ref.schedule_text([window])
            yield call("greet", names, ref.clock(minute), schedule=text), ref.greeted(names, minute, [window])


def unchanged(rng):
    for minute in (0, 59, 60, 1439, *(rng.randrange(ref.DAY) for _ in range(6))):
        yield call("parse_clock", f" {minute // 60}:{minute % 60:02d} "), minute
        yield call("format_clock", minute), ref.clock(minute)
        yield call("format_span", minute), ref.span(minute)
    for text in ("", "7", "24:00", "12:60", "noon", "12:5", "-1:00", f"{rng.randrange(24, 100)}:00"):
        yield call("parse_clock", text), Raises("ValueError")
        yield call("greet", ["ada"], at=text), Raises("ValueError")
    for minute in (-1, ref.DAY, ref.DAY + rng.randrange(1, 999)):
        yield call("format_clock", minute), Raises("ValueError")
    yield call("format_span", -rng.randrange(1, 999)), Raises("ValueError")
    for _ in range(6):
        names = [*some_names(rng), "  ", "fiona McKay"]
        rng.shuffle(names)
        yield call("join_names", names), ref.joined(names)
        yield call("clean_name", f"  {names[0]}  x "), ref.cleaned(f"{names[0]} x")
    yield call("join_names", []), "everyone"
    for _ in range(8):
        window = a_day(rng)
        text = ref.schedule_text([window])
        for minute in corners(window):
            yield {"ask": "at", "text": text, "minute": minute}, list(window)
        for minute in {(window[1] - 1) % ref.DAY, window[2]}:
            yield {"ask": "at", "text": text, "minute": minute}, Raises("LookupError")
    for text in ("08:00 Hi", "08:00-09:00", "08:00-24:30 Hi", "Hi"):
        yield {"ask": "parsed", "text": text}, Raises("ValueError")


def public_interface(rng):
    yield {"ask": "public", "names": ref.PUBLIC}, [True] * len(ref.PUBLIC)
    yield {"ask": "default"}, [list(window) for window in DEFAULT]
    for window in (a_day(rng), a_night(rng)):
        yield {"ask": "window_facts", "window": window}, [*window, True, True]
        yield {"ask": "parsed", "text": f"\n  {ref.schedule_text([window])}\n\n"}, [list(window)]
    names, minute, text = some_names(rng), rng.randrange(ref.DAY), ref.DEFAULT_TEXT
    yield call("greet", names=names, at=ref.clock(minute), schedule=text), ref.greeted(names, minute, DEFAULT)
    yield call("parse_clock", text="07:05"), 425
    yield call("format_clock", minute=425), "07:05"
    yield call("format_span", minutes=65), "1 h 5 min"
    yield call("clean_name", name="ada"), "Ada"
    yield call("join_names", names=["ada"]), "Ada"
    for minute in (600, 1050, 1410, rng.randrange(ref.DAY)):
        names = [*some_names(rng), a_name(rng)]
        line = ref.greeted(names, minute, DEFAULT)
        left = ref.span(ref.left(ref.window_at(DEFAULT, minute), minute))
        yield {"ask": "main", "argv": ["--at", ref.clock(minute), *names]}, [0, f"{line}\n"]
        yield {"ask": "main", "argv": ["--at", ref.clock(minute), "--left", *names]}, [0, f"{line} (for another {left})\n"]
    yield {"ask": "main", "argv": ["--at", "25:00", "ada"]}, [2, ""]


GROUPS = {
    group.__name__: group
    for group in (night_greeting, time_left, custom_schedules, whole_day, unchanged, public_interface)
}


def draw(group, seed):
    """Pairs of a question and its right answer."""
    return list(GROUPS[group](random.Random(seed)))
