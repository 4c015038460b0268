"""What differs between two price tables: models added and removed, and what changed in the others, from and to.
Context windows are compared beside the prices: they are none."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from fbench.pricing.rates import WINDOW, Price, Rates, Tariff

_NAMES = ("input", "cached_input", "cache_write", "output")

PriceFacts = Mapping[str, str]
"""Prices by name, as exact texts without trailing zeros."""


class Change(NamedTuple):
    """One model's prices at one `when` (`from 2026-01-31, above 200000 input tokens`); None where there are none."""

    when: str
    old: PriceFacts | None
    new: PriceFacts | None


class WindowChange(NamedTuple):
    """A model's context window, tokens; None where it is not told."""

    old: int | None
    new: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """From an old table to a new one, by model name, in the order of names; `windows` are those of models that both
    have."""

    added: Mapping[str, Tariff]
    removed: Mapping[str, Tariff]
    changed: Mapping[str, tuple[Change, ...]]
    windows: Mapping[str, WindowChange]

    def is_empty(self) -> bool:
        """Whether no price and no window differs."""
        return not (self.added or self.removed or self.changed or self.windows)

    def document(self) -> dict[str, Any]:
        """As JSON types, prices as exact texts; `context_windows` has those of added and removed models too."""
        windows = {name: WindowChange(tariff.context_window, None) for name, tariff in self.removed.items()}
        windows |= {name: WindowChange(None, tariff.context_window) for name, tariff in self.added.items()}
        windows = {name: change for name, change in windows.items() if change.old != change.new} | dict(self.windows)
        return {
            "added": {name: prices_by_when(tariff) for name, tariff in self.added.items()},
            "removed": {name: prices_by_when(tariff) for name, tariff in self.removed.items()},
            "changed": {name: [change._asdict() for change in changes] for name, changes in self.changed.items()},
            "context_windows": {name: windows[name]._asdict() for name in sorted(windows)},
        }


def compare(old: Mapping[str, Tariff], new: Mapping[str, Tariff]) -> Comparison:
    """What makes `new` of `old`."""
    changed = {}
    for name in sorted(old.keys() & new.keys()):
        before, after = prices_by_when(old[name]), prices_by_when(new[name])
        changes = tuple(
            Change(when, before.get(when), after.get(when))
            for when in dict.fromkeys([*before, *after])
            if before.get(when) != after.get(when)
        )
        if changes:
            changed[name] = changes
    return Comparison(
        added={name: new[name] for name in sorted(new.keys() - old.keys())},
        removed={name: old[name] for name in sorted(old.keys() - new.keys())},
        changed=changed,
        windows={
            name: WindowChange(old[name].context_window, new[name].context_window)
            for name in sorted(old.keys() & new.keys())
            if old[name].context_window != new[name].context_window
        },
    )


def prices_by_when(tariff: Tariff) -> dict[str, PriceFacts]:
    """All prices of a model, by when they hold; `` is the first date's price for calls of any length."""
    return dict(_prices(tariff))


def comparison_text(found: Comparison) -> str:
    """For people; empty when nothing differs."""
    lines: list[str] = []
    for title, sign, models in (("added", "+", found.added), ("removed", "-", found.removed)):
        lines += [f"{title}: {len(models)}"] if models else []
        for name, tariff in models.items():
            lines += _model_lines(name, [(sign, when, _told(facts)) for when, facts in _facts(tariff)])
    lines += [f"changed: {len(found.changed)}"] if found.changed else []
    for name, changes in found.changed.items():
        lines += _model_lines(name, [_change_line(change) for change in changes])
    lines += [f"context windows changed: {len(found.windows)}"] if found.windows else []
    for name, (old, new) in found.windows.items():
        lines.append(f"  {name}: {old or 'none'} -> {new or 'none'}")
    return "\n".join(lines)


def _facts(tariff: Tariff) -> Iterator[tuple[str, Mapping[str, str]]]:
    """All prices by when they hold, the window beside the first."""
    window = {} if tariff.context_window is None else {WINDOW: str(tariff.context_window)}
    for when, prices in _prices(tariff):
        yield when, {**prices, **({} if when else window)}


def _prices(tariff: Tariff) -> Iterator[tuple[str, PriceFacts]]:
    for entry in tariff.entries:
        begin = "" if entry.from_ is None else f"from {entry.from_}"
        yield from _by_length(begin, entry)
        for hours in entry.hours:
            yield from _by_length(", ".join(word for word in (begin, f"{hours.utc} UTC") if word), hours)


def _by_length(when: str, price: Price) -> Iterator[tuple[str, PriceFacts]]:
    yield when, _rates(price)
    for tier in price.long_context:
        above = f"above {tier.above_input_tokens} input tokens"
        yield ", ".join(word for word in (when, above) if word), _rates(tier)


def _rates(rates: Rates) -> PriceFacts:
    return {name: f"{value.normalize():f}" for name in _NAMES if (value := getattr(rates, name)) is not None}


def _change_line(change: Change) -> tuple[str, str, str]:
    if change.old is None or change.new is None:
        return ("+", change.when, _told(change.new)) if change.new else ("-", change.when, _told(change.old or {}))
    names = [name for name in _NAMES if change.old.get(name) != change.new.get(name)]
    told = [f"{name} {change.old.get(name, 'none')} -> {change.new.get(name, 'none')}" for name in names]
    return " ", change.when, ", ".join(told)


def _model_lines(name: str, parts: list[tuple[str, str, str]]) -> Iterator[str]:
    """A model whose only part is its first price takes one line."""
    if len(parts) == 1 and not parts[0][1]:
        sign, _, told = parts[0]
        yield f"{sign} {name}: {told}"
        return
    yield f"  {name}"
    for sign, when, told in parts:
        yield f"  {sign} {when or 'at first'}: {told}"


def _told(facts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
