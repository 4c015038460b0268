"""`fbench pricing update`, on the real package: the difference, the file it writes, what it refuses."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fbench.pricing.cli import pricing
from fbench.pricing.comparing import compare, comparison_text
from fbench.pricing.convert import convert
from fbench.pricing.errors import PricingError
from fbench.pricing.rates import Tariff
from fbench.pricing.source import PACKAGE, SourceData, read_source
from fbench.pricing.table import load_prices
from fbench.pricing.writing import price_file_text


def update(*arguments: str) -> Result:
    return CliRunner().invoke(pricing, ["update", *arguments], catch_exceptions=False)


@cache
def installed() -> SourceData:
    return read_source()


@pytest.fixture(autouse=True)
def _read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real package, read once for all tests here: each reading takes most of a second."""
    monkeypatch.setattr("fbench.pricing.source.read_source", installed)


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Stands for the installation's own file, as made from the package that is installed here."""
    source = installed()
    text = price_file_text(convert(source), source=PACKAGE, source_version=source.version, retrieved="2026-11-25")
    path = tmp_path / "site-packages" / "model_prices.yaml"
    path.parent.mkdir()
    path.write_text(text)
    monkeypatch.setattr("fbench.pricing.update._shipped_file", lambda: path)
    monkeypatch.setattr("fbench.pricing.table.built_in_text", path.read_text)
    return path


def made_older(path: Path) -> None:
    """The file as if gpt-4o had been dearer, a model had been known and another one not."""
    lines = [
        "  openai/gpt-4o: {input: 3, output: 10}" if line.startswith("  openai/gpt-4o: ") else line
        for line in path.read_text().splitlines()
        if not line.startswith("  openai/gpt-4o-mini: ")
    ]
    path.write_text("\n".join([*lines, "  openai/gpt-0: {input: 1, output: 2}"]) + "\n")


def test_nothing_differs_from_the_package_the_file_was_made_of(shipped: Path) -> None:
    before = shipped.read_bytes()
    for arguments in ([], ["--check"], ["--write"]):
        result = update(*arguments)
        assert result.exit_code == 0
        assert "no price and no window differs" in result.stdout
        assert "nothing was written" in result.stderr
    assert shipped.read_bytes() == before


def test_the_difference_names_what_came_what_went_and_what_changed_from_and_to(shipped: Path) -> None:
    made_older(shipped)
    before = shipped.read_bytes()
    result = update()
    assert result.exit_code == 0
    assert "added: 1\n+ openai/gpt-4o-mini: input 0.15, cached_input 0.075, output 0.6" in result.stdout
    assert "removed: 1\n- openai/gpt-0: input 1, output 2" in result.stdout
    assert "changed: 1\n  openai/gpt-4o: input 3 -> 2.5, cached_input none -> 1.25" in result.stdout
    assert "`--write`" in result.stderr
    assert shipped.read_bytes() == before


def test_windows_that_differ_are_told_beside_the_prices_and_refreshed_with_them(shipped: Path) -> None:
    text = shipped.read_text()
    head, line, rest = text.partition("  openai/gpt-4o: {input: 2.5, cached_input: 1.25, output: 10")
    shipped.write_text(f"{head}{line}, context_window: 64000{rest[rest.index('}') :]}")
    result = update("--check")
    assert result.exit_code == 1
    assert result.stdout.endswith("context windows changed: 1\n  openai/gpt-4o: 64000 -> 128000\n")
    document = json.loads(update("--json").stdout)
    assert document["context_windows"] == {"openai/gpt-4o": {"old": 64000, "new": 128000}}
    assert (document["differs"], document["added"], document["removed"], document["changed"]) == (True, {}, {}, {})
    assert update("--write").exit_code == 0
    assert shipped.read_text().partition("\nmodels:")[2] == text.partition("\nmodels:")[2]


def test_a_file_that_tells_no_windows_yet_gets_them(shipped: Path) -> None:
    shipped.write_text(
        "schema_version: 2\nsource: genai-prices\nmodels:\n  openai/gpt-4o: {input: 1, output: 2}\n"
        "  openai/gpt-0: {input: 1, output: 2, context_window: 4096}\n"
    )
    found = json.loads(update("--json").stdout)["context_windows"]
    assert found["openai/gpt-4o"] == {"old": None, "new": 128000}
    assert found["openai/gpt-0"] == {"old": 4096, "new": None}
    assert found["openai/gpt-4o-mini"] == {"old": None, "new": 128000}
    told = update().stdout
    assert "- openai/gpt-0: input 1, output 2, context_window 4096" in told
    assert "+ openai/gpt-4o-mini: input 0.15, cached_input 0.075, output 0.6, context_window 128000" in told
    assert "context windows changed: 1\n  openai/gpt-4o: none -> 128000" in told


