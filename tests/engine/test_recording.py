"""`--record` and `--replay`: model traffic stored, and played with no server and no key."""

import errno
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from click.testing import CliRunner

from fbench.engine import Engine, RunOptions, RunResult
from fbench.engine.commands.run import run as run_command
from fbench.engine.errors import UsageError
from fbench.engine.models.canonical import Canonicaliser
from fbench.engine.models.recording import Recorder, open_recorder
from fbench.engine.models.replay import load_recording
from fbench.engine.records.comparing import first_difference
from fbench.engine.seams import Message, ModelRequest

if TYPE_CHECKING:
    from tests.engine.conftest import MakeScript, MakeTask, RunLocal
    from tests.loopback.server import LoopbackServer

KEY = "sk-a-key-that-must-not-be-stored"
MODEL = "openai/gpt-4o-mini"


class Runs:
    """Runs of one task, recorded from the server or replayed with no server and no key."""

    def __init__(self, folder: Path, task: Path, url: str) -> None:
        self.file = folder / "traffic.jsonl"
        self.folder = folder / "runs"
        self._task = task
        self._url = url

    async def record(self, engine: Engine | None = None, **options: Any) -> tuple[RunResult, Path]:
        given = {"base_url": self._url, "api_key": KEY, "record": self.file, **options}
        return await self._run(engine, given)

    async def replay(self, engine: Engine | None = None, **options: Any) -> tuple[RunResult, Path]:
        # Nothing listens on port 1: a request that went out would fail the run.
        return await self._run(engine, {"base_url": "http://127.0.0.1:1/v1", "replay": self.file, **options})

    async def _run(self, engine: Engine | None, given: dict[str, Any]) -> tuple[RunResult, Path]:
        defaults = {"task": self._task, "model": MODEL, "sandbox": "local", "runs_dir": self.folder}
        options = RunOptions.model_validate({**defaults, **given})
        if engine is None:
            async with Engine(environ={}) as own:
                result = await own.run(options)
        else:
            result = await engine.run(options)
        return result, self.folder / result.run_id


@pytest.fixture
def runs(tmp_path: Path, make_task: "MakeTask", loopback: "LoopbackServer") -> Runs:
    return Runs(tmp_path, make_task(tools={"allow": ["bash"]}), loopback.url)


def bash(server: "LoopbackServer", command: str, **more: Any) -> Any:
    return server.say("I work.", tool_calls=[server.call("bash", {"command": command})], **more)


WORK = "pwd; echo done > done.txt; echo 1 passed in 0.$RANDOM s"


def plan_work(server: "LoopbackServer", command: str = WORK) -> None:
    server.plan(bash(server, command), server.submit())


@pytest.mark.parametrize("sandbox", ["local", "bubblewrap"])
async def test_a_replay_without_server_and_key_equals_the_recorded_run(
    sandbox: str,
    runs: Runs,
    loopback: "LoopbackServer",
    monkeypatch: pytest.MonkeyPatch,
    need_bubblewrap: Callable[[], None],
) -> None:
    if sandbox == "bubblewrap":
        need_bubblewrap()
    plan_work(loopback)
    recorded, first = await runs.record(sandbox=sandbox)
    asked = len(loopback.requests)
    monkeypatch.setitem(__import__("sys").modules, "openai", None)  # an import of it fails
    replayed, second = await runs.replay(sandbox=sandbox)
    assert (recorded.status, recorded.passed, recorded.cost_status) == ("completed", True, "exact")
    assert replayed.cost_usd == recorded.cost_usd
    assert (replayed.cost_usd or 0) > 0
    assert replayed.tokens.total == recorded.tokens.total == 36
    assert first_difference(first, second) is None
    assert len(loopback.requests) == asked == 2


