"""Prices by date, by time of the day and by length of the call."""

import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fbench.pricing.errors import PricingError
from fbench.pricing.rates import HourlyPrice, Price, Tariff
from fbench.pricing.table import load_prices

counts = st.integers(min_value=0, max_value=10**7)
prices = st.decimals(min_value=0, max_value=1000, places=4)
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
moments = st.integers(0, 1460 * 86400).map(lambda seconds: FIRST + timedelta(seconds=seconds))


def tariff(value: Any) -> Tariff:
    return Tariff.model_validate({"entries": value})


def flat(number: int) -> dict[str, Any]:
    return {"input": Decimal(number), "output": Decimal(number)}


def input_price(of: Tariff, text: str) -> Decimal:
    return of.price_at(datetime.fromisoformat(text)).input


@pytest.fixture
def price_file(tmp_path: Path) -> Path:
    return tmp_path / "prices.yaml"


def test_a_price_holds_from_midnight_utc_of_its_date() -> None:
    changed = tariff([flat(1), {**flat(2), "from": "2026-03-01"}])
    assert input_price(changed, "2026-02-28T23:59:59.999Z") == 1
    assert input_price(changed, "2026-03-01T00:00:00Z") == 2
    assert input_price(changed, "2026-03-01T00:59:59+01:00") == 1
    assert input_price(changed, "2026-02-28T23:00:00-02:00") == 2


def test_a_window_begins_with_its_start_and_ends_before_its_end() -> None:
    by_hour = tariff({**flat(1), "hours": [{**flat(2), "utc": "01:00-04:00"}]})
    clocks = ("00:59:59", "01:00:00", "03:59:59", "04:00:00")
    assert [input_price(by_hour, f"2026-03-01T{clock}Z") for clock in clocks] == [1, 2, 2, 1]


def test_a_window_may_pass_midnight_and_the_last_of_two_goes_first() -> None:
    by_hour = tariff({**flat(1), "hours": [{**flat(2), "utc": "22:00-02:00"}, {**flat(3), "utc": "01:00-03:00"}]})
    assert [input_price(by_hour, f"2026-03-01T{hour:02}:00:00Z") for hour in (21, 22, 0, 1, 2, 3)] == [1, 2, 2, 3, 3, 1]


def test_hours_belong_to_the_dated_price_they_stand_beside() -> None:
    changed = tariff([{**flat(1), "hours": [{**flat(2), "utc": "01:00-04:00"}]}, {**flat(3), "from": "2026-03-01"}])
    assert input_price(changed, "2026-02-28T02:00:00Z") == 2
    assert input_price(changed, "2026-03-01T02:00:00Z") == 3


@given(counts, counts, counts, st.lists(st.tuples(prices, prices), min_size=1, max_size=5), counts)
def test_of_several_tiers_the_highest_that_is_passed_holds_for_the_whole_call(
    fresh: int, read: int, written: int, rates: list[tuple[Decimal, Decimal]], output: int
) -> None:
    (first_in, first_out), *others = rates
    tiers: list[dict[str, Any]] = [
        {"above_input_tokens": 10_000 * number, "input": in_price, "output": out_price}
        for number, (in_price, out_price) in enumerate(others, start=1)
    ]
    price = Price.model_validate({"input": first_in, "output": first_out, "long_context": tiers})
    whole = fresh + read + written
    passed = [tier for tier in tiers if whole > tier["above_input_tokens"]]
    in_price, out_price = (passed[-1]["input"], passed[-1]["output"]) if passed else (first_in, first_out)
    cost = price.cost_usd(input=fresh, cache_read=read, cache_write=written, output=output)
    assert cost * 10**6 == whole * in_price + output * out_price
    assert cost >= 0


@pytest.mark.parametrize(("tokens", "rate"), [(100, 1), (101, 2), (200, 2), (201, 3)])
def test_a_tier_begins_above_its_number(tokens: int, rate: int) -> None:
    tiers = [{"above_input_tokens": 100, **flat(2)}, {"above_input_tokens": 200, **flat(3)}]
    price = Price.model_validate({**flat(1), "long_context": tiers})
    assert price.cost_usd(input=tokens - 1, cache_read=1, cache_write=0, output=0) * 10**6 == tokens * rate


@given(st.lists(st.dates(date(2024, 1, 1), date(2028, 1, 1)), unique=True, max_size=6), moments)
def test_exactly_the_last_date_that_has_come_holds(dates: list[date], moment: datetime) -> None:
    dates.sort()
    entries = [flat(0), *({**flat(number), "from": day} for number, day in enumerate(dates, start=1))]
    assert tariff(entries).price_at(moment).input == sum(day <= moment.date() for day in dates)


@settings(deadline=None)
@given(moments, st.integers(min_value=-23, max_value=23))
def test_the_same_moment_in_another_zone_has_the_same_price(moment: datetime, hours: int) -> None:
    elsewhere = moment.astimezone(timezone(timedelta(hours=hours)))
    for name in ("deepseek/deepseek-v4-pro", "openai/gpt-5.6-sol"):
        model = load_prices().models[name]
        assert model.price_at(moment) == model.price_at(elsewhere)


@given(st.times(), st.times(), st.times())
def test_a_window_and_its_opposite_share_the_day(start: time, end: time, moment: time) -> None:
    one, other = f"{start:%H:%M}", f"{end:%H:%M}"
    if one != other:
        window = HourlyPrice.model_validate({**flat(1), "utc": f"{one}-{other}"})
        opposite = HourlyPrice.model_validate({**flat(1), "utc": f"{other}-{one}"})
        assert window.covers(moment) is not opposite.covers(moment)


