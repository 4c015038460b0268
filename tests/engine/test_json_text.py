"""How a json_text reply is read: one object anywhere, whatever surrounds it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbench.engine.agents.json_text import read_calls

CALL = {"tool": "bash", "arguments": {"command": "ls"}}
TEXT = json.dumps(CALL)


@pytest.mark.parametrize(
    "reply",
    [
        TEXT,
        f"I look around first.\n{TEXT}\nThen I decide.",
        f"```json\n{TEXT}\n```",
        f"```\n{json.dumps(CALL, indent=2)}\n```",
        f'{{"thought": "hm"}} {TEXT}',
        f'{{"action": {TEXT}}}',
        f"set = {{1, 2}} and then {TEXT}",
        f"{{{{ braces }}}} {TEXT}",
        "<think>{</think>" + TEXT,
    ],
)
def test_a_call_is_found_anywhere(reply: str) -> None:
    calls = read_calls(reply).calls
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [("bash", {"command": "ls"})]


def test_a_real_newline_inside_a_string_is_forgiven() -> None:
    calls = read_calls('{"tool": "bash", "arguments": {"command": "cat <<X\nhello\nX"}}').calls
    assert json.loads(calls[0].arguments) == {"command": "cat <<X\nhello\nX"}


def test_several_calls_stay_in_order() -> None:
    calls = read_calls(f'{TEXT} and {{"tool": "submit"}}').calls
    assert [call.name for call in calls] == ["bash", "submit"]


def test_broken_json_says_what_is_wrong() -> None:
    reading = read_calls('{"tool": "bash", "arguments": {"command": "ls"')
    assert reading.calls == ()
    assert reading.broken is not None
    assert "delimiter" in reading.broken


@pytest.mark.parametrize(
    "before",
    [
        "if (x) { y(); } " * 1200,
        json.dumps([{"row": row} for row in range(1200)]),
        " ".join(json.dumps({"row": row}) for row in range(1200)),
    ],
)
def test_a_call_is_found_after_much_code_or_data(before: str) -> None:
    assert [call.name for call in read_calls(f"{before}\n{TEXT}").calls] == ["bash"]


def test_calls_inside_another_object_stay_in_order() -> None:
    calls = read_calls(f'{{"plan": {{"first": [{TEXT}], "then": {{"tool": "submit"}}}}}}').calls
    assert [call.name for call in calls] == ["bash", "submit"]


def test_a_call_inside_an_argument_is_no_call() -> None:
    outer = {"tool": "text_editor", "arguments": {"command": "create", "path": "a.json", "file_text": TEXT}}
    assert [call.name for call in read_calls(json.dumps(outer)).calls] == ["text_editor"]


@pytest.mark.parametrize(
    "noise",
    [
        "{" * 50_000,
        '{"a":' * 50_000,
        "[" * 50_000 + "{",
        '{"tool":' * 3000,
        '{"a":' * 900 + '"' + "x" * 5_000_000,
        '{"' * 1_000_000,
    ],
)
def test_noise_ends_in_time_and_is_no_call(noise: str) -> None:
    assert read_calls(noise).calls == ()


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    read_calls(text)


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()), st.text(alphabet="ab \n`", max_size=20))
def test_what_is_written_is_read_back(arguments: dict[str, object], prose: str) -> None:
    reply = prose + json.dumps({"tool": "x", "arguments": arguments}) + prose
    assert json.loads(read_calls(reply).calls[0].arguments) == arguments
