"""Whole runs in the local sandbox: what the agent does, what is counted, what is left behind."""

import json
import os
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import yaml

from fbench.engine import Engine, RunOptions, RunResult, UsageError
from fbench.engine import run as run_module
from fbench.engine.events import Event, RunFinished, ToolStarted
from fbench.engine.records.diff import diff_trees
from fbench.engine.scratch import scratch_root

if TYPE_CHECKING:
    from tests.engine.conftest import MakeScript, MakeTask, RunLocal

LONG_S = 120
SUBMIT: dict[str, Any] = {"name": "submit", "arguments": {}}


def bash(command: str, **arguments: Any) -> dict[str, Any]:
    """A tool call of a script."""
    return {"name": "bash", "arguments": {"command": command, **arguments}}


def is_alive(pid: str) -> bool:
    """Whether a process of that pid exists."""
    return Path(f"/proc/{int(pid)}").exists()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every line of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def test_the_oracle_passes_and_leaves_every_file(make_task: "MakeTask", run_local: "RunLocal") -> None:
    result, folder = await run_local(make_task(), "fake/oracle")
    assert (result.status, result.end_reason, result.passed, result.score) == ("completed", "submitted", True, 1.0)
    assert (result.turns, result.tool_calls, result.cost_usd, result.cost_status) == (2, 1, 0.0, "exact")
    assert result.isolated is False
    assert {path.name for path in folder.iterdir()} == {
        "manifest.snapshot.yaml",
        "transcript.jsonl",
        "ledger.jsonl",
        "workspace_final",
        "workspace.diff",
        "grader_outputs",
        "result.json",
    }
    assert (folder / "workspace_final" / "done.txt").read_text() == "done\n"
    assert b"+done" in (folder / "workspace.diff").read_bytes()
    types = [line["type"] for line in read_lines(folder / "transcript.jsonl")]
    assert types[0] == "run_started"
    assert types[-1] == "run_finished"
    assert types.index("tool_started") < types.index("tool_finished") < types.index("check_finished")
    assert [line["seq"] for line in read_lines(folder / "transcript.jsonl")] == list(range(1, len(types) + 1))
    assert len(read_lines(folder / "ledger.jsonl")) == 2


async def test_blanks_around_a_models_name_are_no_part_of_it(make_task: "MakeTask", run_local: "RunLocal") -> None:
    result, _ = await run_local(make_task(), " fake/oracle\n")
    assert (result.model, result.passed) == ("fake/oracle", True)


async def test_doing_nothing_fails_and_changes_nothing(make_task: "MakeTask", run_local: "RunLocal") -> None:
    result, folder = await run_local(make_task(), "fake/nop")
    assert (result.status, result.passed, result.score) == ("completed", False, 0.0)
    assert (folder / "workspace.diff").read_bytes() == b""


@pytest.mark.parametrize("changes", ["few", "many"])
async def test_what_changed_in_a_little_workspace_is_found_on_the_loop_unless_that_takes_long(
    make_task: "MakeTask",
    make_script: "MakeScript",
    run_local: "RunLocal",
    monkeypatch: pytest.MonkeyPatch,
    changes: str,
) -> None:
    lines = {"few": ("a", "b"), "many": ("ab" * 1500, "ba" * 700 + "aab" * 300)}
    before, after = ("\n".join(text) for text in lines[changes])
    task = make_task(files={"workspace/letters.txt": before}, tools={"allow": ["bash", "text_editor"]})
    write = {"name": "text_editor", "arguments": {"command": "create", "path": "letters.txt", "file_text": after}}
    threads: list[int] = []
    write_diff = run_module._write_diff

    def note(*arguments: Any) -> bool:
        threads.append(threading.get_ident())
        return write_diff(*arguments)

    monkeypatch.setattr(run_module, "_write_diff", note)
    _, folder = await run_local(task, make_script([{"tool_calls": [write]}, {"tool_calls": [SUBMIT]}]))
    assert (len(threads), threads[-1] == threading.get_ident()) == {"few": (1, True), "many": (2, False)}[changes]
    patch = (folder / "workspace.diff").read_bytes()
    assert patch == diff_trees(task / "workspace", folder / "workspace_final")
    assert b"letters.txt" in patch


