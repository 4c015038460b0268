"""Checks that run commands, in real sandboxes, and what happens when a sandbox has trouble."""

import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from fbench.engine.errors import GraderLost, JudgingFailed, SandboxFailed, SandboxLost
from fbench.engine.seams import Capabilities, OpenSandbox, Sandbox, SandboxSpec
from fbench.judging.judge import judge_workspace

if TYPE_CHECKING:
    from tests.judging.conftest import Bench
else:
    Bench = Any


REASON = "the supervisor did not answer"
ROWS = {"type": "sql_check", "dsn": "sqlite:///app.db", "query": "select 1", "expect": [[1]]}


def run(command: str, **fields: Any) -> dict[str, Any]:
    return {"type": "command_exit_zero", "command": command, **fields}


def present(path: str, **fields: Any) -> dict[str, Any]:
    return {"type": "file_present", "path": path, **fields}


# ------------------------------------------------------------------------------------------------------ real commands


async def test_exit_code_0_passes_and_any_other_fails_with_the_tail_of_what_was_said(either: Bench) -> None:
    verdict = await either.judge(run("true"), run("echo one; echo two >&2; exit 7"), run("no_such_program_at_all"))
    assert [result.status for result in verdict.checks] == ["passed", "failed", "failed"]
    assert verdict.checks[1].detail == "exit code 7: one | two"
    assert verdict.checks[2].detail.startswith("exit code 127")
    seen = json.loads((either.outputs / "check2.json").read_text())
    assert (seen["exit_code"], seen["stdout"], seen["command"]) == (7, "one\ntwo\n", "echo one; echo two >&2; exit 7")


async def test_changes_of_one_check_are_not_seen_by_the_next_nor_in_the_final_workspace(either: Bench) -> None:
    either.write(either.final, {"file": "as the agent left it\n"})
    verdict = await either.judge(
        run("echo changed > file; mkdir -p deep/er; touch new deep/er/x; chmod 000 deep; touch ~/home $TMPDIR/tmp"),
        run("grep -q 'agent left' file && test ! -e new && test ! -e deep && test ! -e ~/home && ! ls $TMPDIR/tmp"),
    )
    assert [result.status for result in verdict.checks] == ["passed", "passed"], verdict
    assert sorted(path.name for path in either.final.iterdir()) == ["file"]
    assert list(either.scratch.iterdir()) == []


async def test_a_background_process_of_a_check_is_dead_before_the_next(either: Bench) -> None:
    beat = either.root / "beat"
    mark = "$FBENCH_WORKSPACE/beat" if either.open_sandbox.__module__.endswith("bubblewrap") else str(beat)
    loop = f"while true; do date +%s%N > {mark}; sleep 0.05; done"
    planted = f"(setsid bash -c '{loop}' fbench_planted >/dev/null 2>&1 &); sleep 0.3; test -s {mark}"
    verdict = await either.judge(run(planted), run("! grep -l 'fbench_plante[d]' /proc/[0-9]*/cmdline"))
    assert verdict.checks[0].status == "passed", verdict
    assert processes_named("fbench_planted") == []
    if beat.exists():
        before = beat.read_text()
        await anyio.sleep(0.3)
        assert beat.read_text() == before


