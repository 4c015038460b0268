"""The fakes: they act only by what they answer, cost nothing, and say clearly why a script is none."""

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fbench.engine.agents.json_text import read_calls
from fbench.engine.errors import UnknownNameError, UsageError
from fbench.engine.models.names import ModelSpec, open_model
from fbench.engine.models.script import load_script
from fbench.engine.seams import Message, ModelReply, ModelRequest, Usage
from fbench.tasks.manifest import TaskManifest

HELLO = ModelRequest(messages=[Message("user", "Hello")])


def task(**facts: Any) -> Any:
    """What a fake looks at of a loaded task."""
    document: dict[str, Any] = {
        "id": "demo",
        "title": "Demo",
        "difficulty": "easy",
        "domain": "demo",
        "agent": {"prompt_text": "Do it."},
        "solution": "solution/solve.sh",
        "grader": {"checks": [{"id": "a", "type": "file_present", "path": "a"}]},
    }
    return SimpleNamespace(manifest=TaskManifest.model_validate({**document, **facts}))


async def play(name: str, turns: int, **spec: Any) -> list[ModelReply]:
    async with open_model(ModelSpec(name, **spec)) as model:
        assert model.is_free
        assert model.name == name
        return [await model.complete(HELLO) for _ in range(turns)]


def script(folder: Path, text: str) -> str:
    path = folder / "script.yaml"
    path.write_text(text, encoding="utf-8")
    return f"fake/script:{path}"


async def test_nop_submits_in_every_turn() -> None:
    for reply in await play("fake/nop", 2):
        (call,) = reply.tool_calls
        assert (call.name, call.arguments) == ("submit", "{}")
        assert reply.usage == Usage()


async def test_nop_in_json_text_writes_a_call_the_parser_reads() -> None:
    (reply,) = await play("fake/nop", 1, style="json_text")
    assert reply.tool_calls == ()
    (call,) = read_calls(reply.content).calls
    assert (call.name, call.arguments) == ("submit", "{}")


@pytest.mark.parametrize("tool", ["bash", "python"])
async def test_the_oracle_runs_the_solution_in_the_workspace_then_submits(tool: str, tmp_path: Path) -> None:
    solution, workspace = tmp_path / "sol ution", tmp_path / "work space"
    (solution / "deep er").mkdir(parents=True)
    workspace.mkdir()
    (solution / "deep er" / "it's.sh").write_text('pwd > done; echo "$0" >> done\n')
    loaded = task(solution="solution/deep er/it's.sh", tools={"allow": [tool]})
    solve, submit, again = await play("fake/oracle", 3, task=loaded)
    arguments = json.loads(solve.tool_calls[0].arguments)
    assert (solve.tool_calls[0].name, arguments["timeout_s"]) == (tool, 3600)
    assert [reply.tool_calls[0].name for reply in (submit, again)] == ["submit", "submit"]
    argv = ["bash", "-c", arguments["command"]] if tool == "bash" else [sys.executable, "-c", arguments["code"]]
    env = {**os.environ, "FBENCH_SOLUTION": str(solution), "FBENCH_WORKSPACE": str(workspace)}
    await anyio.run_process(argv, env=env, cwd=tmp_path)
    assert (workspace / "done").read_text().splitlines() == [str(workspace), str(solution / "deep er" / "it's.sh")]


