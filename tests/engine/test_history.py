"""`fbench runs`, `fbench show-run` and the readers under them."""

import json
import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner, Result

from fbench.engine.commands.history import runs, show_run
from fbench.engine.errors import UnknownNameError, UsageError
from fbench.engine.owner import owner_identity
from fbench.engine.records.index import open_index
from fbench.engine.records.reading import Unreadable, read_transcript
from fbench.engine.records.showing import clean, table
from fbench.engine.results import CheckResult, RunResult, TokenCounts

FIRST = "2026-05-13T20-40-21Z__hello__openai_gpt_4o__a3f0"
SECOND = "2026-05-14T20-40-21Z__hello__openai_gpt_4o__b111"


def make_result(run_id: str, **changes: object) -> RunResult:
    check = CheckResult(
        id="unit_tests", type="command_exit_zero", tier="deterministic", status="passed", score=1, weight=2, gating=True
    )
    facts: dict[str, object] = {
        "run_id": run_id,
        "task_id": "hello",
        "model": "openai/gpt-4o",
        "status": "completed",
        "end_reason": "submitted",
        "passed": True,
        "score": 1.0,
        "checks": (check,),
        "tokens": TokenCounts(input=100, cached_input=20, output=30, reasoning=5, total=130),
        "cost_usd": 0.0125,
        "sandbox": "bubblewrap",
        "isolated": True,
        "started_at": run_id[:20],
        "finished_at": "2026-05-13T20:41:21.000Z",
        "duration_s": 60.0,
        "fbench_version": "0.1.0",
        "task_hash": "abc",
    }
    return RunResult.model_validate(facts | changes)


EVENTS: list[dict[str, Any]] = [
    {"seq": 1, "time": "2026", "type": "run_started", "run_id": FIRST, "task_id": "hello", "model": "openai/gpt-4o"},
    {"seq": 2, "type": "message", "turn": 0, "role": "user", "content": "Fix it."},
    {
        "seq": 3,
        "type": "message",
        "turn": 1,
        "role": "assistant",
        "content": "I look.",
        "reasoning": "hm",
        "tool_calls": [{"id": "c1", "name": "bash", "arguments": '{"command": "ls -la"}'}],
    },
    {
        "seq": 4,
        "type": "tool_started",
        "turn": 1,
        "tool_call_id": "c1",
        "name": "bash",
        "arguments": '{"command": "ls"}',
    },
    {"seq": 5, "type": "tool_finished", "turn": 1, "tool_call_id": "c1", "exit_code": 0, "output": "a\x1b[31mb\n"},
    {"seq": 6, "type": "model_retry", "turn": 2, "try": 1, "error": "429", "wait_s": 2},
    {"seq": 7, "type": "a_type_of_next_year", "news": {"x": 1}},
]


def store(runs_dir: Path, name: str, events: list[dict[str, Any]], result: RunResult | None, tail: str = "") -> Path:
    folder = runs_dir / name
    folder.mkdir()
    (folder / "transcript.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + tail)
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result.to_json()))
    return folder


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """A runs folder with two finished runs and their index."""
    folder = tmp_path / "runs"
    folder.mkdir()

    async def fill() -> None:
        async with open_index(folder) as index:
            for name, changes in ((FIRST, {}), (SECOND, {"model": "fake/nop", "passed": False, "score": 0.5})):
                result = make_result(name, **changes)
                await index.run_finished(result, store(folder, name, EVENTS, result))

    anyio.run(fill)
    return folder


def invoke(command: Any, *arguments: object, env: dict[str, str] | None = None) -> Result:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], env=env, catch_exceptions=False)
    assert result.exit_code == 0
    return result


def test_runs_lists_newest_first_on_stdout(runs_dir: Path) -> None:
    done = invoke(runs, "--runs-dir", runs_dir)
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["RUN", "TASK", "MODEL", "STATUS"]
    assert [line.split()[0] for line in lines[1:]] == [SECOND, FIRST]
    assert "$0.0125" in lines[1]
    assert done.stderr == ""


def test_runs_filters_and_tells_of_more(runs_dir: Path) -> None:
    document = json.loads(invoke(runs, "--runs-dir", runs_dir, "--model", "fake/nop", "--json").stdout)
    assert [run["run_id"] for run in document["runs"]] == [SECOND]
    done = invoke(runs, "--limit", "1", "--json", env={"FBENCH_RUNS_DIR": str(runs_dir)})
    document = json.loads(done.stdout)
    assert (len(document["runs"]), document["has_more"]) == (1, True)
    assert "--limit" in done.stderr


