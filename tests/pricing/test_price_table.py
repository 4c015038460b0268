"""The price table: exact names, exact decimals, a user's file on top, errors with their line."""

from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbench.pricing.errors import PricingError
from fbench.pricing.table import LongContext, Price, load_prices

counts = st.integers(min_value=0, max_value=10**15)
rates = st.decimals(min_value=0, max_value=10_000, places=6)


@pytest.fixture
def price_file(tmp_path: Path) -> Path:
    return tmp_path / "prices.yaml"


def refused(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PricingError) as caught:
        load_prices(path)
    return str(caught.value)


def test_the_shipped_file_prices_the_current_models_and_says_its_source() -> None:
    table = load_prices()
    assert table.find("openai/gpt-4o") == Price(input=Decimal("2.5"), cached_input=Decimal("1.25"), output=Decimal(10))
    for name in ("gpt-5", "gpt-5-mini", "gpt-4.1", "gpt-4o-mini", "o3", "o4-mini", "gpt-4o-2024-08-06"):
        assert table.find(f"openai/{name}") is not None, name
    source = table.models["openai/gpt-4o"].source
    assert (source.kind, source.source) == ("built-in", "genai-prices")
    assert source.source_version is not None
    assert source.retrieved is not None


def test_every_shipped_price_makes_sense_at_any_time() -> None:
    for name, model in load_prices().models.items():
        for entry in model.tariff.entries:
            for price in (entry, *entry.hours):
                assert 0 < price.input <= price.output, name
                assert price.cached_input is None or price.cached_input < price.input, name
                assert price.cache_write is None or price.cache_write >= price.input, name
                for shorter, longer in pairwise((price, *price.long_context)):
                    assert longer.input > shorter.input, name


def test_a_lookup_is_exact() -> None:
    table = load_prices()
    for name in ("gpt-4o", "openai/GPT-4o", "openai/gpt-4o ", "openai/gpt-4o-2099-01-01", "other/gpt-4o", ""):
        assert table.find(name) is None


def test_looking_up_one_model_parses_one_entry() -> None:
    """A run asks for one price of some six hundred; parsing all takes 70 ms of CPU, one 2 ms."""
    models = load_prices().models
    assert models["openai/gpt-4o"].price.input > 0
    assert [name for name, entry in vars(models)["_read"].items() if entry] == ["openai/gpt-4o"]
    assert len(models) > 500


def test_a_dated_snapshot_has_its_own_price() -> None:
    table = load_prices()
    old, new = table.find("openai/gpt-4o-2024-05-13"), table.find("openai/gpt-4o-2024-08-06")
    assert old is not None
    assert new is not None
    assert old.input != new.input


def test_cost_is_exact_to_the_last_digit() -> None:
    price = Price(input=Decimal("0.1"), cached_input=Decimal("0.03"), cache_write=Decimal("0.7"), output=Decimal("0.9"))
    cost = price.cost_usd(input=1, cache_read=1, cache_write=1, output=1)
    assert cost == Decimal("0.00000173")


def test_cached_tokens_without_a_price_cost_what_input_costs() -> None:
    price = Price(input=Decimal(3), output=Decimal(5))
    assert price.cost_usd(input=0, cache_read=10**6, cache_write=10**6, output=0) == Decimal(6)


def test_a_cached_price_of_zero_is_free_and_not_missing() -> None:
    price = Price(input=Decimal(3), cached_input=Decimal(0), output=Decimal(5))
    assert price.cost_usd(input=0, cache_read=10**6, cache_write=0, output=0) == 0


def test_a_long_call_pays_the_long_rates_for_all_its_tokens() -> None:
    price = Price(
        input=Decimal(1),
        output=Decimal(2),
        long_context=(LongContext(above_input_tokens=100, input=Decimal(10), output=Decimal(20)),),
    )
    assert price.cost_usd(input=60, cache_read=40, cache_write=0, output=1) == Decimal("0.000102")
    assert price.cost_usd(input=60, cache_read=41, cache_write=0, output=1) == Decimal("0.00103")


