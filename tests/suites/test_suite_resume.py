"""Suite runs that were interrupted: what is owed is done, and nothing else."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fbench.engine.errors import UsageError
from fbench.engine.records.ledger import read_ledger
from fbench.engine.records.reading import run_folders
from fbench.suites.loading import load_suite_outcome
from fbench.suites.lock import LOCK, SuiteBusy, hold_suite_run
from fbench.suites.plan import PLAN, find_suite_run, read_plan, suite_runs_in

if TYPE_CHECKING:
    from tests.loopback.server import LoopbackServer
    from tests.suites.conftest import Workshop

PATIENCE_S = 120.0


class Process:
    """`fbench suite ...` as a process of its own, in a session of its own."""

    def __init__(self, workshop: "Workshop", *arguments: object) -> None:
        words = [str(argument) for argument in arguments]
        self._runs_dir = workshop.runs_dir
        self.popen = subprocess.Popen(
            [sys.executable, "-c", "from fbench.engine.cli import main; main()", "suite", *words,
             "--runs-dir", str(workshop.runs_dir), "--json"],
            env={**os.environ, "TMPDIR": str(workshop.root), "NO_COLOR": "1"},
            cwd=workshop.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for it; the process must still live then."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.popen.poll() is None, self.popen.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)

    def end(self, number: signal.Signals | None = None) -> tuple[int, dict[str, Any] | None]:
        """Its exit code and document, after a signal if one is given."""
        if number is not None:
            self.popen.send_signal(number)
        stdout, _ = self.popen.communicate(timeout=PATIENCE_S)
        return self.popen.returncode, json.loads(stdout) if stdout else None


@contextmanager
def started(workshop: "Workshop", *arguments: object) -> Iterator[Process]:
    process = Process(workshop, *arguments)
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.communicate()


def finished_in(workshop: "Workshop") -> int:
    return len(list(workshop.runs_dir.glob("*/result.json")))


def verdicts(workshop: "Workshop") -> Counter[tuple[str, str, int]]:
    """How many final verdicts each planned run has."""
    return Counter(
        (result.task_id, result.model, result.attempt)
        for result in workshop.results()
        if result.status in {"completed", "killed"}
    )


def spent_in(folder: Path) -> float:
    ledger = folder / "ledger.jsonl"
    return float(sum(line.cost_usd or 0 for line in read_ledger(ledger))) if ledger.exists() else 0.0


def test_a_suite_that_is_killed_again_and_again_ends_with_one_verdict_for_each_run(
    workshop: "Workshop", loopback: "LoopbackServer", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-suite-0123456789")
    prices = workshop.root / "prices.yaml"
    prices.write_text(yaml.safe_dump({"models": {"openai/loopback-1": {"input": 10, "output": 30}}}))
    for name in ("one", "two"):
        workshop.task(name)
    usage = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
    call = loopback.call("bash", {"command": "test -f done.txt && sleep 0.3; echo done > done.txt"})

    def answer(exchange: Any) -> Any:
        has_worked = any(message["role"] == "tool" for message in exchange.request.json["messages"])
        behave = loopback.submit(usage=usage) if has_worked else loopback.say("", tool_calls=[call], usage=usage)
        return loopback.silence(0.2, behave)(exchange)

    loopback.always(answer)
    arguments = ["--model", "openai/loopback-1", "--base-url", loopback.url, "--prices", prices]
    path = workshop.suite(attempts=4)
    with started(workshop, "run", path, "--concurrency", 2, *arguments) as process:
        process.until(lambda: 1 <= finished_in(workshop) < len(run_folders(workshop.runs_dir)))
        process.end(signal.SIGKILL)
    (suite_run_id,) = suite_runs_in(workshop.runs_dir)
    for _ in range(2):
        before = finished_in(workshop)
        with started(workshop, "resume", suite_run_id) as process:
            process.until(lambda before=before: finished_in(workshop) > before)  # type: ignore[misc]
            process.end(signal.SIGKILL)
    with started(workshop, "resume", suite_run_id) as process:
        code, document = process.end()
    assert code == 0
    assert document is not None
    assert document["totals"]["completed"] == 8
    assert set(verdicts(workshop).values()) == {1}
    assert len(verdicts(workshop)) == 8
    folders = run_folders(workshop.runs_dir)
    assert len(folders) > 8  # the first kill left an unfinished run, which stays
    assert document["cost_usd"] == pytest.approx(sum(map(spent_in, folders)))
    lost = [folder for folder in folders if not (folder / "result.json").exists()]
    assert document["lost_cost_usd"] == pytest.approx(sum(map(spent_in, lost)))
    assert list(workshop.root.glob("fbench-*/*")) == []  # scratch folders of the killed

    asked = len(loopback.requests)
    with started(workshop, "resume", suite_run_id) as process:
        assert process.end()[0] == 0
    assert len(loopback.requests) == asked
    assert len(run_folders(workshop.runs_dir)) == len(folders)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_recording_of_an_interrupted_suite_replays_the_runs_that_reached_a_verdict(
    workshop: "Workshop", loopback: "LoopbackServer", monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-suite-0123456789")
    for name in ("one", "two"):
        workshop.task(name)

    def answer(exchange: Any) -> Any:
        """Never the same twice; the second answer of a run takes its time."""
        has_worked = any(message["role"] == "tool" for message in exchange.request.json["messages"])
        count = len(loopback.requests)
        command = f"echo {count}; " + ("echo done > done.txt" if count % 3 else "true")
        call = loopback.call("bash", {"command": command})
        behave = loopback.submit() if has_worked else loopback.say(f"Answer {count}.", tool_calls=[call])
        return (loopback.silence(0.5, behave) if has_worked else behave)(exchange)

    loopback.always(answer)
    model = ["--model", "openai/nobody-knows", "--base-url", loopback.url]
    path, file = workshop.suite(attempts=3), workshop.root / "traffic.jsonl"
    with started(workshop, "run", path, "--concurrency", 3, "--record", file, *model) as process:
        process.until(lambda: finished_in(workshop) >= 1)
        process.until(lambda: file.read_bytes().count(b'"type":"attempt"') >= 2 * finished_in(workshop) + 2)
        process.end(number)
    (suite_run_id,) = suite_runs_in(workshop.runs_dir)
    recorded = workshop.fbench("resume", suite_run_id)
    replayed = workshop.fbench("run", path, "--replay", file, *model)

    def facts(document: dict[str, Any]) -> list[tuple[Any, ...]]:
        return [(run["task"], run["attempt"], run["status"], run["passed"]) for run in document["runs"]]

    assert facts(replayed) == facts(recorded)
    assert {run["status"] for run in recorded["runs"]} == {"completed"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_suite_reports_and_its_cancelled_runs_are_owed(
    workshop: "Workshop", number: signal.Signals, code: int
) -> None:
    workshop.task("one")
    slow, quick = workshop.script("slow", command="sleep 60"), workshop.script("quick")
    path = workshop.suite(models=[quick, slow])
    with started(workshop, "run", path, "--concurrency", 2) as process:
        process.until(lambda: finished_in(workshop) == 1)
        exit_code, document = process.end(number)
    assert exit_code == code
    assert document is not None
    assert (document["totals"]["completed"], document["totals"]["cancelled"]) == (1, 1)
    assert document["finished_at"] is None
    assert document["artifacts"]
    # What is owed is the cancelled run: its script is now a quick one, which a resume notices.
    workshop.script("slow")
    refused = workshop.invoke("resume", document["suite_run_id"])
    assert isinstance(refused.exception, UsageError)
    assert "slow.yaml has changed" in str(refused.exception)
    found = workshop.fbench("resume", document["suite_run_id"], "--accept-changes")
    assert found["totals"]["completed"] == 2
    assert sorted(result.status for result in workshop.results()) == ["cancelled", "completed", "completed"]


def test_a_changed_task_is_refused_and_run_again_when_accepted(workshop: "Workshop") -> None:
    workshop.task("same")
    folder = workshop.task("changing")
    found = workshop.fbench("run", workshop.suite(models=["fake/oracle"]))
    (folder / "workspace" / "more.txt").write_text("more\n")
    refused = workshop.invoke("resume", found["suite_run_id"])
    assert isinstance(refused.exception, UsageError)
    assert f"the task changing in {folder} has changed" in str(refused.exception)
    assert len(workshop.results()) == 2
    again = workshop.fbench("resume", found["suite_run_id"], "--accept-changes")
    assert again["totals"]["completed"] == 2
    assert Counter(result.task_id for result in workshop.results()) == {"same": 1, "changing": 2}
    hashes = {result.task_hash for result in workshop.results() if result.task_id == "changing"}
    assert len(hashes) == 2
    assert workshop.fbench("resume", found["suite_run_id"])["runs"] == again["runs"]
    assert len(load_suite_outcome(workshop.runs_dir, found["suite_run_id"]).earlier) == 1


@pytest.mark.parametrize("gone", ["task", "suite"])
def test_what_is_gone_is_noticed(workshop: "Workshop", gone: str) -> None:
    folder = workshop.task("one")
    path = workshop.suite(models=["fake/nop"])
    found = workshop.fbench("run", path)
    (folder if gone == "task" else path).rename(workshop.root / "elsewhere")
    refused = workshop.invoke("resume", found["suite_run_id"])
    assert isinstance(refused.exception, UsageError)
    assert ("one cannot be read any more" if gone == "task" else "suite.yaml is gone") in str(refused.exception)


def test_a_resume_tries_runs_in_error_again_and_keeps_the_earlier_attempt(workshop: "Workshop") -> None:
    switch = workshop.root / "switch"
    workshop.task("one")
    workshop.task("two", environment={"setup": [f"test -e {switch}"]})
    found = workshop.fbench("run", workshop.suite(models=["fake/oracle"]), expect=3)
    assert found["totals"]["error"] == 1
    switch.touch()
    again = workshop.fbench("resume", found["suite_run_id"])
    assert again["totals"]["completed"] == 2
    assert Counter(result.status for result in workshop.results()) == {"completed": 2, "error": 1}
    outcome = load_suite_outcome(workshop.runs_dir, found["suite_run_id"])
    assert [result.status for result in outcome.earlier] == ["error"]


@pytest.mark.parametrize(
    "damage", [lambda data: data[:100], lambda data: data.replace(b'"score": 1.0', b'"score": NaN')]
)
def test_a_damaged_result_is_owed_again(workshop: "Workshop", damage: Callable[[bytes], bytes]) -> None:
    workshop.task("one")
    found = workshop.fbench("run", workshop.suite(models=["fake/oracle"], attempts=2))
    damaged = Path(found["runs"][0]["folder"], "result.json")
    damaged.write_bytes(damage(damaged.read_bytes()))
    again = workshop.fbench("resume", found["suite_run_id"])
    assert again["totals"]["completed"] == 2
    assert again["runs"][0]["run_id"] != found["runs"][0]["run_id"]
    assert again["runs"][1] == found["runs"][1]


def test_the_folders_decide_and_not_the_index(workshop: "Workshop") -> None:
    workshop.task("one")
    found = workshop.fbench("run", workshop.suite(models=["fake/oracle"], attempts=3))
    (workshop.runs_dir / "runs.sqlite").write_bytes(b"no database")
    Path(found["runs"][1]["folder"], "result.json").unlink()
    again = workshop.fbench("resume", found["suite_run_id"])
    assert [run["run_id"] == old["run_id"] for run, old in zip(again["runs"], found["runs"], strict=True)] == [
        True, False, True,
    ]  # fmt: skip


def test_two_processes_cannot_run_one_suite_run(workshop: "Workshop") -> None:
    workshop.task("one")
    path = workshop.suite(models=[workshop.script("slow", command="sleep 60")])
    with started(workshop, "run", path) as process:
        process.until(lambda: bool(list(workshop.runs_dir.glob("*/transcript.jsonl"))))
        (suite_run_id,) = suite_runs_in(workshop.runs_dir)
        refused = workshop.invoke("resume", suite_run_id)
        assert isinstance(refused.exception, SuiteBusy)
        assert f":{process.popen.pid}:" in str(refused.exception)
        # Another suite run in the same folder is nobody's business.
        workshop.fbench("run", workshop.suite(models=["fake/nop"]))
        process.end(signal.SIGKILL)
    with hold_suite_run(workshop.runs_dir / suite_run_id):  # the lock died with its process
        pass


def test_a_lock_is_not_handed_on_to_programs_that_are_started(workshop: "Workshop") -> None:
    folder = workshop.root / "suite"
    with hold_suite_run(folder):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with hold_suite_run(folder):
            assert f":{os.getpid()}:" in (folder / LOCK).read_text()
    finally:
        child.communicate(b"\n", timeout=PATIENCE_S)


def test_a_suite_run_is_found_by_the_beginning_of_its_id(workshop: "Workshop") -> None:
    workshop.task("one")
    found = workshop.fbench("run", workshop.suite(models=["fake/nop"]))["suite_run_id"]
    assert find_suite_run(workshop.runs_dir, found[:-3]).name == found
    with pytest.raises(UsageError, match=found):
        find_suite_run(workshop.runs_dir, "2020")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"schema_version": 99}', "upgrade fbench"),
        ('{"schema_version": 1}', "is damaged"),
        ("[]", "is damaged: `the whole`"),
        ("{", "cannot be read"),
    ],
)
def test_a_plan_that_says_nothing_certain_is_refused(workshop: "Workshop", text: str, words: str) -> None:
    workshop.runs_dir.mkdir()
    (workshop.runs_dir / PLAN).write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        read_plan(workshop.runs_dir)
    assert ("upgrade fbench" in words) or "`fbench runs --suite runs` lists them" in str(caught.value)
