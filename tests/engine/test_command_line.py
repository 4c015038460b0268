"""The command line as a user meets it: whole processes, exit codes, signals, what stands on stdout."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fbench.engine.scratch import scratch_root

if TYPE_CHECKING:
    from tests.engine.conftest import MakeScript, MakeTask

FBENCH = (sys.executable, "-P", "-c", "from fbench.engine.cli import main; main()")
PATIENCE_S = 60.0
HEAVY = (
    "pydantic",
    "structlog",
    "openai",
    "httpx",
    "aiosqlite",
    "aiodocker",
    "python_on_whales",
    "anyio",
    "yaml",
    "click",
)

Fbench = Callable[..., subprocess.CompletedProcess[str]]


def wait_for(condition: Callable[[], bool]) -> None:
    """Until `condition` holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_help_imports_nothing_heavy(environ: dict[str, str]) -> None:
    code = (
        "import sys; sys.argv = ['fbench', '--help']\n"
        "from fbench.engine.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environ, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"
    assert "list-tasks" in done.stdout


def test_the_cheap_help_is_the_one_click_would_print() -> None:
    from click.testing import CliRunner

    from fbench.engine.cli import help_text
    from fbench.engine.commands.root import root

    assert help_text() + "\n" == CliRunner().invoke(root, ["--help"], prog_name="fbench").output


def test_output_that_cannot_be_written_is_told_in_one_line(environ: dict[str, str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*FBENCH, "list-tasks"], env=environ, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_a_dotenv_that_is_a_pipe_is_not_waited_for(fbench: Fbench, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cwd" / ".env")
    assert fbench("list-tasks").returncode == 0


def test_a_run_prints_its_verdict_and_folder(fbench: Fbench, make_task: "MakeTask") -> None:
    done = fbench("run", "--task", str(make_task()), "--model", "fake/oracle", "--sandbox", "local")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PASSED  small_task  fake/oracle  score 1")
    assert "runs/20" in done.stdout
    assert "turn 1: bash" in done.stderr


def test_json_is_one_document_and_quiet_is_quiet(fbench: Fbench, make_task: "MakeTask") -> None:
    done = fbench("run", "--task", str(make_task()), "--model", "fake/nop", "--sandbox", "local", "--json", "--quiet")
    document = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (document["status"], document["passed"], document["schema_version"]) == ("completed", False, 1)
    assert Path(document["folder"]).name == document["run_id"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--model", "fake/nop", "--fail-under", "0.5"), 1, ""),
        (("--model", "fake/oracle", "--fail-under", "1"), 0, ""),
        (("--model", "openai/gpt-4o"), 2, "OPENAI_API_KEY"),
        (("--model", "fake/orcale"), 2, "fake/oracle"),
        (("--model", "nobody/x"), 2, "nobody"),
        (("--model", "fake/script:missing.yaml"), 2, "missing.yaml"),
        (("--model", "fake/nop", "--max-tokens", "-1"), 2, "max-tokens"),
        (("--model", "fake/nop", "--max-cost", "nan"), 2, "max-cost"),
        (("--model", "fake/nop", "--max-cost", "1e400"), 2, "max-cost"),
        (("--model", "fake/nop", "--max-wall-time", "inf"), 2, "no finite number"),
        (("--model", "fake/nop", "--fail-under", "nan"), 2, "no finite number"),
        (("--model", "openai/unpriced-model", "--max-cost", "1", "--base-url", "http://127.0.0.1:9/v1"), 2, "price"),
        (("--model", "openai/x", "--base-url", "http://127.0.0.1:9/v1", "--max-model-wait", "0"), 3, ""),
    ],
)
def test_exit_codes_say_how_it_went(
    fbench: Fbench, make_task: "MakeTask", arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = fbench("run", "--task", str(make_task()), "--sandbox", "local", *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_json_and_quiet_come_from_the_environment_too(fbench: Fbench, make_task: "MakeTask") -> None:
    arguments = ("run", "--task", str(make_task()), "--model", "fake/nop", "--sandbox", "local")
    done = fbench(*arguments, FBENCH_JSON="1", FBENCH_QUIET="1")
    assert done.stderr == ""
    assert json.loads(done.stdout)["status"] == "completed"
    for listing in (("list-tasks",), ("pricing", "show"), ("runs",)):
        assert json.loads(fbench(*listing, FBENCH_JSON="1").stdout)


@pytest.mark.parametrize(("content", "words"), [(b"no assignment\n", ".env:1"), (b"\xff\xfe", "cannot read .env")])
def test_a_broken_dotenv_is_wrong_usage(fbench: Fbench, tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "cwd" / ".env").write_bytes(content)
    done = fbench("list-tasks")
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2> >(exec head -c 1 >/dev/null)"])
def test_a_lost_stderr_costs_the_progress_not_the_run(
    make_task: "MakeTask", environ: dict[str, str], tmp_path: Path, redirection: str
) -> None:
    arguments = ("run", "--task", str(make_task()), "--model", "fake/oracle", "--sandbox", "local", "--json")
    done = subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", *FBENCH, *arguments],
        cwd=tmp_path,
        env=environ,
        stdout=subprocess.PIPE,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["passed"] is True


def test_a_disk_that_fills_up_ends_the_run_as_an_error_with_its_result(
    make_task: "MakeTask",
    make_script: "MakeScript",
    environ: dict[str, str],
    tmp_path: Path,
    need_bubblewrap: Callable[[], None],
) -> None:
    need_bubblewrap()  # it makes a small disk here
    shout = {"tool_calls": [{"name": "bash", "arguments": {"command": "printf %15000s"}}]}
    model = make_script([shout], loop=True)
    (tmp_path / "runs").mkdir()
    small_disk = ("bwrap", "--dev-bind", "/", "/", "--size", str(2 * 1024**2), "--tmpfs", str(tmp_path / "runs"))
    arguments = ("run", "--task", str(make_task()), "--model", model, "--sandbox", "local", "--max-turns", "none")
    script = '"$@"; echo "code $?"; cat runs/*/result.json; tail -n 1 runs/*/transcript.jsonl | tr -d "\\n"'
    done = subprocess.run(
        [*small_disk, "bash", "-c", script, "bash", *FBENCH, *arguments],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert "\ncode 3\n" in done.stdout, done.stderr
    stored, _, last_line = done.stdout.partition("\ncode 3\n")[2].rpartition("\n")
    result = json.loads(stored)
    assert (result["status"], result["error"]["kind"], result["score"]) == ("error", "host_io", None)
    assert result["tool_calls"] > 0
    assert json.loads(last_line)["type"] == "run_finished"
    assert "Traceback" not in done.stderr


def test_an_unknown_task_names_the_near_one(fbench: Fbench) -> None:
    done = fbench("run", "--task", "hello_repo_fx", "--model", "fake/nop")
    assert done.returncode == 2
    assert "hello_repo_fix" in done.stderr


def test_a_broken_manifest_is_told_whole(fbench: Fbench, make_task: "MakeTask") -> None:
    task = make_task(tools={"stile": "native"}, budget={"tokens": "many"})
    done = fbench("run", "--task", str(task), "--model", "fake/nop")
    assert done.returncode == 2
    assert "stile" in done.stderr
    assert "style" in done.stderr
    assert "budget.tokens" in done.stderr


def test_options_come_from_the_environment_and_a_dotenv(fbench: Fbench, make_task: "MakeTask", tmp_path: Path) -> None:
    (tmp_path / "cwd" / ".env").write_text("FBENCH_MODEL=fake/oracle\nFBENCH_SANDBOX=docker\n# a comment\n")
    done = fbench("run", "--json", FBENCH_TASK=str(make_task()), FBENCH_SANDBOX="local")
    document = json.loads(done.stdout)
    assert (document["model"], document["sandbox"]) == ("fake/oracle", "local")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_cancelled_result_and_no_process(
    environ: dict[str, str],
    make_task: "MakeTask",
    make_script: "MakeScript",
    tmp_path: Path,
    number: signal.Signals,
    code: int,
) -> None:
    pids = tmp_path / "pids"
    command = f"setsid sleep 300 & echo $! > {pids}; echo $$ >> {pids}; sleep 300"
    process, folder = _start_long_run(environ, make_task, make_script, tmp_path, command)
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code, err
    document = json.loads(out)
    assert (document["status"], document["score"]) == ("cancelled", None)
    assert json.loads((folder / "result.json").read_text())["status"] == "cancelled"
    for pid in pids.read_text().split():
        assert not Path(f"/proc/{pid}").exists()
    last = json.loads((folder / "transcript.jsonl").read_text().splitlines()[-1])
    assert (last["type"], last["status"]) == ("run_finished", "cancelled")
    assert not (scratch_root() / folder.name).exists()


def test_sigkill_leaves_a_readable_transcript_no_process_and_an_index_that_rebuilds(
    environ: dict[str, str],
    make_task: "MakeTask",
    make_script: "MakeScript",
    tmp_path: Path,
    fbench: Fbench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A temporary folder of its own: each run that starts beside this test sweeps what dead runs left in the shared one.
    environ["TMPDIR"] = str(tmp_path / "tmp")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", environ["TMPDIR"])
    pids = tmp_path / "pids"
    command = f"setsid sleep 300 & echo $! > {pids}; echo $$ >> {pids}; sleep 300"
    process, folder = _start_long_run(environ, make_task, make_script, tmp_path, command)
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.read_text().split()))
    assert not (folder / "result.json").exists()
    lines = [json.loads(line) for line in (folder / "transcript.jsonl").read_text().splitlines()]
    assert lines[-1]["type"] == "tool_started"
    assert fbench("index", "rebuild", "--runs-dir", str(tmp_path / "runs")).returncode == 0
    listed = json.loads(fbench("runs", "--runs-dir", str(tmp_path / "runs"), "--json").stdout)
    assert "unfinished" in json.dumps(listed)
    assert (scratch_root() / folder.name).exists()
    assert folder.name in fbench("clean").stdout
    assert not (scratch_root() / folder.name).exists()


def _start_long_run(
    environ: dict[str, str], make_task: "MakeTask", make_script: "MakeScript", tmp_path: Path, command: str
) -> tuple[subprocess.Popen[str], Path]:
    """A run whose first tool call has begun and will not end by itself, and its folder."""
    calls: list[dict[str, Any]] = [{"name": "bash", "arguments": {"command": command}}]
    model = make_script([{"tool_calls": calls}])
    runs = tmp_path / "runs"
    process = subprocess.Popen(
        [*FBENCH, *f"run --model {model} --sandbox local --json --runs-dir {runs} --task {make_task()}".split()],
        cwd=tmp_path,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def has_begun() -> bool:
        assert process.poll() is None, process.communicate()[1]
        return any('"tool_started"' in path.read_text() for path in runs.glob("*/transcript.jsonl"))

    wait_for(has_begun)
    return process, next(runs.glob("*/transcript.jsonl")).parent
