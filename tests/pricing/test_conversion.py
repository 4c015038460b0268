"""The shipped table against the package it was made from: real data, and the package's own arithmetic as the judge."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path

import pytest
from genai_prices import Usage
from genai_prices.data import providers as package_providers
from genai_prices.types import ModelInfo, Provider, StartDateConstraint, TimeOfDateConstraint
from hypothesis import given, settings
from hypothesis import strategies as st

from fbench.pricing.comparing import compare
from fbench.pricing.convert import LLAMA_HOSTS, OUR_NAMES, PROVIDERS, convert, is_match
from fbench.pricing.errors import PricingError
from fbench.pricing.files import read_document
from fbench.pricing.rates import Tariff
from fbench.pricing.reading import parse_yaml
from fbench.pricing.source import SourceData, parse_source, read_source
from fbench.pricing.table import built_in_text, load_prices
from fbench.pricing.writing import price_file_text

tokens = st.integers(min_value=0, max_value=600_000)
FIRST = datetime(2025, 1, 1, tzinfo=UTC)
moments = st.integers(0, 880 * 86400).map(lambda seconds: FIRST + timedelta(seconds=seconds))


@cache
def source() -> SourceData:
    return read_source()


@cache
def table() -> dict[str, Tariff]:
    return convert(source())


@cache
def theirs() -> dict[str, tuple[Provider, ModelInfo]]:
    """The package's own model for each of our names."""
    of_id = {OUR_NAMES.get(provider.id, provider.id): provider for provider in package_providers}
    found = {}
    for name in table():
        prefix, _, rest = name.partition("/")
        model = of_id[prefix].find_model(rest)
        assert model is not None, name
        found[name] = (of_id[prefix], model)
    return found


def has_dates_and_hours(model: ModelInfo) -> bool:
    kinds = {type(one.constraint) for one in model.prices} if isinstance(model.prices, list) else set()
    return {StartDateConstraint, TimeOfDateConstraint} <= kinds


def priced(name: str, moment: datetime, fresh: int, read: int, written: int, output: int) -> tuple[Decimal, Decimal]:
    """A call's dollars: ours, and the package's."""
    provider, model = theirs()[name]
    usage = Usage(
        input_tokens=fresh + read + written, cache_read_tokens=read, cache_write_tokens=written, output_tokens=output
    )
    their_cost = model.calc_price(usage, provider, genai_request_timestamp=moment).total_price
    return table()[name].price_at(moment).cost_usd(
        input=fresh, cache_read=read, cache_write=written, output=output
    ), their_cost


@settings(max_examples=400, deadline=None)
@given(st.data(), moments, tokens, tokens, tokens, tokens)
def test_every_price_is_the_one_the_package_computes(
    data: st.DataObject, moment: datetime, fresh: int, read: int, written: int, output: int
) -> None:
    name = data.draw(st.sampled_from(sorted(table())))
    if not has_dates_and_hours(theirs()[name][1]):
        ours, package = priced(name, moment, fresh, read, written, output)
        assert ours == package


def test_every_model_costs_what_the_package_says_on_each_side_of_each_edge() -> None:
    for name, tariff in table().items():
        if has_dates_and_hours(theirs()[name][1]):
            continue
        days = [datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 11, 25, tzinfo=UTC)]
        days += [datetime.combine(entry.from_, datetime.min.time(), UTC) for entry in tariff.entries if entry.from_]
        edges = [tier.above_input_tokens for entry in tariff.entries for tier in entry.long_context]
        for moment in days:
            for whole in (1000, *edges, *(edge + 1 for edge in edges)):
                ours, package = priced(name, moment, whole - 200, 100, 100, 77)
                assert ours == package, (name, moment, whole)


def test_a_window_after_a_date_holds_from_that_date_on_and_not_before() -> None:
    """What the package's own comments say of DeepSeek, and its layout cannot: flat before 2026-08-17."""
    pro = table()["deepseek/deepseek-v4-pro"]
    at_peak = [pro.price_at(datetime(2026, month, day, 2, tzinfo=UTC)).input for month, day in ((8, 16), (8, 17))]
    assert at_peak == [Decimal("0.435"), Decimal("1.32")]
    name = "deepseek/deepseek-v4-pro"
    for moment in (datetime(2026, 11, 25, 2, tzinfo=UTC), datetime(2026, 11, 25, 5, tzinfo=UTC)):
        ours, package = priced(name, moment, 1000, 100, 0, 10)
        assert ours == package


def test_every_window_is_the_packages_own() -> None:
    assert {name: tariff.context_window for name, tariff in table().items()} == {
        name: model.context_window for name, (_, model) in theirs().items()
    }
    assert sum(tariff.context_window is not None for tariff in table().values()) > 300
    assert table()["openai/gpt-4o"].context_window == 128_000