def test_check_exits_with_1_when_a_price_differs_and_writes_nothing(shipped: Path) -> None:
    made_older(shipped)
    before = shipped.read_bytes()
    assert update("--check").exit_code == 1
    assert shipped.read_bytes() == before


def test_write_replaces_the_file_of_the_installation(shipped: Path) -> None:
    made_older(shipped)
    result = update("--write")
    assert result.exit_code == 0
    assert str(shipped) in result.stderr
    assert update("--check").exit_code == 0
    assert [path.name for path in shipped.parent.iterdir()] == [shipped.name]


def test_a_file_of_ones_own_is_written_and_usable_with_prices(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    result = update("--output", str(mine))
    assert result.exit_code == 0
    assert "added: " in result.stdout
    table = load_prices(mine)
    assert table.models["openai/gpt-4o"].source.file == str(mine)
    assert table.find("openai/gpt-4o") == load_prices().find("openai/gpt-4o")
    again = update("--output", str(mine), "--check")
    assert (again.exit_code, "no price and no window differs" in again.stdout) == (0, True)
    made_older(mine)
    assert update("--output", str(mine), "--check").exit_code == 1
    assert "changed: 1" in update("--output", str(mine)).stdout
    assert update("--output", str(mine), "--check").exit_code == 0


def test_another_provider_of_the_package_may_be_asked_for(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    assert update("--output", str(mine), "--provider", "moonshotai", "--provider", "x-ai").exit_code == 0
    names = [name for name, model in load_prices(mine).models.items() if model.source.kind == "user"]
    assert {name.partition("/")[0] for name in names} == {"moonshotai", "xai"}


def test_a_file_with_prices_of_ones_own_is_never_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("models: {local/llama: {input: 1, output: 2}}")
    with pytest.raises(PricingError, match="may hold prices of your own; name another file"):
        update("--output", str(mine))
    assert "local/llama" in mine.read_text()


def test_a_file_that_cannot_be_written_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PricingError, match=r"cannot write .*--output FILE"):
        update("--output", str(tmp_path / "nowhere" / "mine.yaml"))


@pytest.mark.parametrize("arguments", [["--write", "--check"], ["--write", "--output", "x"], ["--provider", "openai"]])
def test_options_that_do_not_go_together_are_refused(arguments: list[str]) -> None:
    assert update(*arguments).exit_code == 2


def test_json_says_the_same_exactly(shipped: Path) -> None:
    made_older(shipped)
    document = json.loads(update("--json").stdout)
    assert document["added"] == {
        "openai/gpt-4o-mini": {"": {"input": "0.15", "cached_input": "0.075", "output": "0.6"}}
    }
    assert list(document["removed"]) == ["openai/gpt-0"]
    assert document["changed"]["openai/gpt-4o"] == [
        {
            "when": "",
            "old": {"input": "3", "output": "10"},
            "new": {"input": "2.5", "cached_input": "1.25", "output": "10"},
        }
    ]
    assert (document["differs"], document["written"]) == (True, None)
    assert document["old"]["source"] == document["new"]["source"] == "genai-prices"


def test_a_price_that_got_a_date_is_one_line_more() -> None:
    flat = Tariff.model_validate({"entries": {"input": "1", "output": "2"}})
    dated = Tariff.model_validate(
        {"entries": [{"input": "1.0", "output": "2"}, {"from": "2026-03-01", "input": "1", "output": "3"}]}
    )
    assert comparison_text(compare({"a/b": flat}, {"a/b": dated})) == (
        "changed: 1\n  a/b\n  + from 2026-03-01: input 1, output 3"
    )
    assert comparison_text(compare({"a/b": dated}, {"a/b": flat})) == (
        "changed: 1\n  a/b\n  - from 2026-03-01: input 1, output 3"
    )


def test_the_package_itself_is_never_imported() -> None:
    code = (
        "import sys; from fbench.pricing.source import read_source; from fbench.pricing.convert import convert;"
        "convert(read_source()); print(sorted({'genai_prices', 'httpx2', 'httpx', 'fbench.engine'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
