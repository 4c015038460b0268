"""A suite of 40 runs, killed with SIGKILL at 50 random moments and resumed each time, against a priced model.

Each run must end with one final verdict, no finished run may be made again, what ledgers hold must be what is reported,
and nothing may be left behind. `FBENCH_BENCH_KILLS` changes the number, `FBENCH_BENCH_SEED` the moments.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fbench.engine.records.ledger import read_ledger
from fbench.engine.records.reading import run_folders
from fbench.engine.results import RunResult
from fbench.suites.plan import suite_runs_in

if TYPE_CHECKING:
    from tests.benchmarks.conftest import MakeTask, Say
    from tests.loopback.server import LoopbackServer

KILLS = int(os.environ.get("FBENCH_BENCH_KILLS", "50"))
SEED = os.environ.get("FBENCH_BENCH_SEED", "1")
RUNS = 40
CONCURRENCY = 4
AT_WORK = 0.8
"""The share of kills that come once the process has begun a run; the others come at any moment before or after."""
LIFE_S = 4.0
"""The longest life: of those at work since their first run began, of the others since their start."""
CALL_USD = Decimal("0.025")
USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}


class Suite:
    """One suite run after another, each in processes that are killed."""

    def __init__(self, root: Path, arguments: Sequence[str]) -> None:
        self.root = root
        self.runs_dir = root / "runs"
        self._arguments = arguments

    def start(self) -> "subprocess.Popen[bytes]":
        """A new suite run, or the resume of the one there is."""
        there = suite_runs_in(self.runs_dir)
        what = ["resume", there[0]] if there else ["run", str(self.root / "suite.yaml"), *self._arguments]
        code = "from fbench.engine.cli import main; main()"
        return subprocess.Popen(
            [sys.executable, "-c", code, "suite", *what, "--runs-dir", str(self.runs_dir), "--json",
             "--concurrency", str(CONCURRENCY)],
            env={**os.environ, "TMPDIR": str(self.root), "OPENAI_API_KEY": "sk-bench-0123456789"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip

    def final(self) -> dict[str, tuple[str, str, int]]:
        """The planned run that each final result is of, by run id."""
        found = {}
        for path in self.runs_dir.glob("*/result.json"):
            result = RunResult.model_validate_json(path.read_bytes())
            if result.status in {"completed", "killed"}:
                found[result.run_id] = (result.task_id, result.model, result.attempt)
        return found

    def wait_for_a_run(self, process: "subprocess.Popen[bytes]", before: int) -> None:
        """Wait until it has begun a run, or ended."""
        while process.poll() is None and len(run_folders(self.runs_dir)) <= before:
            time.sleep(0.02)

    def processes(self) -> list[str]:
        """Command lines that name the suite's folder."""
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if str(self.root).encode() in (line := file.read_bytes()):
                    found.append(line.replace(b"\0", b" ").decode(errors="replace"))
        return found


@pytest.mark.parametrize("sandbox", ["bubblewrap"])
def test_kills_at_random_moments(
    sandbox: str, make_task: "MakeTask", tmp_path: Path, loopback: "LoopbackServer", say: "Say"
) -> None:
    grader = {"checks": [{"id": "done", "type": "command_exit_zero", "command": "test -f done.txt"}]}
    for number in range(RUNS // 4):
        make_task(f"task_{number}", grader=grader)
    prices = tmp_path / "prices.yaml"
    prices.write_text(yaml.safe_dump({"models": {"openai/loopback-1": {"input": 10, "output": 30}}}))
    call = loopback.call("bash", {"command": "sleep 0.5; echo done > done.txt"})

    def answer(exchange: Any) -> Any:
        has_worked = any(message["role"] == "tool" for message in exchange.request.json["messages"])
        behave = loopback.submit(usage=USAGE) if has_worked else loopback.say("", tool_calls=[call], usage=USAGE)
        return loopback.silence(0.2, behave)(exchange)

    loopback.always(answer)
    dice = random.Random(SEED)
    arguments = ["--base-url", loopback.url, "--prices", str(prices), "--sandbox", sandbox, "--attempts", "4",
                 "--model", "openai/loopback-1"]  # fmt: skip
    tally: Counter[str] = Counter()
    began = time.monotonic()
    while tally["kills"] < KILLS:
        tally["suites"] += 1
        root = tmp_path / f"suite-{tally['suites']}"
        root.mkdir()
        (root / "suite.yaml").write_text(yaml.safe_dump({"id": "kills", "tasks": [f"{tmp_path}/tasks/*"]}))
        _one_suite(Suite(root, arguments), dice, tally, loopback)
    minutes = (time.monotonic() - began) / 60
    say(f"{tally['kills']} kills in {tally['suites']} suite runs of {RUNS} runs ({sandbox}), {minutes:.1f} min")
    say(f"{tally['at work']} kills came while runs were under way")
    say(f"{tally['runs']} runs with one final verdict each, {tally['unfinished']} unfinished folders kept")
    cut_off = tally["answers"] - tally["lines"]
    say(f"{tally['answers']} answers served, {cut_off} of them in no ledger: the process died before they came")


def _one_suite(suite: Suite, dice: random.Random, tally: Counter[str], loopback: "LoopbackServer") -> None:
    """Kill and resume until the suite run ends by itself, then hold everything against what was asked for."""
    served_before = len(loopback._state.usages)
    kills = 0
    while True:
        done_before, folders_before = suite.final(), run_folders(suite.runs_dir)
        process = suite.start()
        try:
            if tally["kills"] >= KILLS:
                left_s = 500.0
            else:
                left_s = dice.uniform(0, LIFE_S)
                if dice.random() < AT_WORK:
                    suite.wait_for_a_run(process, len(folders_before))
            stdout, stderr = process.communicate(timeout=left_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            tally["kills"] += 1
            tally["at work"] += len(run_folders(suite.runs_dir)) > len(folders_before)
            time.sleep(0.5)  # the kernel ends what died with it
            assert suite.processes() == [], "processes outlive the kill"
            assert done_before.items() <= suite.final().items()
            continue
        assert process.returncode == 0, stderr.decode()
        document = json.loads(stdout)
        break
    final = suite.final()
    assert sorted(Counter(final.values()).values()) == [1] * RUNS, "not one final verdict for each planned run"
    assert document["totals"]["completed"] == document["totals"]["passed"] == RUNS
    folders = run_folders(suite.runs_dir)
    ledgers = [folder / "ledger.jsonl" for folder in folders]
    lines = [line for ledger in ledgers if ledger.exists() for line in read_ledger(ledger)]
    paid = sum((line.cost_usd or Decimal(0) for line in lines), Decimal(0))
    assert Decimal(str(document["cost_usd"])) == paid
    answered = [line for line in lines if line.error is None]
    served = len(loopback._state.usages) - served_before
    assert paid == CALL_USD * len(answered)
    # An answer that was on its way when the process died is in no ledger: one a run at most.
    assert len(answered) <= served <= len(answered) + kills * CONCURRENCY
    assert list(suite.root.glob("fbench-*/*")) == [], "scratch folders are left"
    tally["runs"] += len(final)
    tally["unfinished"] += len(folders) - len(final)
    tally["answers"] += served
    tally["lines"] += len(answered)
