"""`fbench.toml`: what it says, what it refuses and in which words, and how a name becomes a server."""

import os
import re
from decimal import Decimal
from pathlib import Path

import pytest

from fbench.engine.config import Config, Provider, load_config
from fbench.engine.errors import UnknownNameError, UsageError
from fbench.engine.models.access import make_spec
from fbench.pricing.table import load_prices

FULL = """
[providers.local]
base_url = "http://127.0.0.1:8000/v1"
api_key_env = "LOCAL_KEY"
headers = {X-Team = "evals", X-Token = "env:GATEWAY_TOKEN"}
api = "chat"
requests_per_minute = 60
tokens_per_minute = 100_000
max_concurrency = 8

[providers.local.prices]
qwen3 = {input = 0.2, cached_input = 0.02, output = 1}
"org/model:7b" = {input = 1, output = 2.5}

[providers.local.models."org/model:7b"]
api = "responses"
context_window = 32_768
"""
ENVIRON = {"LOCAL_KEY": "sk-local-1234", "GATEWAY_TOKEN": "Bearer gate-5678", "OPENAI_API_KEY": "sk-openai-9"}


def read(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "fbench.toml"
    file.write_text(text)
    return load_config(file)


def refuse(tmp_path: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_name_leads_to_its_server(tmp_path: Path) -> None:
    config = read(tmp_path, FULL)
    spec = make_spec("local/qwen3", config, ENVIRON)
    assert (spec.base_url, spec.api_key, spec.key_variable) == (
        "http://127.0.0.1:8000/v1",
        "sk-local-1234",
        "LOCAL_KEY",
    )
    assert spec.headers == {"X-Team": "evals", "X-Token": "Bearer gate-5678"}
    assert (spec.api, spec.context_window, spec.is_configured) == ("chat", None, True)
    assert (spec.requests_per_minute, spec.tokens_per_minute, spec.max_concurrency) == (60, 100_000, 8)
    other = make_spec("local/org/model:7b", config, ENVIRON)
    assert (other.full_name, other.api, other.context_window) == ("local/org/model:7b", "responses", 32_768)


def test_keys_and_secret_headers_are_secrets_and_never_shown(tmp_path: Path) -> None:
    text = FULL.replace('X-Team = "evals"', 'X-Team = "evals", Api-Key = "written-here"')
    spec = make_spec("local/qwen3", read(tmp_path, text), ENVIRON, base_url="http://u:pass%20word@h/v1")
    assert set(spec.secrets) == {
        "sk-local-1234",
        "Bearer gate-5678",
        "gate-5678",
        "written-here",
        "pass%20word",
        "pass word",
    }
    assert not any(secret in repr(spec).replace("pass%20word@h", "") for secret in spec.secrets)


def test_options_win_over_the_file(tmp_path: Path) -> None:
    spec = make_spec("local/m", read(tmp_path, FULL), ENVIRON, base_url="http://other:1/v1", api_key="sk-given")
    assert (spec.base_url, spec.api_key) == ("http://other:1/v1", "sk-given")


def test_a_provider_takes_nothing_from_openais_variables(tmp_path: Path) -> None:
    environ = {**ENVIRON, "OPENAI_BASE_URL": "http://elsewhere/v1"}
    for name in ("local", "openai"):
        config = read(tmp_path, f'[providers.{name}]\nbase_url = "http://h/v1"\n')
        spec = make_spec(f"{name}/gpt-5", config, environ)
        assert (spec.base_url, spec.api_key, spec.is_configured) == ("http://h/v1", None, True)
        assert spec.api == (None if name == "openai" else "chat")
    built_in = make_spec("openai/m", config=Config(), environ=environ)
    assert (built_in.base_url, built_in.api_key) == ("http://elsewhere/v1", "sk-openai-9")


@pytest.mark.parametrize("missing", ["LOCAL_KEY", "GATEWAY_TOKEN"])
def test_a_variable_that_is_not_set_is_named(tmp_path: Path, missing: str) -> None:
    config = read(tmp_path, FULL)
    with pytest.raises(UsageError, match=f"{missing} is not set"):
        make_spec("local/m", config, {name: value for name, value in ENVIRON.items() if name != missing})


def test_an_unknown_provider_is_told_those_of_the_file(tmp_path: Path) -> None:
    config = read(tmp_path, FULL)
    with pytest.raises(UnknownNameError, match="providers are fake, local, openai") as caught:
        make_spec("far/m", config, ENVIRON)
    assert "fbench.toml" in str(caught.value)
    with pytest.raises(UnknownNameError, match=r"did you mean local/qwen3\?"):
        make_spec("locl/qwen3", config, ENVIRON)


def test_prices_are_exact_and_lie_between_the_users_file_and_the_built_in_list(tmp_path: Path) -> None:
    config = read(
        tmp_path, FULL + '\n[providers.openai]\nbase_url = "http://h/v1"\nprices = {gpt-4o = {input = 7, output = 8}}'
    )
    priced = config.price_over(load_prices(), "local", "qwen3")
    assert priced is not None
    price = priced.price
    assert (price.input, price.cached_input, price.output) == (Decimal("0.2"), Decimal("0.02"), Decimal(1))
    assert config.price_over(load_prices(), "local", "other") is None
    over_built_in = config.price_over(load_prices(), "openai", "gpt-4o")
    assert over_built_in is not None
    assert over_built_in.price.input == 7
    user = tmp_path / "prices.yaml"
    user.write_text("models: {openai/gpt-4o: {input: 1, output: 2}}")
    from_user = config.price_over(load_prices(user), "openai", "gpt-4o")
    assert from_user is not None
    assert from_user.price.input == 1


A = "[providers.a]\nbase_url = 'http://h/v1'\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[providers.a]\nbase-url = 'http://h/v1'", ":2: providers.a.base-url: unknown key; did you mean 'base_url'?"),
        ("[providers.a]\nbase-url = 'http://h/v1'", ":1: providers.a.base_url: is missing"),
        ("[provider.a]\nbase_url = 'http://h/v1'", ":1: provider: unknown key; did you mean 'providers'?"),
        ("[providers.a]\nbase_url = 'h:80'", ":2: providers.a.base_url: is no address of a server"),
        ("[providers.a]\nbase_url = 5", ":2: providers.a.base_url: must be"),
        ("[providers.fake]\nbase_url = 'http://h/v1'", "'fake' is fbench's own"),
        ("[providers.replay]\nbase_url = 'http://h/v1'", "'replay' is fbench's own"),
        ("[providers.'a b']\nbase_url = 'http://h/v1'", "'a b' is no name of a provider"),
        (f"{A}api = 'chatt'", ":3: providers.a.api:"),
        (f"{A}api = 'chatt'", "responses"),
        (f"{A}api_key_env = 'sk-1-2'", "must be the name of an environment variable"),
        (f"{A}headers = {{'a b' = 'c'}}", "'a b' is no name of a header"),
        (f"{A}headers = {{A = 'env:'}}", "env:GATEWAY_TOKEN"),
        (f"{A}max_concurrency = 0", ":3: providers.a.max_concurrency:"),
        (f"{A}requests_per_minute = true", ":3: providers.a.requests_per_minute:"),
        (f"{A}[providers.a.prices]\nm = {{inptu = 1, output = 2}}", "did you mean 'input'?"),
        (f"{A}[providers.a.prices]\nm = {{input = -1, output = 2}}", ":4: providers.a.prices.m"),
        (f"{A}[providers.a.models.'x/y']\nwindow = 5", ":4: providers.a.models.x/y.window"),
        ("[providers.a\n", "no valid TOML"),
        ("x = 1\nx = 2\n", "no valid TOML"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_the_next_step(tmp_path: Path, text: str, words: str) -> None:
    told = refuse(tmp_path, text)
    assert words in told, told
    assert all(line.startswith(str(tmp_path / "fbench.toml")) for line in told.splitlines())


def test_a_key_that_stands_where_its_variables_name_belongs_is_not_repeated(tmp_path: Path) -> None:
    assert "sk-1-2" not in refuse(tmp_path, "[providers.a]\nbase_url = 'http://h/v1'\napi_key_env = 'sk-1-2'")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for broken in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UsageError, match="--config"):
            load_config(broken)
    (tmp_path / "latin.toml").write_bytes(b"# \xff")
    with pytest.raises(UsageError, match="cannot read"):
        load_config(tmp_path / "latin.toml")
    big = tmp_path / "big.toml"
    big.touch()
    os.truncate(big, 2 << 20)
    with pytest.raises(UsageError, match="longer than"):
        load_config(big)


def test_the_example_of_the_documentation_is_a_config(tmp_path: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "models.md"
    (example,) = re.findall(r"^```toml\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    config = read(tmp_path, example)
    environ = {"GATEWAY_KEY": "key-of-gateway", "GATEWAY_TOKEN": "token-of-gateway"}
    spec = make_spec("gateway/org/model:7b", config, environ)
    assert (spec.api, spec.context_window, spec.requests_per_minute) == ("responses", 131_072, 600)
    assert set(spec.secrets) == set(environ.values())
    documented = {key for key in Provider.model_fields if re.search(rf"\b{key}\b", example)}
    assert documented == set(Provider.model_fields)


def test_a_replayed_model_needs_no_key_and_no_header(tmp_path: Path) -> None:
    config = read(tmp_path, FULL)
    with pytest.raises(UsageError, match="LOCAL_KEY is not set"):
        make_spec("local/qwen3", config, {})
    spec = make_spec("local/qwen3", config, {}, is_replayed=True)
    assert (spec.api_key, dict(spec.headers), spec.secrets) == (None, {"X-Team": "evals"}, ())