async def workspace_of_output(exchange: Any) -> None:
    """Calls bash with the path that the last output holds."""
    path = exchange.request.json["messages"][-1]["content"].split()[0]
    document = {
        "model": "loopback-1",
        "choices": [
            {
                "message": {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "call_2",
                            "type": "function",
                            "function": {
                                "name": "bash",
                                "arguments": json.dumps({"command": f"cd {path} && echo done > done.txt"}),
                            },
                        }
                    ],
                }
            }
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }
    await exchange.send(json.dumps(document).encode())


async def test_an_answer_that_names_the_recorded_workspace_acts_in_that_of_the_replay(
    runs: Runs, loopback: "LoopbackServer"
) -> None:
    loopback.plan(bash(loopback, "pwd"), workspace_of_output, loopback.submit())
    recorded, first = await runs.record()
    assert recorded.run_id not in runs.file.read_text(encoding="utf-8").replace(f'"run_id":"{recorded.run_id}"', "")
    replayed, second = await runs.replay()
    assert (recorded.passed, replayed.passed) == (True, True)
    assert first_difference(first, second) is None


async def test_failed_attempts_are_replayed_without_their_waits(runs: Runs, loopback: "LoopbackServer") -> None:
    loopback.plan(loopback.error(503, "busy", **{"retry-after": "0.4"}), loopback.html(), loopback.submit())
    _, first = await runs.record()
    with anyio.fail_after(20):
        _, second = await runs.replay(max_model_wait=0)
    assert first_difference(first, second) is None
    errors = [
        [json.loads(line)["error"] for line in (folder / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]
        for folder in (first, second)
    ]
    assert errors[0] == errors[1]
    assert [error is None for error in errors[1]] == [False, False, True]


async def test_a_call_that_was_given_up_ends_the_replay_with_the_same_error(
    runs: Runs, loopback: "LoopbackServer"
) -> None:
    loopback.always(loopback.error(503, "busy"))
    recorded, first = await runs.record(max_model_wait=0.3)
    replayed, second = await runs.replay()
    assert recorded.error is not None
    assert recorded.error.kind == "model_unavailable"
    assert replayed.error == recorded.error
    assert first_difference(first, second) is None


async def test_a_refusal_for_good_is_replayed(runs: Runs, loopback: "LoopbackServer") -> None:
    loopback.always(loopback.error(400, "no such thing"))
    recorded, first = await runs.record()
    _, second = await runs.replay()
    assert recorded.error is not None
    assert recorded.error.kind == "model_rejected"
    assert first_difference(first, second) is None


async def test_a_cap_on_tokens_ends_the_replay_where_it_ended_the_run(runs: Runs, loopback: "LoopbackServer") -> None:
    usage = {"prompt_tokens": 900, "completion_tokens": 50, "total_tokens": 950}
    loopback.always(bash(loopback, "echo more", usage=usage))
    recorded, first = await runs.record(max_tokens=3300)
    _, second = await runs.replay(max_tokens=3300)
    assert recorded.kill_reason == "budget_exceeded:tokens"
    assert recorded.turns >= 2
    assert first_difference(first, second) is None


async def test_a_request_that_was_not_recorded_ends_the_run_and_shows_the_nearest(
    runs: Runs, loopback: "LoopbackServer", make_task: "MakeTask"
) -> None:
    plan_work(loopback)
    recorded, _ = await runs.record()
    make_task(tools={"allow": ["bash"]}, agent={"prompt_text": "Make undone.txt."})
    result, _ = await runs.replay()
    assert result.status == "error"
    assert result.error is not None
    assert result.error.kind == "replay_missing"
    for part in (
        str(runs.file),
        recorded.run_id,
        "(user)",
        "`content`",
        "Make done.txt",
        "Make undone.txt",
        "--record",
    ):
        assert part in result.error.message
    assert (result.cost_usd, result.tokens.total) == (0.0, 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 0.5}, "its temperature is null, now it is 0.5"),
        ({"max_output_tokens": 7}, "its max_output_tokens is 4096, now it is 7"),
        ({"model": "openai/gpt-4o"}, 'its model is "openai/gpt-4o-mini", now it is "openai/gpt-4o"'),
    ],
)
async def test_another_setting_is_named(
    options: dict[str, Any], words: str, runs: Runs, loopback: "LoopbackServer"
) -> None:
    plan_work(loopback)
    await runs.record()
    result, _ = await runs.replay(**options)
    assert result.error is not None
    assert words in result.error.message