async def test_the_oracle_goes_through_the_text_parser_in_json_text(
    make_task: "MakeTask", run_local: "RunLocal"
) -> None:
    task = make_task(tools={"style": "json_text"})
    result, folder = await run_local(task, "fake/oracle")
    assert result.passed is True
    said = [line for line in read_lines(folder / "transcript.jsonl") if line.get("role") == "assistant"]
    assert all(line["tool_calls"] == [] for line in said)
    assert '"tool": "bash"' in said[0]["content"]


async def test_a_wall_time_breach_ends_a_command_and_its_daemon(
    make_task: "MakeTask", make_script: "MakeScript", run_local: "RunLocal"
) -> None:
    daemon = "(setsid sh -c 'echo $$ > daemon.pid; trap \"\" TERM; sleep 300' &) ; "
    model = make_script([{"tool_calls": [bash(f"echo half > done.txt; {daemon} sleep 300", timeout_s=LONG_S)]}])
    started = time.monotonic()
    result, folder = await run_local(make_task(), model, max_wall_time=1.5)
    assert (result.status, result.kill_reason) == ("killed", "budget_exceeded:wall_time")
    assert (result.end_reason, result.passed) == (None, True)
    assert time.monotonic() - started < LONG_S / 2
    assert not is_alive((folder / "workspace_final" / "daemon.pid").read_text())
    cut = next(line for line in read_lines(folder / "transcript.jsonl") if line["type"] == "tool_finished")
    assert "cut off" in cut["output"]


async def test_a_wall_time_breach_ends_a_models_answer(
    make_task: "MakeTask", make_script: "MakeScript", run_local: "RunLocal"
) -> None:
    model = make_script([{"content": "thinking", "latency_s": LONG_S}])
    result, folder = await run_local(make_task(), model, max_wall_time=0.3)
    assert (result.status, result.kill_reason, result.turns) == ("killed", "budget_exceeded:wall_time", 0)
    ledger = read_lines(folder / "ledger.jsonl")
    assert [line["error"] for line in ledger] == ["cancelled"]


@pytest.mark.parametrize(
    ("caps", "kill_reason", "calls"),
    [
        ({"max_tool_calls": 2}, "tool_calls", 2),
        ({"max_turns": 3}, "turns", 3),
        ({"max_tokens": 250}, "tokens", 2),
        ({"max_tokens": 300}, "tokens", 3),
    ],
)
async def test_a_cap_allows_just_that_much(
    make_task: "MakeTask",
    make_script: "MakeScript",
    run_local: "RunLocal",
    caps: dict[str, Any],
    kill_reason: str,
    calls: int,
) -> None:
    turn = {"tool_calls": [bash("echo x >> log")], "usage": {"input": 90, "output": 10}}
    result, folder = await run_local(make_task(), make_script([turn], loop=True), **caps)
    assert result.kill_reason == f"budget_exceeded:{kill_reason}"
    assert result.tool_calls == calls
    assert (folder / "workspace_final" / "log").read_text() == "x\n" * calls
    assert result.tokens.total == 100 * result.turns


async def test_none_lifts_the_manifests_cap(
    make_task: "MakeTask", make_script: "MakeScript", run_local: "RunLocal"
) -> None:
    task = make_task(budget={"tool_calls": 1})
    model = make_script([{"tool_calls": [bash("true"), bash("true"), SUBMIT]}])
    killed, _ = await run_local(task, model)
    lifted, folder = await run_local(task, model, max_tool_calls="none")
    assert (killed.status, lifted.status) == ("killed", "completed")
    assert yaml.safe_load((folder / "manifest.snapshot.yaml").read_text())["budget"]["tool_calls"] is None


async def test_three_unusable_replies_in_a_row_end_the_run(
    make_task: "MakeTask", make_script: "MakeScript", run_local: "RunLocal"
) -> None:
    turns = [
        {"tool_calls": [{"name": "no_such_tool", "arguments": {}}]},
        {"tool_calls": [{"name": "bash", "arguments": {"cmd": "ls"}}]},
        {"tool_calls": [bash("true")]},
        {"content": ""},
        {"tool_calls": [{"name": "bash", "arguments": '{"command": "ls'}]},
        {"content": "  \n"},
        {"tool_calls": [bash("echo late > done.txt")]},
    ]
    result, folder = await run_local(make_task(), make_script(turns))
    assert (result.status, result.end_reason) == ("completed", "unusable_replies")
    assert (result.turns, result.tool_calls) == (6, 1)
    assert not (folder / "workspace_final" / "done.txt").exists()
    corrections = [
        line["content"] for line in read_lines(folder / "transcript.jsonl") if line.get("role") in {"tool", "user"}
    ]
    assert "no_such_tool" in corrections[1]
    assert "bash, python, text_editor, git_diff, submit" in corrections[1]
    assert "cmd" in corrections[2]
    assert '"command"' in corrections[2]