@given(counts, counts, counts, counts, st.tuples(rates, rates))
def test_costs_add_up_without_rounding(
    first: int, second: int, cached: int, output: int, prices: tuple[Decimal, Decimal]
) -> None:
    in_price, out_price = prices
    price = Price(input=in_price, output=out_price)
    parts = [
        price.cost_usd(input=first, cache_read=0, cache_write=0, output=0),
        price.cost_usd(input=second, cache_read=cached, cache_write=0, output=0),
        price.cost_usd(input=0, cache_read=0, cache_write=0, output=output),
    ]
    whole = price.cost_usd(input=first + second, cache_read=cached, cache_write=0, output=output)
    micro = 10**12
    assert sum(int(part * micro) for part in parts) == int(whole * micro)
    assert whole * 10**6 == (first + second + cached) * in_price + output * out_price


def test_a_user_file_goes_on_top_name_by_name(price_file: Path) -> None:
    price_file.write_text("models:\n  openai/gpt-4o: {input: 1, output: 2}\n  local/mine: {input: 0, output: 0}\n")
    table = load_prices(price_file)
    assert table.find("openai/gpt-4o") == Price(input=Decimal(1), output=Decimal(2))
    assert table.find("local/mine") == Price(input=Decimal(0), output=Decimal(0))
    assert table.find("openai/gpt-4o-mini") == load_prices().find("openai/gpt-4o-mini")
    assert table.models["local/mine"].source.kind == "user"
    assert table.models["openai/gpt-4o-mini"].source.kind == "built-in"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1234567891", "0.1234567891"),
        ('"0.075"', "0.075"),
        ("1e-3", "0.001"),
        ("2.50", "2.50"),
        ("1_000", "1000"),
        (".5", "0.5"),
    ],
)
def test_numbers_are_read_exactly(price_file: Path, text: str, value: str) -> None:
    price_file.write_text(f"models: {{a/b: {{input: {text}, output: 1}}}}")
    price = load_prices(price_file).find("a/b")
    assert price is not None
    assert str(price.input) == value


@pytest.mark.parametrize(
    "text", ["-1", ".inf", ".nan", "1:30", "0x10", "yes", "[1]", "{}", "null", "2000000", "abc", "."]
)
def test_what_is_no_price_is_refused_with_line_and_key(price_file: Path, text: str) -> None:
    told = refused(price_file, f"models:\n  a/b:\n    output: 1\n    input: {text}\n")
    assert told.startswith(f"{price_file}:4:")


def test_an_unknown_key_is_told_with_its_line_and_the_nearest_valid_one(price_file: Path) -> None:
    told = refused(price_file, "models:\n  a/b:\n    input: 1\n    outputs: 2\n    output: 2\n")
    assert f"{price_file}:4: `models.a/b.outputs` is no key" in told
    assert "did you mean `output`?" in told


def test_all_problems_of_a_file_are_told_at_once(price_file: Path) -> None:
    told = refused(
        price_file, "models:\n  bare: {input: 1, output: 1}\n  a/b: {input: x, output: 1}\n  a/c: {input: 1}\n"
    )
    assert f"{price_file}:2: `models.bare` is no model name" in told
    assert f"{price_file}:3: `models.a/b.input`" in told
    assert f"{price_file}:4: `models.a/c.output` is missing" in told


def test_a_price_that_is_one_number_is_told_what_it_should_be(price_file: Path) -> None:
    told = refused(price_file, "models:\n  openai/a: 3\n")
    assert f"{price_file}:2: `models.openai/a` is wrong: it must be a mapping" in told


def windows(path: Path, text: str) -> dict[str, int | None]:
    path.write_text(f"models:\n{text}")
    table = load_prices(path)
    return {name: table.models[name].tariff.context_window for name in ("openai/gpt-4o", "openai/gpt-4o-mini", "a/b")}


