"""The ledger: one JSON line for each HTTP attempt at a model, agent and judge, with its usage and dollars."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from fbench.engine.errors import FbenchError
from fbench.engine.records.transcript import LineFile, compact_json
from fbench.engine.results import CostStatus, Record, TokenCounts
from fbench.engine.seams import Usage

LEDGER_VERSION = 1
_NO_TOKENS = TokenCounts()

_COST_RANKS: Mapping[CostStatus, int] = MappingProxyType({"exact": 0, "estimated": 1, "unknown": 2})


class LedgerUnreadable(FbenchError):
    """A ledger that is damaged in the middle, or of a newer fbench."""


class LedgerTokens(Record):
    """Disjoint counts of one attempt, except that `reasoning` is a part of `output`."""

    input: int = Field(default=0, ge=0)
    cache_read: int = Field(default=0, ge=0)
    cache_write: int = Field(default=0, ge=0)
    output: int = Field(default=0, ge=0)
    reasoning: int = Field(default=0, ge=0)

    @classmethod
    def of(cls, usage: Usage) -> Self:
        """The counts of a usage."""
        return cls(
            input=usage.input,
            cache_read=usage.cache_read,
            cache_write=usage.cache_write,
            output=usage.output,
            reasoning=usage.reasoning,
        )

    def counts(self) -> TokenCounts:
        """As result.json counts: `input` includes what was read from or written to a cache."""
        whole_input = self.input + self.cache_read + self.cache_write
        return TokenCounts(
            input=whole_input,
            cached_input=self.cache_read,
            output=self.output,
            reasoning=self.reasoning,
            total=whole_input + self.output,
        )


class LedgerLine(Record):
    """One attempt. `seq` is given by the ledger; `cost_usd` is None where the model has no price."""

    schema_version: int = LEDGER_VERSION
    seq: int = 0
    turn: int
    try_: int = Field(alias="try", ge=1)
    who: Literal["agent", "judge"] = "agent"
    check_id: str | None = None
    model: str
    model_answered: str | None = None
    http_status: int | None = None
    error: str | None = None
    usage_raw: Any = None
    tokens: LedgerTokens = LedgerTokens()
    cost_usd: Decimal | None = Field(default=Decimal(0), ge=0, allow_inf_nan=False)
    cost_status: CostStatus = "exact"
    started_at: str
    latency_s: float = Field(ge=0, allow_inf_nan=False)

    def to_json_line(self) -> str:
        """One line of JSON, keys in the contract's order, the dollars with every digit they have."""
        facts = self.model_dump(by_alias=True)
        names = list(facts)
        at = names.index("cost_usd")
        before = compact_json({name: facts[name] for name in names[:at]})
        after = compact_json({name: facts[name] for name in names[at + 1 :]})
        # json would take the dollars through binary float
        cost = "null" if self.cost_usd is None else format(self.cost_usd, "f")
        return f'{before[:-1]},"cost_usd":{cost},{after[1:]}'


@dataclass(frozen=True, slots=True)
class LedgerTotals:
    """Sums over a ledger: `tokens` and `cost_usd` of the agent's lines, `judge_cost_usd` of the judge's.

    A sum of dollars is None as soon as one line's are unknown; `cost_status` is the worst of all lines.
    """

    tokens: TokenCounts = _NO_TOKENS
    cost_usd: Decimal | None = Decimal(0)
    judge_cost_usd: Decimal | None = Decimal(0)
    cost_status: CostStatus = "exact"

    def plus(self, line: LedgerLine) -> "LedgerTotals":
        """These totals with one line more."""
        is_agent = line.who == "agent"
        return LedgerTotals(
            tokens=self.tokens + line.tokens.counts() if is_agent else self.tokens,
            cost_usd=_sum(self.cost_usd, line.cost_usd) if is_agent else self.cost_usd,
            judge_cost_usd=self.judge_cost_usd if is_agent else _sum(self.judge_cost_usd, line.cost_usd),
            cost_status=worse_status(self.cost_status, line.cost_status),
        )


class Ledger:
    """Writes `ledger.jsonl` and knows its sums. An existing file is continued, without a torn last line.

    Raises:
        LedgerUnreadable: the existing file cannot be continued.
    """

    def __init__(self, path: Path) -> None:
        self._seq = 0
        self._totals = LedgerTotals()
        if path.exists():
            _cut_torn_tail(path)
            for line in read_ledger(path):
                self._seq = max(self._seq, line.seq)
                self._totals = self._totals.plus(line)
        self._file = LineFile(path)

    def append(self, line: LedgerLine) -> LedgerLine:
        """Write one line, as it stands but for its `seq`, which is the next; returns what was written.

        Raises OSError (disk full); the sums then stay as they were.
        """
        numbered = line.model_copy(update={"seq": self._seq + 1})
        self._file.write_line(numbered.to_json_line())
        self._seq += 1
        self._totals = self._totals.plus(numbered)
        return numbered

    def totals(self) -> LedgerTotals:
        """The sums so far; O(1)."""
        return self._totals

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def read_ledger(path: Path) -> Iterator[LedgerLine]:
    """Every line of a ledger, in order; a torn last line is left out.

    Raises:
        LedgerUnreadable: another line is no ledger line, or was written by a newer fbench.
    """
    raw_lines = path.read_bytes().split(b"\n")
    last = len(raw_lines) - 1
    for number, raw in enumerate(raw_lines):
        if not raw.strip():
            continue
        is_last = number == last or not any(later.strip() for later in raw_lines[number + 1 :])
        try:
            document = json.loads(raw, parse_float=Decimal)
        except (ValueError, RecursionError) as error:
            if is_last:
                return
            msg = f"{path}:{number + 1}: no ledger line ({error}); repair or remove that line"
            raise LedgerUnreadable(msg) from None
        yield _read_line(document, f"{path}:{number + 1}")


def _read_line(document: object, where: str) -> LedgerLine:
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > LEDGER_VERSION:
        msg = f"{where}: written by a newer fbench (schema_version {version}); this one reads up to {LEDGER_VERSION}"
        raise LedgerUnreadable(msg)
    if isinstance(document, dict):
        document["usage_raw"] = _plain(document.get("usage_raw"))
    try:
        return LedgerLine.model_validate(document)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(map(str, problem["loc"])) or "the line"
        msg = f"{where}: no ledger line ({key}: {problem['msg']}); repair or remove that line"
        raise LedgerUnreadable(msg) from None


def _cut_torn_tail(path: Path) -> None:
    """Ends the file with its last whole line, so that what is appended begins a new one."""
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON
    """JSON read with Decimals for floats, with floats again."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def worse_status(one: CostStatus, other: CostStatus) -> CostStatus:
    """The one that says less."""
    return one if _COST_RANKS[one] >= _COST_RANKS[other] else other


def _sum(total: Decimal | None, part: Decimal | None) -> Decimal | None:
    return None if total is None or part is None else total + part