def test_runs_without_any_says_so_on_stderr(tmp_path: Path) -> None:
    done = invoke(runs, "--runs-dir", tmp_path / "none")
    assert done.stdout == ""
    assert "no such runs" in done.stderr
    assert json.loads(invoke(runs, "--runs-dir", tmp_path / "none", "--json").stdout)["runs"] == []


def test_a_finished_run_is_shown_with_verdict_checks_cost_and_turns(runs_dir: Path) -> None:
    text = invoke(show_run, FIRST, "--runs-dir", runs_dir).stdout
    for told in (
        "PASSED, score 1.000",
        "unit_tests",
        "$0.0125 (exact)",
        "130 = 100 in (20 cached) + 30 out (5 reasoning)",
        "== turn 1",
        'bash(command="ls -la")',
        "exit 0",
        "(reasoning) hm",
        "a_type_of_next_year",
        "model_retry",
    ):
        assert told in text


def test_terminal_codes_of_an_agent_are_shown_and_not_obeyed(runs_dir: Path) -> None:
    text = invoke(show_run, FIRST, "--runs-dir", runs_dir).stdout
    assert "\x1b" not in text
    assert r"a\x1b[31mb" in text


def test_a_run_is_found_by_prefix_and_by_path(runs_dir: Path) -> None:
    for wanted in ("2026-05-13", runs_dir / FIRST, FIRST):
        document = json.loads(invoke(show_run, wanted, "--runs-dir", runs_dir, "--json").stdout)
        assert document["run_id"] == FIRST
        assert document["result"]["score"] == 1.0
        assert len(document["transcript"]) == len(EVENTS)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("2026-05", "begins the ids of 2 runs"),
        (FIRST[:-1] + "9", FIRST),
        ("b111", SECOND),
        ("zzz", "fbench runs"),
        ("", "no run ''"),
        ("..", "no run"),
    ],
)
def test_an_unknown_or_ambiguous_id_is_refused_with_near_ones(runs_dir: Path, wanted: str, told: str) -> None:
    with pytest.raises(UnknownNameError, match=told) as caught:
        CliRunner().invoke(show_run, [wanted, "--runs-dir", str(runs_dir)], catch_exceptions=False)
    assert caught.value.exit_code == 2


def test_a_killed_run_s_torn_transcript_is_shown_as_unfinished(runs_dir: Path) -> None:
    name = "2026-05-15T20-40-21Z__hello__fake_nop__c222"
    store(runs_dir, name, EVENTS[:3], None, tail='{"seq": 4, "type": "mess')
    document = json.loads(invoke(show_run, name, "--runs-dir", runs_dir, "--json").stdout)
    assert (document["state"], document["result"], len(document["transcript"])) == ("unfinished", None, 3)
    text = invoke(show_run, name, "--runs-dir", runs_dir).stdout
    assert "status   unfinished" in text
    assert "I look." in text


def test_a_run_of_a_live_process_is_running(runs_dir: Path) -> None:
    name = "2026-05-15T20-40-21Z__hello__fake_nop__c222"
    store(runs_dir, name, [{**EVENTS[0], "owner": owner_identity()}], None)
    assert "status   running" in invoke(show_run, name, "--runs-dir", runs_dir).stdout


def test_a_damaged_result_is_told_and_the_transcript_still_shown(runs_dir: Path) -> None:
    (runs_dir / FIRST / "result.json").write_text("{torn")
    text = invoke(show_run, FIRST, "--runs-dir", runs_dir).stdout
    assert "status   unreadable" in text
    assert "result.json is damaged" in text
    assert "I look." in text


def test_strange_events_are_shown_and_never_crash(runs_dir: Path) -> None:
    events: list[dict[str, Any]] = [
        {"type": "message", "turn": [1], "role": 7, "content": ["part"], "tool_calls": "none"},
        {"type": "message", "tool_calls": [None, {"name": None, "arguments": "not json"}], "content": "\ud800"},
        {"type": "tool_finished", "output": 5, "duration_s": "long"},
        {"type": None},
        {},
        {"type": "tool_started", "arguments": {"deep": [1, {"x": None}]}},
    ]
    name = "2026-05-16T20-40-21Z__hello__fake_nop__c222"
    store(runs_dir, name, events, make_result(name, passed=None, score=None, checks=()))
    text = invoke(show_run, name, "--runs-dir", runs_dir).stdout
    assert "not judged" in text
    text.encode()