def test_a_window_of_ones_own_goes_before_the_shipped_one_which_holds_where_none_is_told(price_file: Path) -> None:
    shipped = load_prices().models["openai/gpt-4o"].tariff.context_window
    assert shipped is not None
    found = windows(
        price_file,
        "  openai/gpt-4o: {input: 1, output: 2}\n"
        "  openai/gpt-4o-mini:\n    - {input: 1, output: 2, context_window: 32_000}\n"
        "    - {from: 2026-02-01, input: 2, output: 2}\n"
        "  a/b: {input: 1, output: 2}\n",
    )
    assert found == {"openai/gpt-4o": shipped, "openai/gpt-4o-mini": 32_000, "a/b": None}
    assert load_prices(price_file).models["openai/gpt-4o"].source.kind == "user"


@pytest.mark.parametrize(
    ("entry", "line", "told"),
    [
        ("    context_window: 0", 5, "`models.a/b.context_window` is wrong"),
        ("    context_window: -1", 5, "`models.a/b.context_window` is wrong"),
        ("    context_window: 1.5", 5, "valid integer"),
        ("    context_window: 128k", 5, "valid integer"),
        ("    context_window: [8192]", 5, "`models.a/b.context_window` is wrong"),
        ("    context_window: 10_000_000_000", 5, "less than or equal to 1000000000"),
        ("    context_windw: 5", 5, "did you mean `context_window`?"),
        ("    long_context: {above_input_tokens: 2, input: 1, output: 1, context_window: 9}", 5, "is the model's"),
        ('    hours: [{utc: "01:00-02:00", input: 1, output: 1, context_window: 9}]', 5, "is the model's"),
    ],
)
def test_what_is_wrong_with_a_window_is_told_with_its_line(price_file: Path, entry: str, line: int, told: str) -> None:
    words = refused(price_file, f"models:\n  a/b:\n    input: 1\n    output: 1\n{entry}\n")
    assert words.startswith(f"{price_file}:{line}: `models.a/b.")
    assert told in words


def test_in_a_list_of_dated_prices_a_window_stands_beside_the_first(price_file: Path) -> None:
    first, later = "    - input: 1\n      output: 1\n", "    - from: 2026-02-01\n      input: 1\n      output: 1\n"
    told = refused(price_file, f"models:\n  a/b:\n{first}{later}      context_window: 8192\n")
    assert f"{price_file}:8: `models.a/b.1.context_window` is the model's and not a price's" in told
    told = refused(price_file, f"models:\n  a/b:\n{first}      context_window: 0\n{later}")
    assert told.startswith(f"{price_file}:5: `models.a/b.0.context_window` is wrong")


def test_free_models_take_no_price(price_file: Path) -> None:
    assert "costs 0 by definition" in refused(price_file, "models: {fake/oracle: {input: 1, output: 1}}")


def test_a_newer_schema_is_refused_by_name(price_file: Path) -> None:
    told = refused(price_file, "# prices\nschema_version: 4\nmodels: {}\nnew_key: 1\n")
    assert f"{price_file}:2:" in told
    assert "schema_version 4" in told
    assert "upgrade" in told


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "just text",
        "models: [",
        "models: &m {a/b: *m}",
        "models: {a/b: {input: 1, input: 2}}",
        b"\xff\xfe\x00",
        "a: b\n? [1]\n: 2",
    ],
)
def test_a_broken_file_is_refused_by_its_name(price_file: Path, text: str | bytes) -> None:
    assert str(price_file) in refused(price_file, text)


def test_nesting_without_end_is_refused(price_file: Path) -> None:
    assert str(price_file) in refused(price_file, "models: " + "[" * 5000)
    assert str(price_file) in refused(price_file, "models: " + "[" * 300 + "]" * 300)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PricingError, match="does not exist"):
        load_prices(tmp_path / "none.yaml")
    with pytest.raises(PricingError, match="no regular file"):
        load_prices(tmp_path)
    assert PricingError.exit_code == 2


def test_the_table_is_frozen() -> None:
    table = load_prices()
    with pytest.raises(TypeError):
        table.models["openai/x"] = table.models["openai/gpt-4o"]  # type: ignore[index]
