"""The table of figures: its rows, the bars they are held to, and its place in docs/benchmarks.md."""

import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

BEGIN = "<!-- peers: written by tests/benchmarks/bench_peers.py -->"
END = "<!-- peers: end -->"
COLUMNS = ("what", "fbench", "Inspect AI", "Harbor", "bare", "ratio", "bar")
NONE = "-"


@dataclass(frozen=True, slots=True)
class Bar:
    """What is promised: `words` of it, the value that was measured, the most or the least it may be."""

    words: str
    value: float
    most: float | None = None
    least: float | None = None

    @property
    def is_met(self) -> bool:
        # What is not above zero was lost in noise: it shows nothing.
        return (
            self.value > 0
            and (self.most is None or self.value <= self.most)
            and (self.least is None or self.value >= self.least)
        )

    def __str__(self) -> str:
        return self.words if self.is_met else f"{self.words}: **missed**, {figure(self.value)}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line: a figure for each side, None where it has none. `bare` is what the same takes with nothing around it:
    the SDK's call, the engine's containers."""

    what: str
    fbench: float | str | None
    inspect: float | str | None = None
    harbor: float | str | None = None
    bare: float | str | None = None
    bars: tuple[Bar, ...] = ()

    def cells(self) -> tuple[str, ...]:
        """Its cells as text. The ratios are those of the others to fbench: above 1 fbench takes less."""
        others = {"Inspect": self.inspect, "Harbor": self.harbor, "bare": self.bare}
        ratios = [
            f"{name} {figure(value / self.fbench)}"
            for name, value in others.items()
            if isinstance(value, float) and isinstance(self.fbench, float) and self.fbench > 0
        ]
        figures = (self.fbench, self.inspect, self.harbor, self.bare)
        bars = "; ".join(map(str, self.bars))
        return (self.what, *map(_cell, figures), ", ".join(ratios) or NONE, bars)


def _cell(value: float | str | None) -> str:
    return NONE if value is None else value if isinstance(value, str) else figure(value)


def figure(value: float) -> str:
    """Three digits that mean something.

    >>> [figure(value) for value in (0.01234, 0.5, 12.345, 1234.5)]
    ['0.0123', '0.500', '12.3', '1,234']
    """
    size = abs(value)
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4
    return f"{value:,.{decimals}f}"


def render(rows: Iterable[Row]) -> list[str]:
    """The lines of the table, in Markdown."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *(row.cells() for row in rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def write_between_markers(path: Path, lines: Sequence[str]) -> None:
    """Replaces what stands between the two markers of a file; the rest stays.

    Raises:
        ValueError: the markers are not there.
    """
    text = path.read_text(encoding="utf-8")
    before, found, rest = text.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not found or not found_end:
        msg = f"{path}: no lines {BEGIN} and {END} to write between"
        raise ValueError(msg)
    path.write_text("\n".join([before + BEGIN, *lines, END + after]), encoding="utf-8")


def describe_machine() -> str:
    """Cores, CPU, memory, kernel, engine, and how busy it was."""
    cpu = _first_value(Path("/proc/cpuinfo"), "model name") or platform.machine()
    memory_kib = int((_first_value(Path("/proc/meminfo"), "MemTotal") or "0 kB").split()[0])
    engine = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return (
        f"{os.cpu_count()} cores of {cpu}, {memory_kib / 1024**2:.0f} GiB, Linux {platform.release()}, "
        f"Docker Engine {engine or 'none'}"
    )


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def _first_value(path: Path, key: str) -> str | None:
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None