@pytest.mark.parametrize("window", ["0", "10_000_000_000", "'large'", "1.5"])
def test_a_window_that_is_none_is_refused_and_not_guessed(window: str) -> None:
    with pytest.raises(PricingError, match=r"says nothing usable of openai/m \(context_window: .*upgrade fbench"):
        convert(data_file(f"{ONE}, context_window={window}"))
    assert convert(data_file(ONE))["openai/m"].context_window is None


def test_the_shipped_file_is_what_the_package_it_names_says() -> None:
    """CI pins that version; where a newer one is installed, `fbench pricing update` shows what it brings."""
    shipped = load_prices().models
    if shipped["openai/gpt-4o"].source.source_version == source().version:
        assert compare({name: model.tariff for name, model in shipped.items()}, table()).is_empty()
    else:
        assert {name.partition("/")[0] for name in shipped} == {name.partition("/")[0] for name in table()}


def test_the_shipped_file_read_entry_by_entry_is_the_file_read_as_a_whole() -> None:
    whole = read_document(parse_yaml(built_in_text().encode(), "shipped"), "shipped")
    assert {name: model.tariff for name, model in load_prices().models.items()} == whole.models


def test_what_is_written_reads_the_same_and_is_no_wider_than_the_house_allows() -> None:
    text = price_file_text(table(), source="genai-prices", source_version="1", retrieved="2026-11-25")
    read = read_document(parse_yaml(text.encode(), "made"), "made")
    assert read.models == table()
    assert max(map(len, text.splitlines())) <= 120


def test_all_providers_of_the_issue_are_there_with_their_current_models() -> None:
    wanted = [
        "openai/gpt-6.1-sol",
        "anthropic/claude-opus-5-5",
        "anthropic/claude-sonnet-4-5-20250929",
        "google/gemini-3.8-flash",
        "mistral/mistral-large-4",
        "deepseek/deepseek-flash",
        "xai/grok-4.7",
        "meta/muse-spark-1.3",
        "groq/llama-3.3-70b-versatile",
        "together/meta-llama/Llama-4-Scout-17B-16E-Instruct",
        "fireworks/accounts/fireworks/models/llama-v3p1-8b-instruct",
        "cerebras/llama3.1-8b",
    ]
    assert [name for name in wanted if name not in table()] == []
    assert {name.partition("/")[0] for name in table()} == {
        OUR_NAMES.get(one, one) for one in (*PROVIDERS, *LLAMA_HOSTS)
    }


def test_cache_tiers_and_dates_are_kept() -> None:
    entries = [entry for tariff in table().values() for entry in tariff.entries]
    assert sum(entry.cached_input is not None for entry in entries) > 200
    assert sum(entry.cache_write is not None for entry in entries) > 40
    assert sum(bool(entry.long_context) for entry in entries) > 40
    assert sum(len(tariff.entries) > 1 for tariff in table().values()) > 20


def test_what_answers_in_sound_or_pictures_is_left_out() -> None:
    unwanted = re.compile(r"tts|audio|realtime|transcribe|whisper|embed|image|-ocr|moderation|-live", re.IGNORECASE)
    assert [name for name in table() if unwanted.search(name)] == []


def test_a_host_is_taken_for_llama_alone_unless_it_is_asked_for() -> None:
    of_host = [name for name in table() if name.startswith("novita/")]
    assert of_host
    assert all("llama" in name for name in of_host)
    whole = convert(source(), ["novita"])
    assert set(of_host) < set(whole)
    assert all(name.startswith("novita/") for name in whole)
    assert all(name.startswith("xai/") for name in convert(source(), ["xai"]))


def test_every_provider_of_the_package_can_be_taken() -> None:
    for provider in source().providers:
        one = provider.get("id")
        for name, tariff in convert(source(), [one]).items():
            assert name.startswith(f"{OUR_NAMES.get(one, one)}/")
            assert all(entry.output >= 0 for entry in tariff.entries)


def test_a_quotient_written_out_is_rounded_to_the_decimals_a_price_may_have() -> None:
    made = convert(data_file("ModelPrice(input_mtok=Decimal('0.08333333333333334'), output_mtok=Decimal('1'))"))
    assert made["openai/m"].entries[0].input == Decimal("0.083333333333")


def test_an_unknown_provider_is_told_with_those_there_are() -> None:
    with pytest.raises(PricingError, match=r"no provider opnai; it has .*openai"):
        convert(source(), ["opnai"])


def test_models_are_matched_as_the_package_matches_them() -> None:
    by_id = {provider.get("id"): provider for provider in source().providers}
    names = [name.partition("/")[2] for name in list(table())[::7]]
    for provider in package_providers:
        ours = by_id[provider.id]
        for model, record in zip(provider.models, ours.get("models") or (), strict=True):
            assert [is_match(record.get("match"), name) for name in names] == [model.is_match(name) for name in names]