async def test_other_tools_are_named(runs: Runs, loopback: "LoopbackServer") -> None:
    plan_work(loopback)
    await runs.record()
    recording = load_recording(runs.file)
    line = next(iter(recording.runs.values())).entries[0].line
    messages = [Message(found.message["role"], found.message["content"]) for found in line.messages]
    form = Canonicaliser(MODEL, "a-run", str).request(ModelRequest(messages))
    assert "its tools differ: recorded [{" in recording.explain(form)


async def test_each_answer_is_played_once_in_an_engine(runs: Runs, loopback: "LoopbackServer") -> None:
    plan_work(loopback)
    plan_work(loopback, "echo other; echo done > done.txt")
    _, first = await runs.record()
    _, second = await runs.record()
    async with Engine(environ={}) as engine:
        one, other, third = [await runs.replay(engine) for _ in range(3)]
    assert first_difference(first, one[1]) is None
    assert first_difference(second, other[1]) is None
    assert third[0].error is not None
    assert "all 2 answers to this request have been played" in third[0].error.message


async def test_of_runs_that_asked_the_same_that_of_the_same_attempt_is_followed(
    runs: Runs, loopback: "LoopbackServer"
) -> None:
    plan_work(loopback)
    plan_work(loopback, "echo other; echo done > done.txt")
    await runs.record(attempt=1)
    _, second = await runs.record(attempt=2)
    _, replayed = await runs.replay(attempt=2)
    assert first_difference(second, replayed) is None


async def test_of_runs_that_asked_the_same_that_of_the_same_task_is_followed(
    runs: Runs, make_task: "MakeTask", loopback: "LoopbackServer"
) -> None:
    task = make_task("other_task", tools={"allow": ["bash"]})
    plan_work(loopback)
    plan_work(loopback, "echo other; echo done > done.txt")
    await runs.record()
    _, recorded = await runs.record(task=task)
    _, replayed = await runs.replay(task=task)
    assert first_difference(recorded, replayed) is None


async def test_a_run_follows_a_recorded_one_that_no_other_follows(runs: Runs, loopback: "LoopbackServer") -> None:
    loopback.plan(loopback.error(503, "busy"), loopback.submit(), loopback.submit())
    await runs.record()
    await runs.record()
    recording = load_recording(runs.file)
    first, second = recording.runs
    key = recording.runs[first].entries[0].line.key
    played = [
        recording.take(key, following=following, task_id="sample", attempt=1)
        for following in (None, None, second, first)
    ]
    assert [line and line.run_id for line in played] == [first, second, first, None]


@pytest.mark.parametrize("style", ["native", "json_text"])
async def test_a_conversation_that_was_shortened_to_the_window_is_replayed(
    style: str, runs: Runs, loopback: "LoopbackServer", make_task: "MakeTask"
) -> None:
    make_task(tools={"allow": ["bash"], "style": style})
    command = {"command": "seq 3000; echo done > done.txt"}
    work = bash(loopback, command["command"], usage=None)
    if style == "json_text":
        work = loopback.say(json.dumps({"tool": "bash", "arguments": command}), usage=None)
    words = "This model's maximum context length is 5000 tokens"
    done = loopback.submit(usage=None) if style == "native" else loopback.say('{"tool": "submit"}', usage=None)
    loopback.plan(work, work, loopback.error(400, words), done)
    recorded, first = await runs.record()
    _, second = await runs.replay()
    assert (recorded.status, recorded.cost_status) == ("completed", "estimated")
    assert "context_shortened" in (first / "transcript.jsonl").read_text(encoding="utf-8")
    assert first_difference(first, second) is None