async def test_the_oracle_in_json_text_writes_a_call_the_parser_reads() -> None:
    native, _ = await play("fake/oracle", 2, task=task())
    solve, submit = await play("fake/oracle", 2, task=task(), style="json_text")
    assert read_calls(solve.content).calls[0].arguments == native.tool_calls[0].arguments
    assert read_calls(submit.content).calls[0].name == "submit"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "no task was given"),
        (task(solution=None), "has no `solution`"),
        (task(solution="solve.sh"), "must be a file in its folder solution/"),
        (task(solution="solution"), "must be a file in its folder solution/"),
        (task(tools={"allow": ["git_diff"]}), "needs the tool bash or python"),
    ],
)
async def test_an_oracle_that_cannot_play_says_why(given: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        await play("fake/oracle", 1, task=given)


@pytest.mark.parametrize("name", ["fake/oracel", "fake/script:", "fake/script", "fake/judge:"])
async def test_an_unknown_fake_is_told_what_is_known(name: str) -> None:
    with pytest.raises(
        UnknownNameError, match=r"known are fake/oracle, fake/nop, fake/script:FILE and fake/judge:FILE"
    ):
        await play(name, 1)


SCRIPT = """
turns:
  - content: "I look around."
    tool_calls: [{name: bash, arguments: {command: "ls -la"}}]
    usage: {input: 120, cached_input: 20, output: 15}
    latency_s: 0.0
  - content: "Done."
"""


async def test_a_script_is_played_then_has_answered(tmp_path: Path) -> None:
    first, second, third, fourth = await play(script(tmp_path, SCRIPT), 4)
    assert first.content == "I look around."
    (call,) = first.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("bash", {"command": "ls -la"})
    assert call.id
    assert first.usage == Usage(input=100, cache_read=20, output=15)
    assert (second.content, second.tool_calls, second.usage) == ("Done.", (), Usage())
    assert third.content
    assert third.tool_calls == ()
    assert fourth == third


async def test_a_script_in_json_text_writes_its_calls_and_submits_at_its_end(tmp_path: Path) -> None:
    name = script(tmp_path, "turns: [{content: 'I {look}.', tool_calls: [{name: bash, arguments: {command: ls}}]}]")
    first, end = await play(name, 2, style="json_text")
    assert first.tool_calls == ()
    assert first.content.startswith("I {look}.\n\n```json\n")
    assert [(call.name, call.arguments) for call in read_calls(first.content).calls] == [("bash", '{"command": "ls"}')]
    assert read_calls(end.content).calls[0].name == "submit"


async def test_raw_arguments_and_ids_are_sent_as_they_stand(tmp_path: Path) -> None:
    name = script(tmp_path, "turns: [{tool_calls: [{name: bash, arguments: '{broken', id: ''}, {name: f, id: x}]}]")
    (reply,) = await play(name, 1)
    assert [(call.id, call.name, call.arguments) for call in reply.tool_calls] == [
        ("", "bash", "{broken"),
        ("x", "f", "{}"),
    ]
    (text,) = await play(name, 1, style="json_text")
    assert '{"tool": "bash", "arguments": {broken}' in text.content


async def test_a_loop_begins_again(tmp_path: Path) -> None:
    replies = await play(script(tmp_path, "turns: [{content: a}, {content: b}]\nloop: true"), 5)
    assert [reply.content for reply in replies] == ["a", "b", "a", "b", "a"]


async def test_latency_is_waited_for(tmp_path: Path) -> None:
    begun = time.monotonic()
    await play(script(tmp_path, "turns: [{content: a, latency_s: 0.3}]"), 1)
    assert time.monotonic() - begun >= 0.3


async def test_the_estimate_is_the_next_turns_usage(tmp_path: Path) -> None:
    async with open_model(ModelSpec(script(tmp_path, SCRIPT))) as model:
        estimate = model.estimate(HELLO)
        assert (estimate.input, estimate.min_output) == (120, 15)
        await model.complete(HELLO)
        estimate = model.estimate(HELLO)
        assert (estimate.input, estimate.min_output) == (0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "turns:\n  - content: a\n    tool_call: []\n",
            "{}:3: turns[0].tool_call: unknown key; did you mean 'tool_calls'?",
        ),
        ("turns:\n  - usage:\n      imput: 3\n", "{}:3: turns[0].usage.imput: unknown key; did you mean 'input'?"),
        ("trns: []\n", "{}:1: turns: is missing"),
        ("turns: []\n", "{}:1: turns: a script needs at least one turn"),
        ("turns:\n- content: a\n- latency_s: -1\n", "{}:3: turns[1].latency_s: Input should be greater than or equal"),
        ("turns:\n- tool_calls:\n  - arguments: {}\n", "{}:3: turns[0].tool_calls[0].name: is missing"),
        ("turns:\n- usage: {input: 1, cached_input: 2}\n", "{}:2: turns[0].usage: `cached_input` is a part of `input`"),
        ("turns:\n- content: 5\n", "{}:2: turns[0].content: must be a text, not 5"),
        ("", "{}:1: the file is empty"),
        ("just text", "{}:1: the script: must be a mapping"),
        ("turns:\n- content: b: c\n", "{}:2: no valid YAML"),
        ("turns: \x07", "{}:1: the character"),
        ("turns: [{content: a}]\nloop: 0o17\nloop: true", "{}:3: loop: key given twice"),
        pytest.param("[" * 100_000, "{}:1: nested deeper than 40 levels", id="deep"),
        ("turns: {a: 1}", "{}:1: turns: must be a list"),
        ("turns: [3]", "{}:1: turns[0]: must be a mapping, not 3"),
        (
            "turns: [{tool_calls: [{name: a, arguments: [1]}]}]",
            "{}:1: turns[0].tool_calls[0].arguments: must be a mapping, or a text that is sent as it stands",
        ),
    ],
)
async def test_a_broken_script_is_told_by_file_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    name = script(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        await play(name, 1)
    assert message.format(tmp_path / "script.yaml") in str(caught.value)


def test_every_problem_of_a_script_is_told_at_once(tmp_path: Path) -> None:
    script(tmp_path, "turns:\n- {contnt: a}\n- {content: 3}\nlop: true\n")
    with pytest.raises(UsageError) as caught:
        load_script(tmp_path / "script.yaml")
    told = sorted(line.partition("script.yaml")[2][:3] for line in str(caught.value).splitlines())
    assert told == [":2:", ":3:", ":4:"]


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "binary"])
async def test_a_script_that_cannot_be_read_is_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "script.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "binary":
        path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"script\.yaml"):
        await play(f"fake/script:{path}", 1)


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["turns", "content", "tool_calls", "name", "arguments", "usage", "input", "loop", "x"]),
            inner,
        )
    ),
)


@given(DOCUMENTS | st.fixed_dictionaries({"turns": st.lists(DOCUMENTS, min_size=1)}))
@settings(max_examples=200, deadline=None)
def test_any_document_is_a_script_or_a_usage_error(tmp_path_factory: pytest.TempPathFactory, document: object) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed-script.yaml"
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    with contextlib.suppress(UsageError):
        assert load_script(path).turns
