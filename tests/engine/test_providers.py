"""Whole runs against servers that fbench.toml names, and with model options."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fbench.engine import Engine, RunOptions, RunResult
from fbench.engine.errors import UsageError
from fbench.engine.plan import make_plan

if TYPE_CHECKING:
    from tests.engine.conftest import MakeTask
    from tests.loopback.server import LoopbackServer

KEY, TOKEN, WRITTEN = "sk-provider-key-0123", "gateway-token-4567", "written-secret-89"
ENVIRON = {"MINE_KEY": KEY, "GATEWAY": f"Bearer {TOKEN}", "OPENAI_API_KEY": "sk-of-openai-0000"}


@pytest.fixture
def config(tmp_path: Path, loopback: "LoopbackServer") -> Path:
    """A fbench.toml with two providers at the loopback server."""
    file = tmp_path / "fbench.toml"
    file.write_text(f"""
[providers.mine]
base_url = "{loopback.url}"
api_key_env = "MINE_KEY"
headers = {{X-Gateway = "env:GATEWAY", X-Api-Token = "{WRITTEN}", X-Team = "evals"}}
prices = {{"org/m" = {{input = 1, output = 2}}}}
[providers.mine.models.thinker]
api = "responses"

[providers.open]
base_url = "{loopback.url}"
""")
    return file


async def run(task: Path, tmp_path: Path, model: str, config: Path | None, **options: Any) -> tuple[RunResult, Path]:
    given = {
        "task": task,
        "model": model,
        "sandbox": "local",
        "runs_dir": tmp_path / "runs",
        "config": config,
        **options,
    }
    async with Engine(environ=ENVIRON) as engine:
        result = await engine.run(RunOptions.model_validate(given))
    return result, tmp_path / "runs" / result.run_id


def snapshot(folder: Path) -> dict[str, Any]:
    model: dict[str, Any] = yaml.safe_load((folder / "manifest.snapshot.yaml").read_text())["model"]
    return model


async def test_a_run_reaches_a_provider_and_leaves_none_of_its_secrets(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path, config: Path
) -> None:
    secrets = f"{KEY} {TOKEN} {WRITTEN}"
    loopback.plan(
        loopback.error(500, f"bad: {secrets}"),
        loopback.say(secrets, tool_calls=[loopback.call("bash", {"command": f"echo {secrets} > done.txt; env"})]),
        loopback.submit(usage={"prompt_tokens": 10, "completion_tokens": 5, "note": secrets}, model=KEY),
    )
    result, folder = await run(make_task(), tmp_path, "mine/org/m", config)
    assert (result.status, result.model, result.passed) == ("completed", "mine/org/m", True)
    assert result.cost_status == "exact"
    assert result.cost_usd == pytest.approx((21 * 1 + 12 * 2) / 1e6)
    for request in loopback.requests:
        assert request.json["model"] == "org/m"
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["x-gateway"] == f"Bearer {TOKEN}"
        assert (request.headers["x-api-token"], request.headers["x-team"]) == (WRITTEN, "evals")
    for path in folder.rglob("*"):
        if path.is_file() and "workspace" not in str(path.relative_to(folder)):  # what the model wrote there is its own
            left = [secret for secret in (KEY, TOKEN, WRITTEN) if secret.encode() in path.read_bytes()]
            assert left == [], path


async def test_a_provider_without_a_key_gets_none_of_anybodys(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path, config: Path
) -> None:
    loopback.plan(loopback.submit())
    result, _ = await run(make_task(), tmp_path, "open/qwen3", config)
    assert (result.status, result.cost_status) == ("completed", "unknown")
    assert "authorization" not in loopback.requests[0].headers


@pytest.mark.parametrize(
    ("model", "section", "told"),
    [
        ("openai/gpt-4o", "", (128_000, True)),  # wherever --base-url leads
        ("openai/gpt-4o-2099-01-01", "", (None, False)),
        ("openai/gpt-4o", "[providers.openai]\n", (128_000, True)),
        ("openai/gpt-4o", "[providers.openai]\nprices = {gpt-4o = {input = 1, output = 2}}\n", (128_000, True)),
        ("openai/gpt-4o", "[providers.openai]\nmodels = {gpt-4o = {context_window = 9000}}\n", (9000, False)),
        ("openai/gpt-4o", "[providers.openai]\nmodels = {gpt-4o = {api = 'chat'}}\n", (128_000, True)),
        ("near/gpt-4o", "[providers.near]\n", (None, False)),
        ("near/qwen3", "[providers.near]\nprices = {qwen3 = {input = 1, output = 2}}\n", (32_000, True)),
    ],
)
async def test_a_window_is_that_of_the_config_else_that_of_exactly_this_name_in_the_table(
    make_task: "MakeTask", tmp_path: Path, model: str, section: str, told: tuple[int | None, bool]
) -> None:
    file, prices = tmp_path / "fbench.toml", tmp_path / "prices.yaml"
    file.write_text(section.replace("]\n", "]\nbase_url = 'http://127.0.0.1:1/v1'\n"))
    prices.write_text("models: {near/qwen3: {input: 3, output: 4, context_window: 32000}}\n")
    options = RunOptions(
        task=make_task(), model=model, sandbox="local", config=file, prices=prices, base_url="http://127.0.0.1:1/v1"
    )
    plan = await make_plan(options, ENVIRON)
    assert (plan.model.context_window, plan.model.is_window_hint) == told


async def test_a_free_model_has_no_window(make_task: "MakeTask") -> None:
    plan = await make_plan(RunOptions(task=make_task(), model="fake/nop", sandbox="local"), {})
    assert (plan.model.context_window, plan.model.is_window_hint) == (None, False)


async def test_the_library_reads_no_file_that_it_is_not_given(
    make_task: "MakeTask", tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    with pytest.raises(UsageError, match="unknown provider 'open'"):
        await run(make_task(), tmp_path, "open/qwen3", None)


async def test_reasoning_is_kept_through_a_run_and_out_of_its_transcript(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path, config: Path
) -> None:
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 40},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 15},
    }
    loopback.plan(
        loopback.respond(
            "Now.",
            reasoning="gAAAA1",
            calls=[loopback.function_call("bash", {"command": "touch done.txt"})],
            usage=usage,
        ),
        loopback.respond(None, reasoning="gAAAA2", calls=[loopback.function_call("submit", {}, "call_2")], usage=usage),
    )
    result, folder = await run(make_task(), tmp_path, "mine/thinker", config, reasoning_effort="high")
    assert (result.status, result.end_reason, result.passed) == ("completed", "submitted", True)
    assert result.tokens.model_dump() == {"input": 200, "cached_input": 80, "output": 40, "reasoning": 30, "total": 240}
    first, second = (request.json for request in loopback.requests)
    assert first["reasoning"] == {"effort": "high"}
    kinds = [item["type"] for item in second["input"]]
    assert kinds == ["message", "message", "reasoning", "message", "function_call", "function_call_output"]
    assert second["input"][2]["encrypted_content"] == "gAAAA1"
    assert "gAAAA" not in (folder / "transcript.jsonl").read_text()


async def test_options_of_the_model_replace_the_manifests_and_stand_in_the_snapshot(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path, config: Path
) -> None:
    loopback.plan(loopback.submit())
    task = make_task(model={"temperature": 1.0, "top_p": 0.9, "seed": 1, "reasoning_effort": "low"})
    options = {"temperature": 0.0, "top_p": "none", "seed": "none", "reasoning_effort": "none", "max_output_tokens": 99}
    _, folder = await run(task, tmp_path, "open/m", config, **options)
    settings = {"temperature": 0.0, "reasoning_effort": "none"}
    assert snapshot(folder) == {**settings, "top_p": None, "seed": None, "max_output_tokens": 99}
    body = loopback.requests[0].json
    assert {key: body[key] for key in body if key not in {"messages", "tools", "model"}} == {
        **settings,
        "max_tokens": 99,
    }


async def test_the_word_default_leaves_the_effort_to_the_server(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path, config: Path
) -> None:
    loopback.plan(loopback.submit())
    task = make_task(model={"reasoning_effort": "low"})
    _, folder = await run(task, tmp_path, "open/m", config, reasoning_effort="default")
    assert snapshot(folder)["reasoning_effort"] is None
    assert "reasoning_effort" not in loopback.requests[0].json


async def test_what_a_task_asks_of_a_reasoning_model_in_vain_is_left_out_and_said_once(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    loopback.plan(loopback.say("", tool_calls=[loopback.call("bash", {"command": "true"})]), loopback.submit())
    task = make_task(model={"temperature": 0.0, "top_p": 0.5, "seed": 3})
    _, folder = await run(task, tmp_path, "openai/o3", None, base_url=loopback.url)
    assert (snapshot(folder)["temperature"], snapshot(folder)["top_p"], snapshot(folder)["seed"]) == (None, None, 3)
    assert all(not {"temperature", "top_p"} & set(request.json) for request in loopback.requests)
    lines = [json.loads(line) for line in (folder / "transcript.jsonl").read_text().splitlines()]
    warnings = [line["message"] for line in lines if line["type"] == "warning"]
    assert [message for message in warnings if "is not sent" in message] == [
        "the manifest's model.temperature is not sent: openai/o3 is a reasoning model and takes none",
        "the manifest's model.top_p is not sent: openai/o3 is a reasoning model and takes none",
    ]


@pytest.mark.parametrize(
    ("model", "option"),
    [
        ("openai/o3", {"temperature": 0.0}),
        ("openai/gpt-5-mini", {"top_p": 0.5}),
        ("openai/gpt-5.1-codex", {"seed": 3}),
        ("mine/thinker", {"seed": 3}),
    ],
)
async def test_an_option_that_cannot_be_sent_is_refused_before_anything_runs(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path, config: Path, model: str, option: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=f"--{next(iter(option)).replace('_', '-')} cannot be sent"):
        await run(make_task(), tmp_path, model, config, **option)
    assert loopback.requests == []
    assert not (tmp_path / "runs").exists()


def fbench(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FBENCH_", "OPENAI_"))}
    return subprocess.run(
        [sys.executable, "-P", "-c", "from fbench.engine.cli import main; main()", *arguments],
        cwd=folder,
        env={**kept, "PYTHONSAFEPATH": "1", "MINE_KEY": KEY, "GATEWAY": TOKEN, **more},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_line_finds_the_file_of_the_working_folder_or_the_one_it_is_told(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path, config: Path
) -> None:
    task = make_task()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = ("run", "--task", str(task), "--model", "open/qwen3", "--sandbox", "local", "--json", "--quiet")
    for folder, arguments, environ in (
        (config.parent, (), {}),
        (elsewhere, ("--config", str(config)), {}),
        (elsewhere, (), {"FBENCH_CONFIG": str(config)}),
    ):
        loopback.plan(loopback.submit())
        done = fbench(folder, *command, *arguments, **environ)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["model"] == "open/qwen3"
    without = fbench(elsewhere, *command)
    assert without.returncode == 2
    assert "fbench.toml" in without.stderr


def test_model_options_are_options_and_variables(
    loopback: "LoopbackServer", make_task: "MakeTask", config: Path
) -> None:
    loopback.plan(loopback.submit())
    options = ("--temperature", "0.5", "--top-p", "none", "--seed", "7", "--reasoning-effort", "high")
    command = ("run", "--task", str(make_task()), "--model", "open/m", "--sandbox", "local", "--quiet", *options)
    done = fbench(config.parent, *command, FBENCH_MAX_OUTPUT_TOKENS="123", FBENCH_TOP_P="0.1")
    assert done.returncode == 0, done.stderr
    body = loopback.requests[0].json
    assert (body["temperature"], body["seed"], body["reasoning_effort"], body["max_tokens"]) == (0.5, 7, "high", 123)
    assert "top_p" not in body


@pytest.mark.parametrize(
    "option", [("--temperature", "-1"), ("--temperature", "nan"), ("--top-p", "0"), ("--max-output-tokens", "none")]
)
def test_a_value_that_is_none_is_wrong_usage(make_task: "MakeTask", config: Path, option: tuple[str, str]) -> None:
    done = fbench(config.parent, "run", "--task", str(make_task()), "--model", "open/m", *option)
    assert done.returncode == 2
    assert option[0] in done.stderr


def test_a_variable_that_holds_a_key_is_blanked_in_the_processs_own_environment(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    (tmp_path / "fbench.toml").write_text(f'[providers.p]\nbase_url = "{loopback.url}"\napi_key_env = "MINE"\n')
    look = "cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c '^MINE=plain-looking' || true"
    loopback.plan(loopback.say("", tool_calls=[loopback.call("bash", {"command": look})]), loopback.submit())
    command = ("run", "--task", str(make_task()), "--model", "p/m", "--sandbox", "local", "--quiet")
    done = fbench(tmp_path, *command, MINE="plain-looking-key-1")
    assert done.returncode == 0, done.stderr
    assert loopback.requests[0].headers["authorization"] == "Bearer plain-looking-key-1"
    assert loopback.requests[1].json["messages"][-1]["content"].strip() == "0"


async def test_the_ledger_adds_up_to_what_a_server_of_responses_saw(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path, config: Path
) -> None:
    loopback.plan(
        loopback.error(429, "slow down", retry_after="0"),
        loopback.html(),
        loopback.respond("", calls=[loopback.function_call("bash", {"command": "touch done.txt"}, "")]),
        loopback.cut_json(),
        loopback.reset(),
        loopback.respond(status="failed", error={"code": "server_error", "message": "no"}, output=[], usage=None),
        loopback.respond(
            None,
            status="incomplete",
            incomplete_details={"reason": "max_output_tokens"},
            calls=[loopback.function_call("bash", '{"command": "tou')],
        ),
        loopback.respond(None, calls=[loopback.function_call("submit", {})]),
    )
    result, folder = await run(make_task(), tmp_path, "mine/thinker", config)
    assert (result.status, result.end_reason, result.passed, result.turns) == ("completed", "submitted", True, 3)
    lines = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    assert len(lines) == len(loopback.requests) == 8
    assert (result.tokens.input, result.tokens.output) == loopback.tokens_served()
    assert loopback.requests[-1].json["input"][-2]["arguments"] == "{}"


async def test_a_conversation_moves_to_the_other_api_when_the_server_asks_for_it(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    words = "Function tools with reasoning_effort are not supported in /v1/chat/completions. Use /v1/responses."
    loopback.plan(
        loopback.say("I look.", tool_calls=[loopback.call("bash", {"command": "touch done.txt"}, "call_a")]),
        loopback.error(400, words),
        loopback.respond(None, calls=[loopback.function_call("submit", {}, "call_b")]),
    )
    result, folder = await run(make_task(), tmp_path, "openai/m", None, base_url=loopback.url, reasoning_effort="low")
    assert (result.status, result.passed) == ("completed", True)
    assert [request.path for request in loopback.requests] == [
        "/v1/chat/completions",
        "/v1/chat/completions",
        "/v1/responses",
    ]
    assert loopback.requests[2].json["input"][2:] == [
        {"type": "message", "role": "assistant", "content": "I look."},
        {"type": "function_call", "call_id": "call_a", "name": "bash", "arguments": '{"command": "touch done.txt"}'},
        {
            "type": "function_call_output",
            "call_id": "call_a",
            "output": loopback.requests[1].json["messages"][-1]["content"],
        },
    ]
    assert "the Responses API is asked from now on" in (folder / "transcript.jsonl").read_text()


async def test_base_url_wins_over_the_address_of_a_provider(
    loopback: "LoopbackServer", make_task: "MakeTask", tmp_path: Path
) -> None:
    file = tmp_path / "fbench.toml"
    file.write_text('[providers.mine]\nbase_url = "http://127.0.0.1:9/v1"\napi_key_env = "MINE_KEY"\n')
    loopback.plan(loopback.submit())
    result, _ = await run(make_task(), tmp_path, "mine/m", file, base_url=loopback.url)
    assert result.status == "completed"
    assert loopback.requests[0].headers["authorization"] == f"Bearer {KEY}"
