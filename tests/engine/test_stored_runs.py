"""`replay/RUN_ID`: a stored run's answers played against a task."""

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from fbench.engine.errors import UnknownNameError, UsageError
from fbench.engine.scratch import scratch_root

if TYPE_CHECKING:
    from tests.engine.conftest import MakeScript, MakeTask, RunLocal
    from tests.loopback.server import LoopbackServer


@pytest.mark.parametrize("style", ["native", "json_text"])
async def test_a_stored_run_is_played_against_a_changed_task(
    style: str, make_task: "MakeTask", run_local: "RunLocal", loopback: "LoopbackServer"
) -> None:
    tools = {"allow": ["bash"], "style": style}
    task = make_task(tools=tools)
    if style == "native":
        call = loopback.call("bash", {"command": "echo done > done.txt"})
        loopback.plan(loopback.say("I work.", tool_calls=[call]), loopback.submit())
    else:
        command = {"tool": "bash", "arguments": {"command": "echo done > done.txt"}}
        loopback.plan(loopback.say(json.dumps(command)), loopback.say('{"tool": "submit"}'))
    stored, folder = await run_local(task, "openai/gpt-4o-mini", base_url=loopback.url, api_key="sk-a-key-of-the-test")
    make_task(tools=tools, grader={"checks": [{"id": "other", "type": "file_present", "path": "other.txt"}]})
    shutil.copytree(folder, folder.with_name(f"{folder.name}0"))  # two ids that begin alike
    result, _ = await run_local(task, f"replay/{stored.run_id}")
    assert (stored.passed, result.passed, result.end_reason) == (True, False, "submitted")
    assert (result.cost_usd, result.cost_status) == (0.0, "exact")
    assert result.tokens == stored.tokens
    assert [check.id for check in result.checks] == ["other"]


async def test_a_killed_run_can_be_played_and_has_answered_at_its_end(
    make_task: "MakeTask", make_script: "MakeScript", run_local: "RunLocal"
) -> None:
    task = make_task(tools={"allow": ["bash"], "style": "native"})
    call = {"tool_calls": [{"name": "bash", "arguments": {"command": 'cd "$PWD" && echo done > done.txt'}}]}
    stored, folder = await run_local(task, make_script([call], loop=True), max_turns=2)
    assert stored.status == "killed"
    (folder / "result.json").unlink()  # as after kill -9
    result, _ = await run_local(task, f"replay/{stored.run_id}")
    assert (result.status, result.end_reason, result.turns, result.passed) == ("completed", "answered", 3, True)


async def test_an_unknown_stored_run_is_refused_with_near_ones(make_task: "MakeTask", run_local: "RunLocal") -> None:
    task = make_task()
    stored, _ = await run_local(task, "fake/nop")
    with pytest.raises(UnknownNameError, match=stored.run_id):
        await run_local(task, f"replay/{stored.run_id}x")


async def test_a_stored_answer_that_names_its_workspace_acts_in_that_of_the_new_run(
    make_task: "MakeTask", run_local: "RunLocal", loopback: "LoopbackServer"
) -> None:
    task = make_task(tools={"allow": ["bash"]})
    call = loopback.call("bash", {"command": "echo done > done.txt"})
    loopback.plan(loopback.say("I work.", tool_calls=[call]), loopback.submit())
    stored, folder = await run_local(task, "openai/gpt-4o-mini", base_url=loopback.url, api_key="sk-a-key-of-the-test")
    transcript = folder / "transcript.jsonl"
    path = scratch_root() / stored.run_id / "workspace"
    text = transcript.read_text(encoding="utf-8").replace("echo done", f"cd {path} && echo done")
    transcript.write_text(text, encoding="utf-8")
    result, _ = await run_local(task, f"replay/{stored.run_id}")
    assert result.passed is True


async def test_a_run_whose_model_never_answered_cannot_be_played(
    make_task: "MakeTask", run_local: "RunLocal", loopback: "LoopbackServer"
) -> None:
    loopback.always(loopback.error(400, "no"))
    stored, _ = await run_local(make_task(), "openai/m", base_url=loopback.url, api_key="sk-a-key-of-the-test")
    with pytest.raises(UsageError, match="holds no answer of a model"):
        await run_local(make_task(), f"replay/{stored.run_id}")
