"""Rounds: every side once, in turn; and what is read from all rounds of a side."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.peers.sides import Side
from tests.benchmarks.peers.table import Bar, Row

BARE = "bare"
Arms = dict[str, Callable[[], dict[str, Any]]]
Measured = dict[str, list[dict[str, Any]]]
"""What each side gave, one for each round."""
Reading = Callable[[Sequence[Mapping[str, Any]]], float | str]
"""One figure of all rounds of a side."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Who is measured. The SDK by itself is run by fbench's interpreter; over aiohttp by Inspect's, which has that."""

    fbench: Side
    inspect: Side
    harbor: Side

    def bare(self, *, aiohttp: bool = False) -> Side:
        python = self.inspect.python if aiohttp else self.fbench.python
        return Side("openai SDK", python, "sdk_arms", "openai", ())


@dataclass(frozen=True, slots=True)
class Comparison:
    """One session: its sides, how many rounds, and who is told of each arm."""

    sides: Sides
    rounds: int
    say: Callable[[str], None]

    def alternate(self, title: str, arms: Arms, rounds: int | None = None) -> Measured:
        """Each arm once a round, in turn, a different one first each time. Raises ArmFailed."""
        measured: Measured = {name: [] for name in arms}
        for round_ in range(rounds or self.rounds):
            names = list(arms)
            first = round_ % len(names)
            for name in [*names[first:], *names[:first]]:
                measured[name].append(arms[name]())
                self.say(f"{title}, {name}: {_short(measured[name][-1])}")
        return measured


def row(what: str, found: Measured, value: str | Reading, bars: tuple[Bar, ...] = ()) -> Row:
    """A figure for each side that was measured; `value` by its name is the median of that fact."""
    read = median(value) if isinstance(value, str) else value
    of = {name: read(found[name]) for name in ("fbench", "inspect", "harbor", BARE) if name in found}
    return Row(what, of.get("fbench"), of.get("inspect"), of.get("harbor"), of.get(BARE), bars)


def median(key: str) -> Callable[[Sequence[Mapping[str, Any]]], float]:
    return lambda facts: float(statistics.median(fact[key] for fact in facts))


def all_cpu_s(facts: Sequence[Mapping[str, Any]]) -> float:
    return float(statistics.median(fact["cpu_s"] + fact["children_cpu_s"] for fact in facts))


def flat(facts: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    return [value for fact in facts for value in fact[key]]


def _short(facts: Mapping[str, Any]) -> str:
    shown = {key: round(value, 4) if isinstance(value, float) else value for key, value in facts.items()}
    return ", ".join(f"{key} {value}" for key, value in shown.items())
