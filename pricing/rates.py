"""What tokens cost: exact decimals per 1M tokens, by length of the call, by date, by time of day.

A `Price` is what holds at one moment. A `Tariff` is all that is known of a model: dated prices, and within a date
windows of the day; and beside the prices how many tokens the model takes. A call costs what holds at its `started_at`,
in UTC.
"""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Context, Decimal, localcontext
from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from fbench.pricing.reading import parse_number

TOKENS_PER_UNIT_EXPONENT = 6
"""Prices are for 10**6 tokens."""

MAX_DECIMALS = 12
WINDOW = "context_window"
"""Stands beside a model's first price in a file, and is the model's."""

_EXACT = Context(prec=200)
"""Wide enough for any sum of (count below 10**150) x (price of at most 19 digits) without rounding."""

_WINDOW = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def _as_price(value: object) -> object:
    if isinstance(value, str):
        number = parse_number(value.strip())
        if number is None:
            msg = f"{value!r} is no number"
            raise ValueError(msg)
        return number
    if isinstance(value, Decimal):
        return value
    msg = "a price is a plain number (USD per 1M tokens)"
    raise ValueError(msg)


def _exact_price(value: Decimal) -> Decimal:
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -MAX_DECIMALS:
        msg = f"a price has at most {MAX_DECIMALS} decimals"
        raise ValueError(msg)
    return value


PerMillion = Annotated[
    Decimal,
    BeforeValidator(_as_price),
    Field(ge=0, le=1_000_000, allow_inf_nan=False),
    AfterValidator(_exact_price),
]


