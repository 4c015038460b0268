"""Questions about runs as SQL over the index.

Newest first, each filter has an index that ends in the time. Any other order has a wide index with all that is filtered
by: it is read in order until there are enough rows, and only those are looked up in the table.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from fbench.engine.errors import UsageError
from fbench.engine.records.index_schema import wide_index

Sort = Literal["started", "score", "cost", "duration", "tokens"]
SORTS: tuple[Sort, ...] = get_args(Sort)

_COLUMNS = {
    "started": "started_at",
    "score": "score",
    "cost": "cost_usd",
    "duration": "duration_s",
    "tokens": "tokens_total",
}
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """Which rows, and in which order; newest first, or the highest first, unless `ascending`.

    Attributes:
        suite: a suite run's id or a suite's name.
        since: the earliest start, as `parse_since` gives it.
        sort: rows that lack the value come last either way.
    """

    task: str | None = None
    model: str | None = None
    suite: str | None = None
    status: str | None = None
    passed: bool | None = None
    since: str | None = None
    sort: Sort = "started"
    ascending: bool = False
    limit: int | None = None

    @property
    def is_told_by_owner(self) -> bool:
        """Whether the rows alone cannot say it: a run is `running` while the process that owns it lives."""
        return self.status in {"running", "unfinished"}

    def select(self) -> tuple[str, Sequence[Any]]:
        """The statement and its values. Where `is_told_by_owner`, it gives rows of either status and knows no limit."""
        wanted: list[tuple[str, list[Any]]] = [
            (f"{column} = ?", [value])
            for column, value in (("task_id", self.task), ("model", self.model), ("passed", self.passed))
            if value is not None
        ]
        if self.suite is not None:
            named = "select ? union select suite_run_id from suite_runs where suite = ?"
            wanted.append((f"suite_run_id in ({named})", [self.suite, self.suite]))
        if self.is_told_by_owner:
            wanted.append(("status in ('running', 'unfinished')", []))
        elif self.status is not None:
            wanted.append(("status = ?", [self.status]))
        if self.since is not None:
            wanted.append(("started_at >= ?", [self.since]))
        where = f" where {' and '.join(sql for sql, _ in wanted)}" if wanted else ""
        cut = "" if self.limit is None or self.is_told_by_owner else f" limit {max(self.limit, 0)}"
        values = [value for _, given in wanted for value in given]
        first, order = _COLUMNS[self.sort], self._order()
        if first == "started_at":
            return f"select * from runs{where}{order}{cut}", values  # noqa: S608 - our own words, as below
        chosen = f"select rowid from runs indexed by {wide_index(first)}{where}{order}{cut}"  # noqa: S608
        return f"select * from runs where rowid in ({chosen}){order}", values  # noqa: S608

    def _order(self) -> str:
        """Nulls come last; SQLite's null is less than anything."""
        first = _COLUMNS[self.sort]
        way = "asc" if self.ascending else "desc"
        last = " nulls last" if self.ascending and first != "started_at" else ""
        keys = dict.fromkeys((first, "started_at", "run_id"))
        return " order by " + ", ".join(f"{key} {way}{last if key == first else ''}" for key in keys)


def parse_since(text: str, now: datetime | None = None) -> str:
    """A day, a time (UTC where it names no zone), or an age like `90m`, `12h`, `7d`, `2w`, as the index has times.

    >>> parse_since("2026-05-13")
    '2026-05-13T00:00:00'
    >>> parse_since("2d", datetime(2026, 5, 13, 12, tzinfo=UTC))
    '2026-05-11T12:00:00'

    Raises:
        UsageError: it is none of these.
    """
    text = text.strip()
    age = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    try:
        if age is not None:
            moment = (now or datetime.now(UTC)) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        else:
            moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        msg = f"{text!r} is no day, time or age; write 2026-05-13, 2026-05-13T20:40, 12h or 7d"
        raise UsageError(msg) from error
    return moment.strftime("%Y-%m-%dT%H:%M:%S")