def test_a_user_file_may_have_dates_hours_and_several_tiers(price_file: Path) -> None:
    price_file.write_text(
        "models:\n"
        "  local/qwen:\n"
        "    - {input: 1, output: 2}\n"
        "    - from: 2026-03-01\n"
        "      input: 3\n"
        "      output: 4\n"
        "      long_context:\n"
        "        - {above_input_tokens: 100, input: 5, output: 6}\n"
        "        - {above_input_tokens: 200, input: 7, output: 8}\n"
        '      hours: [{utc: "16:30-00:30", input: 9, output: 10}]\n'
    )
    table = load_prices(price_file)
    at_night, by_day = datetime(2026, 3, 1, 17, tzinfo=UTC), datetime(2026, 3, 1, 12, tzinfo=UTC)
    prices = [table.find("local/qwen", at=at) for at in (datetime(2026, 2, 1, tzinfo=UTC), by_day, at_night)]
    assert [price.input for price in prices if price is not None] == [1, 3, 9]
    assert [tier.input for tier in table.models["local/qwen"].price_at(by_day).long_context] == [5, 7]


FLAT = "{input: 1, output: 1}"
TIER = "{above_input_tokens: 2, input: 1, output: 1}"


@pytest.mark.parametrize(
    ("entry", "line", "told"),
    [
        ("    - {input: 1, output: 1, from: 2026-01-01}", 2, "first price has no `from`"),
        (f"    - {FLAT}\n    - {FLAT}", 2, "has a `from`"),
        (
            f"    - {FLAT}\n    - {{from: 2026-02-01, input: 1, output: 1}}\n    - {FLAT}",
            2,
            "later than the one before",
        ),
        (f"    - {FLAT}\n    - {{input: 1, output: 1, from: 2026-02-30}}", 4, "from"),
        (f"    - {FLAT}\n    - {{input: 1, output: 1, from: soon}}", 4, "2026-01-31"),
        ('    input: 1\n    output: 1\n    hours: [{input: 1, output: 1, utc: "25:00-04:00"}]', 5, "01:00-04:00"),
        ('    input: 1\n    output: 1\n    hours: [{input: 1, output: 1, utc: "04:00-04:00"}]', 5, "01:00-04:00"),
        (f"    input: 1\n    output: 1\n    hours:\n      - {FLAT}", 6, "utc"),
        ("    []", 2, "at least one price"),
        (f"    input: 1\n    output: 1\n    long_context:\n      - {TIER}\n      - {TIER}", 5, "above the one before"),
        ("    input: 1\n    output: 1\n    long_context: {above: 2, input: 1, output: 1}", 5, "above_input_tokens"),
        ("    - {input: 1, output: 1, form: 2026-02-01}", 3, "did you mean `from`"),
    ],
)
def test_what_is_wrong_with_dates_hours_or_tiers_is_told_with_its_line(
    price_file: Path, entry: str, line: int, told: str
) -> None:
    price_file.write_text(f"models:\n  a/b:\n{entry}\n")
    with pytest.raises(PricingError, match=told) as caught:
        load_prices(price_file)
    assert f"{price_file}:{line}: `models.a/b" in str(caught.value)


def test_a_file_of_version_1_means_what_it_meant(price_file: Path) -> None:
    price_file.write_text(
        "schema_version: 1\nmodels:\n  a/b:\n    input: 1\n    output: 2\n"
        "    long_context: {above_input_tokens: 10, input: 3, output: 4}\n"
    )
    price = load_prices(price_file).find("a/b")
    assert price is not None
    assert price.cost_usd(input=10, cache_read=0, cache_write=0, output=1) == Decimal("0.000012")
    assert price.cost_usd(input=11, cache_read=0, cache_write=0, output=1) == Decimal("0.000037")


def test_a_tariff_without_a_price_cannot_be_made() -> None:
    with pytest.raises(ValidationError):
        tariff([])


def test_the_rates_a_run_stores_hold_what_it_may_use_and_where_it_is_from() -> None:
    moment = datetime(2026, 11, 25, 2, tzinfo=UTC)
    stored = load_prices().models["deepseek/deepseek-v4-pro"].rates_used(moment)
    assert (stored["model"], stored["rates"]["input"], stored["unit"]) == (
        "deepseek/deepseek-v4-pro",
        "1.32",
        "per 1M tokens",
    )
    assert [entry["from"] for entry in stored["tariff"]] == ["2026-08-17"]
    assert [window["utc"] for window in stored["tariff"][0]["hours"]] == ["01:00-04:00", "06:00-10:00"]
    assert (stored["source"]["file"], stored["source"]["source"]) == ("model_prices.yaml", "genai-prices")
    assert stored["source"]["retrieved"] is not None
    assert load_prices().models["openai/gpt-4o"].rates_used(moment)["tariff"] is None


def test_a_window_is_no_rate_and_stands_in_none_that_a_run_stores() -> None:
    moment = datetime(2026, 11, 25, 2, tzinfo=UTC)
    for name in ("deepseek/deepseek-v4-pro", "openai/gpt-4o"):
        model = load_prices().models[name]
        assert model.tariff.context_window is not None
        assert "context_window" not in json.dumps(model.rates_used(moment))