def processes_named(word: str) -> list[str]:
    """Command lines that hold the word, of every process but this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.parent.name != str(os.getpid()) and word in (line := path.read_bytes().decode(errors="replace")):
                found.append(line)
    return found


async def test_a_check_that_times_out_is_an_error_and_keeps_what_was_said(either: Bench) -> None:
    began = time.monotonic()
    result = (await either.judge(run("echo begun; sleep 60", timeout_s=0.5))).checks[0]
    assert time.monotonic() - began < 20
    assert (result.status, result.score) == ("error", 0.0)
    assert result.detail == "the command did not end within its timeout_s of 0.5 s: begun"
    seen = json.loads((either.outputs / "check1.json").read_text())
    assert seen["timed_out"] is True
    assert seen["stdout"] == "begun\n"


async def test_commands_run_in_the_workdir_with_the_graders_material_and_a_clean_environment(
    either: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    either.write(either.task, {"grader/hidden.txt": "only for grading"})
    verdict = await either.judge(
        run('test "$(pwd -P)" = "$(cd "$FBENCH_WORKSPACE" && pwd -P)"'),
        run('grep -q "only for grading" "$FBENCH_GRADER/hidden.txt"'),
        run('test -z "$OPENAI_API_KEY" && test "$COLOUR" = blue'),
    )
    assert [result.status for result in verdict.checks] == ["passed"] * 3, verdict


async def test_bash_features_work_in_a_check(either: Bench) -> None:
    result = await either.check(**run("set -o pipefail; [[ a == a ]] && diff <(echo 1) <(echo 1)"))
    assert result.status == "passed", result


async def test_the_grader_is_mounted_read_only_in_bubblewrap(walled: Bench) -> None:
    walled.write(walled.task, {"grader/expected.txt": "x"})
    result = await walled.check(
        **run("test -f /grader/expected.txt && ! echo y > /grader/expected.txt && ! touch /grader/new")
    )
    assert result.status == "passed", result
    assert (walled.task / "grader" / "expected.txt").read_text() == "x"


async def test_the_grader_is_seen_while_the_tasks_and_the_run_folder_are_not(walled: Bench) -> None:
    walled.write(walled.task, {"grader/expected.txt": "x", "solution/solve.sh": "cheat"})
    walled.write(walled.final, {"a": ""})
    command = f"test -f /grader/expected.txt && ! ls {walled.task}/solution && ! ls {walled.final} && ! ls /solution"
    request = walled.request(run(command))
    request = replace(request, spec=replace(request.spec, hidden=(walled.task, walled.final.parent)))
    verdict = await judge_workspace(request)
    assert verdict.passed, verdict


async def test_a_task_without_a_grader_folder_is_judged(either: Bench) -> None:
    (either.task / "grader").rmdir()
    assert (await either.check(**run("true"))).status == "passed"


async def test_the_same_sandbox_keeps_its_home_and_still_gets_a_pristine_workspace(bench: Bench) -> None:
    bench.grader["sandbox"] = "same"
    verdict = await bench.judge(run("touch ~/kept new"), run("test -e ~/kept && test ! -e new"))
    assert [result.status for result in verdict.checks] == ["passed", "passed"], verdict
    assert bench.root.joinpath("agents_scratch").exists()


async def test_a_metric_is_read_from_a_commands_stdout_alone(either: Bench) -> None:
    metric = {"type": "metric_check", "metric": "accuracy", "op": ">=", "threshold": 0.9, "baseline": 0.5}
    verdict = await either.judge(
        {**metric, "command": """echo '{"accuracy": 1}' >&2; echo noise; echo '{"accuracy": 0.7}'"""},
        {**metric, "command": """echo '{"accuracy": 1}'; echo why >&2; exit 3"""},
        {**metric, "command": "sleep 60", "timeout_s": 0.5},
    )
    assert [(result.status, result.score) for result in verdict.checks] == [
        ("failed", 0.5),
        ("error", 0.0),
        ("error", 0.0),
    ], verdict
    assert verdict.checks[1].detail == "the command that measures ended with exit code 3: why"
    seen = json.loads((either.outputs / "check1.json").read_text())
    assert (seen["value"], seen["threshold"], seen["baseline"], seen["op"]) == (0.7, 0.9, 0.5, ">=")


async def test_a_commands_output_is_compared_with_the_reference(either: Bench) -> None:
    either.write(either.task, {"grader/expected.csv": "a,b\n1,2.0\n"})
    reference = {"type": "reference_output", "reference": "grader/expected.csv", "format": "csv"}
    verdict = await either.judge(
        {**reference, "command": "echo debug >&2; printf 'a,b\\r\\n1,2\\r\\n'"},
        {**reference, "command": "printf 'a,b\\n1,3\\n'"},
        {**reference, "command": "printf 'a,b\\n1,2\\n'; echo broken >&2; exit 4"},
        {**reference, "command": "cat expected.csv"},
    )
    assert [result.status for result in verdict.checks] == ["passed", "failed", "failed", "failed"]
    assert verdict.checks[1].detail == "row 1, column 'b': expected 2.0, got 3, off by 1.0"
    assert verdict.checks[2].detail == "the command ended with exit code 4: broken"
    seen = json.loads((either.outputs / "check2.json").read_text())
    assert seen["differences"] == [verdict.checks[1].detail]
    assert seen["difference_count"] == 1
    assert seen["tolerance"]["strip"] is True


async def test_more_output_than_the_cap_is_an_error(bench: Bench) -> None:
    bench.write(bench.task, {"grader/expected.txt": "x"})
    result = await bench.check(
        type="reference_output", reference="grader/expected.txt", command="head -c 11000000 /dev/zero"
    )
    assert result.status == "error"
    assert "more than 10485760 bytes" in result.detail


async def test_output_that_is_no_text_leaves_a_valid_verdict_and_file(either: Bench) -> None:
    result = (await either.judge(run(r"printf '\xff\xed\xa0\x80\0'; exit 1"))).checks[0]
    assert result.status == "failed"
    result.model_dump_json()
    json.loads((either.outputs / "check1.json").read_bytes().decode("utf-8"))


# ---------------------------------------------------------------------------------------------- trouble with sandboxes


def failing_opener(inner: OpenSandbox, failures: int, error: type[Exception], seen: list[SandboxSpec]) -> OpenSandbox:
    @asynccontextmanager
    async def open_sandbox(spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        seen.append(spec)
        if len(seen) <= failures:
            raise error(REASON)
        async with inner(spec) as sandbox:
            yield sandbox

    return open_sandbox


@pytest.mark.parametrize("error", [SandboxFailed, SandboxLost, OSError])
async def test_a_sandbox_that_fails_to_open_once_is_tried_again_on_a_new_copy(
    bench: Bench, error: type[Exception]
) -> None:
    seen: list[SandboxSpec] = []
    verdict = await bench.judge(run("true"), open_sandbox=failing_opener(bench.open_sandbox, 1, error, seen))
    assert verdict.passed
    assert seen[0].workspace != seen[1].workspace
    assert seen[1].purpose == "grader"


async def test_a_sandbox_that_never_opens_fails_the_judging_and_leaves_no_copy(bench: Bench) -> None:
    seen: list[SandboxSpec] = []
    with pytest.raises(JudgingFailed, match=r"tried 2 times: the supervisor did not answer.*fbench rejudge run-1"):
        await bench.judge(
            present("x"), run("true"), open_sandbox=failing_opener(bench.open_sandbox, 9, SandboxFailed, seen)
        )
    assert len(seen) == 2
    assert list(bench.scratch.iterdir()) == []


class Lost:
    """A sandbox that goes away with its first command."""

    workspace = "/workspace"

    def __init__(self, *, isolated: bool) -> None:
        self.capabilities = Capabilities(isolated=isolated, limits={})

    def exec(self, request: object) -> object:
        raise SandboxLost(REASON)


async def test_a_sandbox_lost_where_work_could_end_it_is_an_error_of_that_check_alone(bench: Bench) -> None:
    opened = 0

    @asynccontextmanager
    async def open_sandbox(spec: SandboxSpec) -> AsyncIterator[Any]:
        nonlocal opened
        opened += 1
        if opened == 1:
            yield Lost(isolated=False)
            return
        async with bench.open_sandbox(spec) as sandbox:
            yield sandbox

    verdict = await bench.judge(run("true"), run("true"), open_sandbox=open_sandbox)
    assert [result.status for result in verdict.checks] == ["error", "passed"]
    assert REASON in verdict.checks[0].detail


@pytest.mark.parametrize("check", [run("true"), ROWS])
async def test_an_isolated_sandbox_lost_under_a_check_is_no_verdict(bench: Bench, check: dict[str, Any]) -> None:
    @asynccontextmanager
    async def open_sandbox(spec: SandboxSpec) -> AsyncIterator[Any]:
        yield Lost(isolated=True)

    bench.write(bench.final, {"app.db": ""})
    with pytest.raises(GraderLost, match=rf"{REASON}.*fbench rejudge run-1") as caught:
        await bench.judge(present("app.db"), check, open_sandbox=open_sandbox)
    assert caught.value.kind == "sandbox_lost"
    assert list(bench.scratch.iterdir()) == []


async def test_cancelling_goes_on_ends_the_command_and_leaves_no_copy(either: Bench) -> None:
    either.write(either.final, {"file": "x"})
    began = time.monotonic()
    with anyio.move_on_after(1.5) as scope:
        await either.judge(run("exec -a fbench_cancelled sleep 300"))
    assert scope.cancelled_caught
    assert time.monotonic() - began < 12  # ending waits for no patience to run out
    assert list(either.scratch.iterdir()) == []
    assert processes_named("fbench_cancelled") == []
    assert either.told == []