class Frozen(BaseModel):
    """Base of what a price file holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Rates(Frozen):
    """USD per 1M tokens. Where the provider tells no price of cached tokens, they cost what input costs."""

    input: PerMillion
    cached_input: PerMillion | None = None
    cache_write: PerMillion | None = None
    output: PerMillion

    def _cost_usd(self, *, input: int, cache_read: int, cache_write: int, output: int) -> Decimal:  # noqa: A002 - the ledger's words
        read_price = self.input if self.cached_input is None else self.cached_input
        write_price = self.input if self.cache_write is None else self.cache_write
        with localcontext(_EXACT):
            total = input * self.input + cache_read * read_price + cache_write * write_price + output * self.output
            return total.scaleb(-TOKENS_PER_UNIT_EXPONENT)


class LongContext(Rates):
    """The rates of a whole call whose input, cached tokens included, is longer than `above_input_tokens`."""

    above_input_tokens: int = Field(gt=0)


def _as_tiers(value: object) -> object:
    """One tier may be written without the brackets of a list."""
    if value is None:
        return ()
    return value if isinstance(value, list | tuple) else [value]


def _ascending_tiers(tiers: tuple[LongContext, ...]) -> tuple[LongContext, ...]:
    if any(after.above_input_tokens <= before.above_input_tokens for before, after in pairwise(tiers)):
        msg = "each tier begins above the one before it: sort them by above_input_tokens"
        raise ValueError(msg)
    return tiers


class Price(Rates):
    """What one model costs at one moment."""

    long_context: Annotated[tuple[LongContext, ...], BeforeValidator(_as_tiers), AfterValidator(_ascending_tiers)] = ()

    def cost_usd(self, *, input: int, cache_read: int, cache_write: int, output: int) -> Decimal:  # noqa: A002 - the ledger's words
        """Dollars of one call, exactly; the four counts share no token.

        >>> price = Price(input=Decimal("2.5"), cached_input=Decimal("1.25"), output=Decimal(10))
        >>> price.cost_usd(input=1000, cache_read=200, cache_write=0, output=50)
        Decimal('0.00325000')
        """
        rates: Rates = self
        for tier in self.long_context:
            if input + cache_read + cache_write > tier.above_input_tokens:
                rates = tier
        return rates._cost_usd(  # noqa: SLF001 - the base class's own
            input=input, cache_read=cache_read, cache_write=cache_write, output=output
        )

    def plain(self) -> "Price":
        """Only the rates, without the date or the hours they hold at."""
        facts = {name: getattr(self, name) for name in Price.model_fields}
        return Price.model_construct(**facts)


def _is_window(text: object) -> object:
    matched = _WINDOW.fullmatch(text) if isinstance(text, str) else None
    hours = [] if matched is None else [int(number) for number in matched.groups()]
    valid = bool(hours) and max(hours[0], hours[2]) < 24 and max(hours[1], hours[3]) < 60  # noqa: PLR2004 - a clock
    if not valid or hours[:2] == hours[2:]:
        msg = 'hours are written in UTC like "01:00-04:00"'
        raise ValueError(msg)
    return text


class HourlyPrice(Price):
    """What a call costs that starts between two times of the day, UTC; a window may pass midnight."""

    utc: Annotated[str, BeforeValidator(_is_window)]

    def covers(self, moment: time) -> bool:
        """Whether `moment` is in the window; its start is, its end is not."""
        numbers = [int(number) for number in self.utc.replace("-", ":").split(":")]
        start, end = time(numbers[0], numbers[1]), time(numbers[2], numbers[3])
        return start <= moment < end if start < end else moment >= start or moment < end


def _as_date(value: object) -> object:
    if isinstance(value, str) and _DATE.fullmatch(value):
        return date.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    msg = "a date is written like 2026-01-31"
    raise ValueError(msg)


class DatedPrice(Price):
    """What a model costs from 00:00 UTC of `from_` on; `hours` go before the rates beside them, the last one first."""

    from_: Annotated[date, BeforeValidator(_as_date)] | None = Field(default=None, alias="from")
    hours: tuple[HourlyPrice, ...] = ()


def _as_entries(value: object) -> object:
    """A price that never changed is written without the brackets of a list."""
    return value if isinstance(value, list | tuple) else [value]


def _ascending_dates(entries: tuple[DatedPrice, ...]) -> tuple[DatedPrice, ...]:
    if not entries:
        msg = "a model has at least one price"
        raise ValueError(msg)
    if entries[0].from_ is not None:
        msg = "the first price has no `from`: it holds for all time before the second one"
        raise ValueError(msg)
    dates = [entry.from_ for entry in entries[1:]]
    known = [moment for moment in dates if moment is not None]
    if len(known) < len(dates) or any(after <= before for before, after in pairwise(known)):
        msg = "each further price has a `from`, later than the one before it"
        raise ValueError(msg)
    return entries


Entries = Annotated[tuple[DatedPrice, ...], BeforeValidator(_as_entries), AfterValidator(_ascending_dates)]


class Tariff(Frozen):
    """What one model costs over time; `entries` ascend by date, the first has none. `context_window` is in tokens, None
    where it is not told; it is no price, and no date changes it."""

    entries: Entries
    context_window: Annotated[int, Field(gt=0, le=1_000_000_000)] | None = None

    @classmethod
    def read(cls, value: object) -> Self:
        """As `written` gives it. Raises ValidationError."""
        return cls.model_validate(_as_tariff(value))

    def entry_at(self, moment: datetime) -> DatedPrice:
        """The dated price that holds at `moment` (aware), its hours included."""
        day = moment.astimezone(UTC).date()
        found = self.entries[0]
        for entry in self.entries[1:]:
            if entry.from_ is not None and entry.from_ <= day:
                found = entry
        return found

    def price_at(self, moment: datetime) -> Price:
        """The price of a call that starts at `moment` (aware)."""
        entry = self.entry_at(moment)
        clock = moment.astimezone(UTC).time()
        for hours in reversed(entry.hours):
            if hours.covers(clock):
                return hours.plain()
        return entry.plain()

    def varies(self) -> bool:
        """Whether it matters when a call starts."""
        return len(self.entries) > 1 or self.has_hours()

    def has_hours(self) -> bool:
        """Whether it matters at what time of the day a call starts."""
        return any(entry.hours for entry in self.entries)

    def written(self) -> Any:  # noqa: ANN401 - a mapping or a list of them, as a price file has it
        """As a price file has it, prices as Decimal: a mapping, or a list of dated ones."""
        entries = [written(entry) for entry in self.entries]
        if self.context_window is not None:
            entries[0][WINDOW] = self.context_window
        return entries[0] if len(entries) == 1 else entries


def _as_tariff(value: object) -> object:
    """The window taken out from beside the first price."""
    first, *later = value if isinstance(value, list) and value else [value]
    if not isinstance(first, dict) or WINDOW not in first:
        return {"entries": value}
    price = {key: part for key, part in first.items() if key != WINDOW}
    return {"entries": [price, *later] if isinstance(value, list) else price, WINDOW: first[WINDOW]}


WrittenTariff = Annotated[Tariff, BeforeValidator(_as_tariff)]
"""A tariff as a price file has it, for a model that holds some."""


def written(rates: Rates) -> dict[str, Any]:
    """Rates as a price file has them: what is not set is left out, one tier stands without a list."""
    facts: dict[str, Any] = {}
    if isinstance(rates, DatedPrice) and rates.from_ is not None:
        facts["from"] = rates.from_.isoformat()
    if isinstance(rates, HourlyPrice):
        facts["utc"] = rates.utc
    if isinstance(rates, LongContext):
        facts["above_input_tokens"] = rates.above_input_tokens
    for name in ("input", "cached_input", "cache_write", "output"):
        if (value := getattr(rates, name)) is not None:
            facts[name] = value
    if isinstance(rates, Price) and rates.long_context:
        facts["long_context"] = _one_or_many(rates.long_context)
    if isinstance(rates, DatedPrice) and rates.hours:
        facts["hours"] = [written(hours) for hours in rates.hours]
    return facts


def _one_or_many(tiers: Sequence[LongContext]) -> Any:  # noqa: ANN401 - see Tariff.written
    all_written = [written(tier) for tier in tiers]
    return all_written[0] if len(all_written) == 1 else all_written
