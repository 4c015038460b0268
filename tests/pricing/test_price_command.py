"""`fbench pricing show`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from fbench.pricing.cli import pricing
from fbench.pricing.errors import PricingError


def show(*arguments: str, env: dict[str, str] | None = None) -> str:
    result = CliRunner().invoke(pricing, ["show", *arguments], env=env, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_all_prices_are_listed_with_their_source() -> None:
    text = show()
    assert "openai/gpt-4o-mini " in text
    assert "(genai-prices " in text


def test_one_model_as_json_is_exact() -> None:
    document = json.loads(show("openai/gpt-4o-mini", "--json"))
    model = document["models"]["openai/gpt-4o-mini"]
    assert (model["input"], model["cached_input"], model["output"]) == ("0.15", "0.075", "0.6")
    assert model["from"]["kind"] == "built-in"
    assert model["context_window"] == 128_000
    assert "context_window" not in model["tariff"][0]
    assert document["currency"] == "USD"


def test_one_model_as_json_has_every_date_and_hour() -> None:
    document = json.loads(show("deepseek/deepseek-v4-pro", "--json"))
    model = document["models"]["deepseek/deepseek-v4-pro"]
    assert document["schema_version"] == 2
    assert [entry["from"] for entry in model["tariff"]] == [None, "2026-08-17"]
    assert model["tariff"][1]["hours"][0]["utc"] == "01:00-04:00"
    assert model["input"] in {"0.66", "1.32"}


def test_one_model_is_shown_with_all_its_dates_hours_and_tiers_and_what_holds_now() -> None:
    text = show("deepseek/deepseek-v4-pro")
    assert "at first" in text
    assert "01:00-04:00 UTC" in text
    assert text.count("(now)") == 1
    assert "above 272000 input tokens" in show("openai/gpt-6-sol")


def test_a_window_is_shown_beside_the_price_and_a_dash_where_none_is_known(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("models: {local/a: {input: 1, output: 2, context_window: 4096}, local/b: {input: 1, output: 2}}")
    lines = [line.split() for line in show("--prices", str(file)).splitlines()]
    assert ["local/a", "1", "=", "=", "2", "4096", "[2]"] in lines
    assert ["local/b", "1", "=", "=", "2", "-", "[2]"] in lines


def test_a_model_that_varies_is_marked_among_the_others() -> None:
    text = show()
    assert "\ngoogle/gemini-3.6-flash *" in text
    assert "\n* varies" in text


def test_the_group_lists_also_what_lives_elsewhere() -> None:
    result = CliRunner().invoke(pricing, ["--help"], catch_exceptions=False)
    assert [word for word in ("show", "update", "reprice") if f"  {word} " not in result.stdout] == []


def test_a_user_file_by_option_or_environment_is_named_as_the_source(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("models: {local/llama: {input: 0.01, output: 0.02}}")
    for text in (show("local/llama", "--prices", str(file)), show("local/llama", env={"FBENCH_PRICES": str(file)})):
        assert str(file) in text
        assert "0.02" in text


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("gpt-4o", "openai/gpt-4o"),
        ("openai/gpt-4o-mni", "openai/gpt-4o-mini"),
        ("zzz/qqq", "fbench pricing show"),
        ("fake/oracle", "costs 0 by definition"),
    ],
)
def test_an_unknown_model_is_refused_with_near_names(model: str, told: str) -> None:
    with pytest.raises(PricingError, match=told) as caught:
        CliRunner().invoke(pricing, ["show", model], catch_exceptions=False)
    assert caught.value.exit_code == 2


def test_importing_the_command_imports_no_heavy_library() -> None:
    heavy = "{'pydantic', 'yaml', 'httpx', 'fbench.engine', 'genai_prices', 'fbench.pricing.table'}"
    code = f"import sys, fbench.pricing.cli; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_showing_prices_loads_neither_the_engine_nor_the_package_they_are_from() -> None:
    heavy = "{'httpx', 'openai', 'anyio', 'aiodocker', 'fbench.engine', 'genai_prices'}"
    code = (
        "import sys\nfrom fbench.pricing.cli import pricing\n"
        "pricing.main(['show', 'openai/gpt-4o', '--json'], standalone_mode=False)\n"
        f"print(sorted({heavy} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == "[]\n"
