"""What stored runs cost by another price list: each ledger line again, from its raw usage. Nothing is written."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from fbench.engine.models.usage import read_usage
from fbench.engine.records.ledger import LedgerLine, LedgerTokens, LedgerUnreadable, read_ledger
from fbench.engine.records.reading import (
    LEDGER,
    Unreadable,
    read_result,
)
from fbench.engine.records.targets import Target
from fbench.engine.results import CostStatus
from fbench.pricing.table import FREE_PROVIDERS, PriceTable

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Amounts:
    """Dollars before and after of `lines` attempts. A sum is None as soon as one of its lines is unknown; `known` are
    the sums over the lines whose dollars are known both before and after."""

    lines: int = 0
    unknown_lines: int = 0
    old_usd: Decimal | None = Decimal(0)
    new_usd: Decimal | None = Decimal(0)
    known_old_usd: Decimal = Decimal(0)
    known_new_usd: Decimal = Decimal(0)

    @property
    def difference_usd(self) -> Decimal | None:
        """New less old; None where one of them is unknown."""
        return None if self.old_usd is None or self.new_usd is None else self.new_usd - self.old_usd

    def plus(self, other: "Amounts") -> "Amounts":
        """Both together."""
        return Amounts(
            self.lines + other.lines,
            self.unknown_lines + other.unknown_lines,
            _sum(self.old_usd, other.old_usd),
            _sum(self.new_usd, other.new_usd),
            self.known_old_usd + other.known_old_usd,
            self.known_new_usd + other.known_new_usd,
        )


@dataclass(frozen=True, slots=True)
class RepricedLine:
    """One ledger line, and what it costs by the other list; `new_usd` is None where that has no price."""

    line: LedgerLine
    tokens: LedgerTokens
    new_usd: Decimal | None
    new_status: CostStatus

    def amounts(self) -> Amounts:
        """This line as a sum of one."""
        old, new = self.line.cost_usd, self.new_usd
        both = old is not None and new is not None
        return Amounts(
            1,
            0 if new is not None else 1,
            old,
            new,
            old if both and old is not None else Decimal(0),
            new if both and new is not None else Decimal(0),
        )


@dataclass(frozen=True, slots=True)
class RepricedRun:
    """One run. `problem` says why its ledger cannot be read; its dollars are then unknown."""

    folder: Path
    is_finished: bool
    lines: tuple[RepricedLine, ...]
    problem: str | None = None

    def amounts(self) -> Amounts:
        """The sum over its lines."""
        total = sum_up(line.amounts() for line in self.lines)
        return total if self.problem is None else total.plus(Amounts(0, 0, None, None))


def reprice_run(folder: Path, table: PriceTable) -> RepricedRun:
    """A run by `table`, whatever state it is in: no ledger is an empty one, a torn last line is left out."""
    try:
        is_finished = read_result(folder) is not None
    except Unreadable:
        is_finished = False
    lines: list[RepricedLine] = []
    try:
        lines.extend(reprice_line(line, table) for line in read_ledger(folder / LEDGER))
    except FileNotFoundError:
        pass
    except LedgerUnreadable as error:
        return RepricedRun(folder, is_finished, tuple(lines), str(error))
    except OSError as error:
        told = f"{folder / LEDGER} cannot be read: {error.strerror or error}"
        return RepricedRun(folder, is_finished, tuple(lines), told)
    return RepricedRun(folder, is_finished, tuple(lines))


def reprice_line(line: LedgerLine, table: PriceTable) -> RepricedLine:
    """A line by the price in effect at its `started_at`. Tokens are those of its raw usage; where that holds none that
    make sense, those counted then."""
    usage = read_usage(line.usage_raw)
    tokens = line.tokens if usage is None else LedgerTokens.of(usage)
    if line.model.partition("/")[0] in FREE_PROVIDERS:
        return RepricedLine(line, tokens, Decimal(0), "exact")
    moment = moment_of(line.started_at)
    price = None if moment is None else table.find(line.model, at=moment)
    if price is None:
        return RepricedLine(line, tokens, None, "unknown")
    cost_usd = price.cost_usd(
        input=tokens.input, cache_read=tokens.cache_read, cache_write=tokens.cache_write, output=tokens.output
    )
    guessed = line.cost_status == "estimated" or (line.cost_status == "unknown" and usage is None)
    has_tokens = bool(tokens.input or tokens.cache_read or tokens.cache_write or tokens.output)
    return RepricedLine(line, tokens, cost_usd, "estimated" if guessed and has_tokens else "exact")


def moment_of(text: str) -> datetime | None:
    """A ledger's time, one without a zone taken as UTC; None where it is no time at all.

    >>> moment_of("2026-05-13T20:40:21.123Z")
    datetime.datetime(2026, 5, 13, 20, 40, 21, 123000, tzinfo=datetime.timezone.utc)
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def by_model(runs: Iterable[RepricedRun]) -> dict[tuple[str, str], Amounts]:
    """Sums by model and by who asked it (agent, judge), in the order of names."""
    sums: dict[tuple[str, str], Amounts] = {}
    for line in _lines(runs):
        key = (line.line.model, line.line.who)
        sums[key] = sums.get(key, Amounts()).plus(line.amounts())
    return dict(sorted(sums.items()))


def sum_up(parts: Iterable[Amounts]) -> Amounts:
    """All together."""
    total = Amounts()
    for part in parts:
        total = total.plus(part)
    return total


def document_of(target: Target, runs: Iterable[RepricedRun], table: PriceTable) -> dict[str, Any]:
    """As JSON types; dollars are exact texts, null where unknown."""
    runs = tuple(runs)
    models = by_model(runs)
    sources = dict.fromkeys(table.models[name].source for name, _ in models if name in table.models)
    return {
        "schema_version": 1,
        "suite_run_id": target.suite_run_id,
        "prices": [source.model_dump(mode="json") for source in sources],
        "total": _amounts(sum_up(run.amounts() for run in runs)),
        "models": [{"model": name, "who": who, **_amounts(amounts)} for (name, who), amounts in models.items()],
        "runs": [
            {
                "run_id": run.folder.name,
                "folder": str(run.folder),
                "finished": run.is_finished,
                "problem": run.problem,
                **_amounts(run.amounts()),
                "ledger": [_line(line) for line in run.lines],
            }
            for run in runs
        ],
    }


def _lines(runs: Iterable[RepricedRun]) -> Iterator[RepricedLine]:
    for run in runs:
        yield from run.lines


def _amounts(amounts: Amounts) -> dict[str, Any]:
    return {
        "lines": amounts.lines,
        "unknown_lines": amounts.unknown_lines,
        "old_usd": _exact(amounts.old_usd),
        "new_usd": _exact(amounts.new_usd),
        "difference_usd": _exact(amounts.difference_usd),
    }


def _line(repriced: RepricedLine) -> dict[str, Any]:
    line = repriced.line
    return {
        "seq": line.seq,
        "turn": line.turn,
        "try": line.try_,
        "who": line.who,
        "model": line.model,
        "started_at": line.started_at,
        "tokens": repriced.tokens.model_dump(),
        "old_usd": _exact(line.cost_usd),
        "new_usd": _exact(repriced.new_usd),
        "difference_usd": _exact(repriced.amounts().difference_usd),
        "old_status": line.cost_status,
        "new_status": repriced.new_status,
    }


def _exact(value: Decimal | None) -> str | None:
    return None if value is None else f"{value:f}"


def _sum(total: Decimal | None, part: Decimal | None) -> Decimal | None:
    return None if total is None or part is None else total + part