def test_output_the_model_was_told_is_not_printed_twice(runs_dir: Path) -> None:
    events = [*EVENTS[:4], {**EVENTS[4], "output": "unique words"}]
    events.append({"type": "message", "turn": 1, "role": "tool", "tool_call_id": "c1", "content": "unique words"})
    name = "2026-05-16T20-40-21Z__hello__fake_nop__c222"
    store(runs_dir, name, events, make_result(name))
    assert invoke(show_run, name, "--runs-dir", runs_dir).stdout.count("unique words") == 1


@pytest.mark.parametrize("keep", range(0, 70, 7))
def test_a_transcript_cut_anywhere_reads_up_to_its_last_whole_line(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "transcript.jsonl"
    lines = [json.dumps({"seq": number, "text": "größe"}, ensure_ascii=False).encode() + b"\n" for number in range(3)]
    data = b"".join(lines)[:keep]
    path.write_bytes(data)
    found = [event["seq"] for event in read_transcript(path)]
    assert found[: data.count(b"\n")] == list(range(data.count(b"\n")))
    assert len(found) - data.count(b"\n") in {0, 1}


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "transcript.jsonl"
    path.write_bytes(b'{"seq": 1}\n\xff\xfe\n\n[1]\n{"seq": 2, "score": NaN}\n' + b"[" * 100_000 + b"\n")
    assert list(read_transcript(path)) == [
        {"seq": 1},
        {"type": "unreadable", "line": 2},
        {"type": "unreadable", "line": 4},
        {"seq": 2, "score": "NaN"},
        {"type": "unreadable", "line": 6},
    ]


def test_a_missing_transcript_is_empty_and_a_fifo_is_refused(tmp_path: Path) -> None:
    assert list(read_transcript(tmp_path / "none.jsonl")) == []
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Unreadable, match="no regular file"):
        list(read_transcript(tmp_path / "fifo"))


def test_a_table_lines_up_wide_characters_and_stays_on_its_lines() -> None:
    lines = table([("A", "B"), ("日本", "x\ny"), ("a", "z\x1b")]).splitlines()
    assert lines == ["A     B", "日本  x y", r"a     z\x1b"]


def test_clean_text_can_always_be_encoded() -> None:
    assert clean("a\ud800\x9b\r\nb\tc").encode() == b"a\\xd800\\x9b\nb\tc"


def test_long_outputs_are_shortened_unless_full_is_asked_for(runs_dir: Path) -> None:
    lines = [f"line {number}" for number in range(100)]
    events = [
        *EVENTS[:4],
        {**EVENTS[4], "output": "\n".join(lines)},
        {"type": "message", "turn": 2, "role": "assistant", "content": "\n".join(f"word {n}" for n in range(100))},
        {"type": "tool_started", "turn": 2, "name": "bash", "arguments": {"command": "x" * 5000}},
    ]
    name = "2026-05-16T20-40-21Z__hello__fake_nop__c222"
    store(runs_dir, name, events, make_result(name))
    short = invoke(show_run, name, "--runs-dir", runs_dir).stdout
    assert "[... 70 lines left out, --full shows them ...]" in short
    assert "line 19\n" in short
    assert "line 20\n" not in short
    assert "line 90\n" in short
    assert "word 50\n" in short
    assert "characters left out" in short
    full = invoke(show_run, name, "--runs-dir", runs_dir, "--full").stdout
    assert all(f"{line}\n" in full for line in lines)
    assert "x" * 5000 in full
    assert "left out" not in full
    document = json.loads(invoke(show_run, name, "--runs-dir", runs_dir, "--json").stdout)
    assert document["transcript"] == events


def test_runs_are_sorted_and_filtered_as_asked(runs_dir: Path) -> None:
    def ids(*arguments: str) -> list[str]:
        document = json.loads(invoke(runs, "--runs-dir", runs_dir, "--json", *arguments).stdout)
        return [run["run_id"] for run in document["runs"]]

    assert ids("--passed") == [FIRST]
    assert ids("--failed") == [SECOND]
    assert ids("--since", "2026-05-14") == [SECOND]
    assert ids("--since", "2026-05-14T01:00+02:00") == [SECOND]
    assert ids("--since", "2026-05-15") == []
    assert ids("--ascending") == [FIRST, SECOND]
    assert ids("--sort", "score") == [FIRST, SECOND]
    assert ids("--sort", "score", "--ascending", "--limit", "1") == [SECOND]


@pytest.mark.parametrize("since", ["yesterday", "", "7y", "2026-13-01", "99999999w"])
def test_a_time_that_is_none_is_refused(runs_dir: Path, since: str) -> None:
    with pytest.raises(UsageError, match="is no day, time or age"):
        CliRunner().invoke(runs, ["--since", since, "--runs-dir", str(runs_dir)], catch_exceptions=False)