async def test_content_without_a_call_answers_in_native(
    make_task: "MakeTask", make_script: "MakeScript", run_local: "RunLocal"
) -> None:
    result, _ = await run_local(make_task(), make_script([{"content": "Done."}]))
    assert (result.status, result.end_reason) == ("completed", "answered")


async def test_content_without_a_call_is_unusable_in_json_text(
    make_task: "MakeTask", make_script: "MakeScript", run_local: "RunLocal"
) -> None:
    turns = [{"content": "Done."}] * 3
    result, folder = await run_local(make_task(tools={"style": "json_text"}), make_script(turns))
    assert result.end_reason == "unusable_replies"
    users = [line["content"] for line in read_lines(folder / "transcript.jsonl") if line.get("role") == "user"]
    assert all("tool" in text for text in users[1:])


async def test_calls_after_a_submit_are_not_run(
    make_task: "MakeTask", make_script: "MakeScript", run_local: "RunLocal"
) -> None:
    model = make_script([{"tool_calls": [bash("touch a"), SUBMIT, bash("touch b")]}])
    result, folder = await run_local(make_task(), model)
    assert (result.end_reason, result.tool_calls) == ("submitted", 1)
    assert (folder / "workspace_final" / "a").exists()
    assert not (folder / "workspace_final" / "b").exists()


async def test_further_user_messages_come_after_each_submit(
    make_task: "MakeTask", make_script: "MakeScript", run_local: "RunLocal"
) -> None:
    task = make_task(agent={"prompt_text": "first", "turns": ["second", "third"]})
    result, folder = await run_local(task, make_script([{"tool_calls": [SUBMIT]}], loop=True))
    assert (result.end_reason, result.turns) == ("submitted", 3)
    users = [line["content"] for line in read_lines(folder / "transcript.jsonl") if line.get("role") == "user"]
    assert users == ["first", "second", "third"]


@pytest.mark.parametrize("style", ["native", "json_text"])
@pytest.mark.parametrize(("model", "passed", "tool_calls"), [("fake/nop", False, 0), ("fake/oracle", True, 1)])
async def test_nop_and_oracle_submit_until_the_user_has_said_everything(
    make_task: "MakeTask", run_local: "RunLocal", style: str, model: str, passed: bool, tool_calls: int
) -> None:
    task = make_task(agent={"prompt_text": "first", "turns": ["second", "third"]}, tools={"style": style})
    result, folder = await run_local(task, model)
    assert (result.status, result.end_reason, result.passed) == ("completed", "submitted", passed)
    assert (result.turns, result.tool_calls) == (3 + tool_calls, tool_calls)
    lines = read_lines(folder / "transcript.jsonl")
    users = [line["content"] for line in lines if line.get("role") == "user"]
    assert [text for text in users if text in {"first", "second", "third"}] == ["first", "second", "third"]
    (system,) = (line["content"] for line in lines if line.get("role") == "system")
    assert "may write again" in system
    assert "the run ends there" not in system


async def test_setup_runs_before_the_first_turn_and_is_no_part_of_the_diff(
    make_task: "MakeTask", make_script: "MakeScript", run_local: "RunLocal"
) -> None:
    task = make_task(environment={"setup": ["echo made > made.txt"]})
    model = make_script([{"tool_calls": [bash("cat made.txt > done.txt")]}])
    result, folder = await run_local(task, model)
    assert result.passed is True
    diff = (folder / "workspace.diff").read_text()
    assert "done.txt" in diff
    assert "b/made.txt" not in diff


@pytest.mark.parametrize(
    ("environment", "kind", "words"),
    [
        ({"setup": ["echo oops; exit 3"]}, "setup_failed", "oops"),
        ({"modules": ["json", "no_such_module_here"]}, "module_missing", "no_such_module_here"),
    ],
)
async def test_a_sandbox_that_is_not_as_needed_is_an_error_not_a_score(
    make_task: "MakeTask", run_local: "RunLocal", environment: dict[str, Any], kind: str, words: str
) -> None:
    result, _ = await run_local(make_task(environment=environment), "fake/oracle")
    assert result.error is not None
    assert (result.status, result.error.kind, result.score, result.passed) == ("error", kind, None, None)
    assert words in result.error.message