@pytest.mark.parametrize(
    ("known", "known_now", "version"), [(None, 5000, 1), (None, 5000, 2), (5000, None, 2), (5000, 90_000, 2)]
)
async def test_a_replay_keeps_to_the_window_that_the_recorded_run_knew(
    known: int | None, known_now: int | None, version: int, runs: Runs, loopback: "LoopbackServer", tmp_path: Path
) -> None:
    prices = tmp_path / "prices.yaml"

    def tell(window: int | None) -> Path:
        told = "" if window is None else f", context_window: {window}"
        prices.write_text(f"models: {{openai/loopback-1: {{input: 1, output: 2{told}}}}}\n")
        return prices

    work = bash(loopback, "seq 3000; echo done > done.txt", usage=None)
    loopback.plan(work, work, work, loopback.submit(usage=None))
    recorded, first = await runs.record(model="openai/loopback-1", prices=tell(known))
    assert recorded.passed
    shortened = "context_shortened" in (first / "transcript.jsonl").read_text(encoding="utf-8")
    assert shortened == (known is not None)
    if version == 1:  # which told of no window, and knew none of the table
        lines = [json.loads(line) for line in runs.file.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            line["schema_version"] = 1
            line.pop("window", None)
        runs.file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    _, second = await runs.replay(model="openai/loopback-1", prices=tell(known_now))
    assert first_difference(first, second) is None


async def test_concurrent_replays_keep_each_to_its_own_windows(runs: Runs, loopback: "LoopbackServer") -> None:
    work = bash(loopback, "seq 3000; echo done > done.txt", usage=None)
    loopback.plan(*[work, work, work, loopback.submit(usage=None)] * 2)
    prices = runs.file.parent / "prices.yaml"
    model = "openai/loopback-1"
    prices.write_text(f"models: {{{model}: {{input: 1, output: 2, context_window: 5000}}}}\n")
    _, first = await runs.record(model=model, prices=prices, attempt=1)
    prices.write_text(f"models: {{{model}: {{input: 1, output: 2}}}}\n")
    _, second = await runs.record(model=model, prices=prices, attempt=2)
    replayed: dict[int, Path] = {}

    async def keep(engine: Engine, attempt: int) -> None:
        replayed[attempt] = (await runs.replay(engine, model=model, prices=prices, attempt=attempt))[1]

    async with Engine(environ={}) as engine, anyio.create_task_group() as group:
        group.start_soon(keep, engine, 2)
        group.start_soon(keep, engine, 1)
    assert first_difference(first, replayed[1]) is None
    assert first_difference(second, replayed[2]) is None


async def test_many_runs_share_a_recording(runs: Runs, loopback: "LoopbackServer") -> None:
    loopback.always(loopback.submit())

    async def all_at_once(one: Callable[..., Awaitable[tuple[RunResult, Path]]]) -> list[Path]:
        folders: dict[int, Path] = {}

        async def keep(engine: Engine, attempt: int) -> None:
            folders[attempt] = (await one(engine, attempt=attempt))[1]

        async with Engine(environ={}) as engine, anyio.create_task_group() as group:
            for attempt in range(1, 21):
                group.start_soon(keep, engine, attempt)
        return [folders[attempt] for attempt in sorted(folders)]

    first, second = await all_at_once(runs.record), await all_at_once(runs.replay)
    assert len(load_recording(runs.file).runs) == 20
    assert [first_difference(*pair) for pair in zip(first, second, strict=True)] == [None] * 20


async def test_no_key_reaches_a_recording(runs: Runs, loopback: "LoopbackServer") -> None:
    leak = {"prompt_tokens": 1, "completion_tokens": 1, "note": KEY}
    loopback.plan(
        loopback.error(503, f"wrong key {KEY}"),
        bash(loopback, f"echo {KEY}", usage=leak, model=KEY),
        loopback.submit(),
    )
    _, first = await runs.record()
    assert KEY.encode() not in runs.file.read_bytes()
    assert b"[redacted]" in runs.file.read_bytes()
    _, second = await runs.replay()
    assert first_difference(first, second) is None


async def test_an_answer_that_could_not_be_recorded_is_counted_and_the_last(
    runs: Runs, loopback: "LoopbackServer", monkeypatch: pytest.MonkeyPatch
) -> None:
    def append(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Recorder, "append", append)
    plan_work(loopback)
    result, _ = await runs.record()
    assert result.error is not None
    assert result.error.kind == "host_io"
    assert len(loopback.requests) == 1
    assert (result.tokens.total, result.turns) == (18, 1)


async def test_a_torn_line_is_left_out_and_ended_before_the_next(runs: Runs, loopback: "LoopbackServer") -> None:
    plan_work(loopback)
    _, first = await runs.record()
    with runs.file.open("ab") as file:
        file.write(b'{"schema_version":1,"type":"att')
    assert load_recording(runs.file).torn_lines == 1
    plan_work(loopback)
    await runs.record()
    recording = load_recording(runs.file)
    assert (recording.torn_lines, len(recording.runs)) == (1, 2)
    _, second = await runs.replay()
    assert first_difference(first, second) is None


def test_a_newer_recording_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "new.jsonl"
    path.write_text('{"schema_version": 3, "type": "attempt"}\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"new\.jsonl:1: recorded by a newer fbench \(schema_version 3\)"):
        load_recording(path)
    with pytest.raises(UsageError, match="newer fbench"), open_recorder(path):
        pass


@pytest.mark.parametrize("text", ["no recording\n", '{"type": "message"}\n', "[]\n"])
def test_a_file_that_is_no_recording_is_left_as_it_is(text: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"no (line of a )?recording"), open_recorder(path):
        pass
    with pytest.raises(UsageError, match="--record has written"):
        load_recording(path)
    assert path.read_text(encoding="utf-8") == text


def test_a_recording_is_nobody_elses_to_read(tmp_path: Path) -> None:
    with open_recorder(tmp_path / "traffic.jsonl"):
        pass
    assert (tmp_path / "traffic.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--record", "missing/t.jsonl"], "missing/t.jsonl cannot be written"),
        (["--record", "."], "cannot be written"),
        (["--replay", "missing.jsonl"], "missing.jsonl cannot be read"),
        (["--replay", "."], "is no file"),
        (["--replay", "empty.jsonl"], "holds no recorded traffic"),
        (["--record", "a.jsonl", "--replay", "b.jsonl"], "exclude each other"),
    ],
)
def test_what_cannot_be_recorded_or_replayed_is_refused_before_anything_runs(
    arguments: list[str], words: str, make_task: "MakeTask", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task()
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").touch()
    given = ["--task", str(task), "--model", "fake/nop", "--sandbox", "local", "-q", *arguments]
    done = CliRunner().invoke(run_command, given)
    assert isinstance(done.exception, UsageError)
    assert done.exception.exit_code == 2
    assert words in str(done.exception)
    assert not list(Path().glob("runs/*__*"))


async def test_a_fake_model_can_be_recorded_and_replayed(
    make_task: "MakeTask", make_script: "MakeScript", run_local: "RunLocal", tmp_path: Path
) -> None:
    call = {"content": "I work.", "tool_calls": [{"name": "bash", "arguments": {"command": "echo done > done.txt"}}]}
    for style in ("native", "json_text"):
        task, file = make_task(f"task_{style}", tools={"allow": ["bash"], "style": style}), tmp_path / f"{style}.jsonl"
        model = make_script([call, {"tool_calls": [{"name": "submit"}]}])
        _, first = await run_local(task, model, record=file)
        replayed, second = await run_local(task, model, replay=file)
        assert replayed.cost_usd == 0.0
        assert first_difference(first, second) is None