def data_file(prices: str) -> SourceData:
    """A package of one OpenAI model and of nothing else."""
    others = "".join(f"Provider(id={one!r}, models=[])," for one in (*PROVIDERS, *LLAMA_HOSTS) if one != "openai")
    model = f"ModelInfo(id='m', match=ClauseEquals(equals='m'), prices={prices})"
    text = f"providers: list[Provider] = [Provider(id='openai', models=[{model}]), {others}]"
    return SourceData("9", parse_source(text, "made up"))


ONE = "ModelPrice(input_mtok=Decimal('1'), output_mtok=Decimal('1'))"
MAY = "StartDateConstraint(start_date=datetime.date(2026, 5, 1))"


def at(hour: int, minute: int = 0) -> str:
    return f"datetime.time({hour}, {minute}, tzinfo=datetime.timezone.utc)"


def test_a_later_date_without_a_window_ends_the_windows_before_it() -> None:
    rates = "ModelPrice(input_mtok=Decimal('{0}'), output_mtok=Decimal('{0}'))"
    made = convert(
        data_file(
            f"[ConditionalPrice(prices={rates.format(1)}),"
            f"ConditionalPrice(constraint=TimeOfDateConstraint(start_time={at(22, 30)}, end_time={at(2)}),"
            f" prices={rates.format(2)}),"
            "ConditionalPrice(constraint=StartDateConstraint(start_date=datetime.date(2026, 5, 1)),"
            f" prices={rates.format(3)})]"
        )
    )["openai/m"]
    told = [(str(entry.from_), int(entry.input), len(entry.hours)) for entry in made.entries]
    assert told == [("None", 1, 1), ("2026-05-01", 3, 0)]
    assert made.entries[0].hours[0].utc == "22:30-02:00"


def test_tiers_of_single_prices_make_tiers_of_all() -> None:
    made = convert(
        data_file(
            "ModelPrice(input_mtok=TieredPrices(base=Decimal('1'), tiers=[Tier(start=100, price=Decimal('2'))]),"
            "cache_read_mtok=Decimal('0.5'),"
            "output_mtok=TieredPrices(base=Decimal('3'), tiers=[Tier(start=200, price=Decimal('4'))]))"
        )
    )["openai/m"].entries[0]
    told = [
        (tier.above_input_tokens, str(tier.input), str(tier.cached_input), str(tier.output))
        for tier in made.long_context
    ]
    assert told == [(100, "2", "0.5", "3"), (200, "2", "0.5", "4")]


@pytest.mark.parametrize(
    "prices",
    [
        "ModelPrice(input_mtok=Decimal('1'))",
        "ModelPrice()",
        f"[ConditionalPrice(prices={ONE}), ConditionalPrice(constraint={MAY}, prices=ModelPrice())]",
        "ModelPrice(input_mtok=Decimal('1'), output_mtok=Decimal('1'), output_image_mtok=Decimal('9'))",
    ],
)
def test_a_model_without_text_prices_for_all_time_is_left_out(prices: str) -> None:
    assert convert(data_file(prices)) == {}


@pytest.mark.parametrize(
    "text",
    [
        "providers: list[Provider] = load()",
        "providers: list[Provider] = [Provider(id='openai', models=[m for m in ()])]",
        "providers: list[Provider] = [Provider(id=__import__('os').name)]",
        "nothing = 1",
        "providers: list[Provider] = [",
    ],
)
def test_data_of_another_shape_is_refused_and_never_run(text: str) -> None:
    with pytest.raises(PricingError, match="made up"):
        parse_source(text, "made up")


@pytest.mark.parametrize(
    "prices",
    [
        f"[ConditionalPrice(constraint=MoonConstraint(), prices={ONE})]",
        "ModelPrice(input_mtok=Decimal('1'), output_mtok='cheap')",
        "ModelPrice(input_mtok=Decimal('1'), output_mtok=Decimal('-1'))",
    ],
)
def test_a_price_this_version_does_not_understand_is_refused_and_not_guessed(prices: str) -> None:
    with pytest.raises(PricingError, match="upgrade fbench"):
        convert(data_file(prices))


def test_a_missing_package_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fbench.pricing.source.PACKAGE", "genai-prices-of-nobody")
    with pytest.raises(PricingError, match=r"factory-bench\[prices\]") as caught:
        read_source()
    assert caught.value.exit_code == 2


def test_a_package_without_its_data_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fbench.pricing.source.DATA_FILE", "genai_prices/nothing.py")
    with pytest.raises(PricingError, match=r"no readable genai_prices/nothing\.py"):
        read_source()
