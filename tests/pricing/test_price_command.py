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
    assert "genai-prices 0.2.3" in text


def test_one_model_as_json_is_exact() -> None:
    document = json.loads(show("openai/gpt-4o-mini", "--json"))
    model = document["models"]["openai/gpt-4o-mini"]
    assert (model["input"], model["cached_input"], model["output"]) == ("0.15", "0.075", "0.6")
    assert model["from"]["kind"] == "built-in"
    assert document["currency"] == "USD"


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
    heavy = "{'pydantic', 'yaml', 'httpx', 'fbench.engine'}"
    code = f"import sys, fbench.pricing.cli; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
