"""`fbench diff`: what two runs may differ in, and what is shown of the first difference."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fbench.engine.commands.diff import diff
from fbench.engine.errors import UnknownNameError, UsageError
from fbench.engine.records.comparing import first_difference


def turns(command: str) -> list[dict[str, Any]]:
    return [
        {"content": "I work.", "tool_calls": [{"name": "bash", "arguments": {"command": command}}]},
        {"content": "Done.", "tool_calls": [{"name": "submit", "arguments": {}}]},
    ]


async def test_two_runs_of_the_same_inputs_are_equal(make_task: Any, make_script: Any, run_local: Any) -> None:
    task, model = make_task(), make_script(turns("echo done > done.txt"))
    (_, first), (_, second) = await run_local(task, model), await run_local(task, model)
    assert first != second
    assert first_difference(first, second) is None
    shown = CliRunner().invoke(diff, [str(first), str(second)])
    assert (shown.exit_code, shown.stdout) == (0, "equal, but for ids, times and durations\n")


async def test_the_first_difference_is_shown_with_its_surroundings(
    make_task: Any, make_script: Any, run_local: Any
) -> None:
    task = make_task()
    model = make_script(turns("echo done > done.txt"))
    _, first = await run_local(task, model)
    make_script(turns("echo gone > done.txt"))
    _, second = await run_local(task, model)
    shown = CliRunner().invoke(diff, [first.name, second.name, "--runs-dir", str(first.parent), "--json"])
    document = json.loads(shown.stdout)
    assert shown.exit_code == 1
    assert document["equal"] is False
    found = document["difference"]
    assert found["file"] == "transcript.jsonl"
    assert found["field"] == "tool_calls[0].arguments"
    assert "echo done" in found["first"]
    assert "echo gone" in found["second"]


async def test_a_different_verdict_is_a_difference(make_task: Any, make_script: Any, run_local: Any) -> None:
    task, model = make_task(), make_script(turns("echo done > done.txt"))
    (_, first), (_, second) = await run_local(task, model), await run_local(task, model)
    path = second / "result.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**document, "score": 0.5}), encoding="utf-8")
    found = first_difference(first, second)
    assert found is not None
    assert (found.file, found.field, found.first, found.second) == ("result.json", "score", "1.0", "0.5")


async def test_a_missing_last_event_is_a_difference(make_task: Any, make_script: Any, run_local: Any) -> None:
    task, model = make_task(), make_script(turns("echo done > done.txt"))
    (_, first), (_, second) = await run_local(task, model), await run_local(task, model)
    path = second / "transcript.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:-1]), encoding="utf-8")
    found = first_difference(first, second)
    assert found is not None
    assert (found.file, found.line, found.field) == ("transcript.jsonl", len(lines), "")


async def test_an_unfinished_run_cannot_be_compared(make_task: Any, make_script: Any, run_local: Any) -> None:
    task, model = make_task(), make_script(turns("echo done > done.txt"))
    (_, first), (_, second) = await run_local(task, model), await run_local(task, model)
    (second / "result.json").unlink()
    with pytest.raises(UsageError, match="did not finish"):
        first_difference(first, second)


def test_an_unknown_run_is_a_usage_error(tmp_path: Path) -> None:
    shown = CliRunner().invoke(diff, ["nothing", "there", "--runs-dir", str(tmp_path)])
    assert isinstance(shown.exception, UnknownNameError)
    assert shown.exception.exit_code == 2
