"""Model names and token estimates."""

import subprocess
import sys
from contextlib import asynccontextmanager
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

import pytest

from fbench.engine.errors import UnknownNameError
from fbench.engine.models import names
from fbench.engine.models.estimate import RequestMeter, estimate_message, estimate_reply, estimate_request
from fbench.engine.models.names import ModelName, ModelSpec, open_model, parse_model_name
from fbench.engine.seams import Message, ModelReply, ModelRequest, ToolCall, ToolSchema, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("openai/gpt-4o", ModelName("openai", "gpt-4o", "openai/gpt-4o")),
        (" fake/nop ", ModelName("fake", "nop", "fake/nop")),
        ("openai/org/model:7b", ModelName("openai", "org/model:7b", "openai/org/model:7b")),
        ("fake/script:/a/b.yaml", ModelName("fake", "script:/a/b.yaml", "fake/script:/a/b.yaml")),
    ],
)
def test_a_name_is_taken_apart_at_its_first_slash(text: str, parsed: ModelName) -> None:
    assert parse_model_name(text) == parsed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("opnai/gpt-4o", "did you mean openai/gpt-4o?"),
        ("gpt-4o", "did you mean openai/gpt-4o?"),
        ("record/2026-05-13", "unknown provider 'record'"),
        ("", "provider/name"),
        ("/x", "provider/name"),
        ("openai/", "lacks the part after the provider"),
    ],
)
def test_a_wrong_name_is_told_what_is_legal(text: str, words: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        parse_model_name(text)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_only_fakes_are_fake() -> None:
    assert parse_model_name("fake/nop").is_fake
    assert not parse_model_name("openai/fake").is_fake


def test_a_spec_never_shows_its_key() -> None:
    assert "sk-secret" not in repr(ModelSpec("openai/m", None, "sk-secret"))


@asynccontextmanager
async def open_outside(spec: ModelSpec) -> "AsyncIterator[str]":
    yield f"opened {spec.full_name}"


async def test_another_package_brings_a_provider_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("acme", "outside:open", "fbench.models")
    monkeypatch.setattr(EntryPoint, "load", lambda _self: open_outside)

    def entry_points(*, group: str) -> Any:
        assert group == "fbench.models"
        return (point,)

    monkeypatch.setattr(names, "entry_points", entry_points)
    async with open_model(ModelSpec("acme/m")) as model:
        assert str(model) == "opened acme/m"


def test_importing_the_models_imports_no_heavy_library() -> None:
    code = (
        "import sys, fbench.engine.models.openai, fbench.engine.models.calls, fbench.engine.models.fake\n"
        "print([name for name in ('openai', 'httpx', 'httpx2', 'aiosqlite') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_rule_counts_bytes_frames_calls_and_schemas() -> None:
    call = ToolCall("id", "bash", '{"command":"ls"}')
    assert estimate_message(Message("assistant", "ä" * 4, tool_calls=(call,))) == 4 + 2 + 1 + 4
    tool = ToolSchema("bash", "Runs.", {"type": "object"})
    request = ModelRequest([Message("user", "hello"), Message("user", "")], (tool,))
    assert estimate_request(request) == (4 + 2) + 4 + (1 + 2 + 5)
    assert estimate_reply(ModelReply("hello", (call,), reasoning="12345678")) == 2 + 5 + 2
    assert estimate_reply(ModelReply("")) == 1
    assert estimate_message(Message("user", "\ud800")) == 5


def test_the_meter_counts_each_message_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Message] = []

    def counting(message: Message) -> int:
        seen.append(message)
        return 10

    monkeypatch.setattr("fbench.engine.models.estimate.estimate_message", counting)
    meter, messages = RequestMeter(), [Message("user", str(number)) for number in range(100)]
    for _ in range(50):
        messages.append(Message("user", "new"))
        assert meter.estimate(ModelRequest(messages)) == 10 * len(messages)
    assert len(seen) == 150


def test_the_meter_agrees_with_the_rule_without_a_servers_count() -> None:
    meter, messages = RequestMeter(), [Message("system", "be good")]
    tool = ToolSchema("bash", "Runs.", {"type": "object"})
    for tools in ((), (tool,), (tool,), ()):
        messages.append(Message("user", "x" * len(messages) * 7))
        request = ModelRequest(list(messages), tools)
        assert meter.estimate(request) == estimate_request(request)
        assert meter.estimate(request) == estimate_request(request)
    rewritten = ModelRequest([Message("user", "short")])
    assert meter.estimate(rewritten) == estimate_request(rewritten)


def test_the_meter_takes_the_servers_count_and_leaves_out_reasoning() -> None:
    meter, messages = RequestMeter(), [Message("user", "x" * 1000)]
    meter.estimate(ModelRequest(messages))
    meter.observe(ModelRequest(messages), Usage(input=50, cache_read=30, output=40, reasoning=25))
    assert meter.estimate(ModelRequest(messages)) == 80
    messages.append(Message("assistant", "y" * 1000))
    assert meter.estimate(ModelRequest(messages)) == 80 + 15
    messages.append(Message("tool", "z" * 8, tool_call_id="a"))
    assert meter.estimate(ModelRequest(messages)) == 80 + 15 + 6
    other = [*messages[:1], Message("user", "not the answer")]
    meter.observe(ModelRequest(messages[:1]), Usage(input=80, output=40))
    assert meter.estimate(ModelRequest(other)) == 80 + 8