async def test_a_cancelled_caller_sees_its_cancellation_and_a_result_is_left(
    make_task: "MakeTask", make_script: "MakeScript", tmp_path: Path
) -> None:
    model = make_script([{"tool_calls": [bash("echo $$ > shell.pid; touch done.txt; sleep 300", timeout_s=LONG_S)]}])
    events: list[Event] = []
    with anyio.CancelScope() as scope:

        def watch(event: Event) -> None:
            events.append(event)
            if isinstance(event, ToolStarted):
                scope.deadline = anyio.current_time() + 0.5

        async with Engine(environ={}) as engine:
            await engine.run(
                RunOptions(task=make_task(), model=model, sandbox="local", runs_dir=tmp_path / "runs"), watch
            )
    assert scope.cancelled_caught
    finished = next(event for event in events if isinstance(event, RunFinished))
    assert (finished.result.status, finished.result.score) == ("cancelled", None)
    stored = RunResult.model_validate_json((finished.folder / "result.json").read_text())
    assert stored == finished.result
    assert not is_alive((finished.folder / "workspace_final" / "shell.pid").read_text())
    assert not (scratch_root() / finished.folder.name).exists()


async def test_a_cost_cap_on_an_unpriced_model_is_refused_before_anything_is_written(
    make_task: "MakeTask", tmp_path: Path
) -> None:
    options = RunOptions(
        task=make_task(), model="openai/no-such-model", sandbox="local", runs_dir=tmp_path / "runs", max_cost=Decimal(1)
    )
    async with Engine(environ={"OPENAI_API_KEY": "sk-test-key"}) as engine:
        with pytest.raises(UsageError, match="no price"):
            await engine.run(options)
    assert not (tmp_path / "runs").exists()


async def test_an_engine_that_is_not_open_refuses_and_leaves_nothing(make_task: "MakeTask", tmp_path: Path) -> None:
    options = RunOptions(task=make_task(), model="fake/nop", sandbox="local", runs_dir=tmp_path / "runs")
    engine = Engine(environ={})
    with pytest.raises(RuntimeError, match="not open"):
        await engine.run(options)
    async with engine:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        await engine.run(options)
    assert not (tmp_path / "runs").exists()


async def test_two_engines_in_one_loop_do_not_meet(make_task: "MakeTask", tmp_path: Path) -> None:
    task = make_task()
    async with Engine(environ={}) as one, Engine(environ={}) as two, anyio.create_task_group() as group:
        for number, engine in enumerate((one, two, one, two)):
            runs_dir = tmp_path / f"runs{number % 2}"
            options = RunOptions(task=task, model="fake/oracle", sandbox="local", runs_dir=runs_dir)
            group.start_soon(engine.run, options)
    for number in range(2):
        assert len([path for path in (tmp_path / f"runs{number}").iterdir() if path.is_dir()]) == 2


async def test_a_key_that_a_model_came_by_is_not_shown_as_progress(
    make_task: "MakeTask", make_script: "MakeScript", tmp_path: Path
) -> None:
    key = "sk-very-secret-0123456789"
    model = make_script([{"tool_calls": [bash(f"true -H 'Authorization: Bearer {key}'")]}])
    events: list[Event] = []
    async with Engine(environ={"OPENAI_API_KEY": key}) as engine:
        options = RunOptions(task=make_task(), model=model, sandbox="local", runs_dir=tmp_path / "runs")
        await engine.run(options, events.append)
    assert [event.summary.count("[redacted]") for event in events if isinstance(event, ToolStarted)] == [1]
    assert key not in str(events)


async def test_the_key_is_in_no_file_of_the_run(
    make_task: "MakeTask", make_script: "MakeScript", run_local: "RunLocal"
) -> None:
    key = "sk-very-secret-0123456789"
    os.environ["FBENCH_TEST_OPENAI_API_KEY"] = key
    try:
        model = make_script([{"tool_calls": [bash("env > env.txt; cat /proc/self/environ > more.txt; env")]}])
        _, folder = await run_local(make_task(), model)
    finally:
        del os.environ["FBENCH_TEST_OPENAI_API_KEY"]
    for path in folder.rglob("*"):
        if path.is_file():
            assert key.encode() not in path.read_bytes(), path
