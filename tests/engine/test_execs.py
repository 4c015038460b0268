"""One command in a real sandbox: timeouts, bounded output, cancellation."""

import time
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbench.engine.execs import OutputBuffer, cut_text, run_exec
from fbench.engine.seams import ExecRequest, SandboxSpec
from fbench.sandboxes.local import open_sandbox


@pytest.fixture
def spec(tmp_path: Path) -> SandboxSpec:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "scratch").mkdir()
    return SandboxSpec("run", tmp_path / "workspace", tmp_path / "scratch")


def shell(command: str) -> ExecRequest:
    return ExecRequest(("bash", "-c", command))


@given(st.lists(st.binary(max_size=40)), st.integers(0, 50))
def test_the_buffer_keeps_head_and_tail_and_counts_the_rest(pieces: list[bytes], keep: int) -> None:
    buffer = OutputBuffer(keep)
    for piece in pieces:
        buffer.add(piece)
    whole = b"".join(pieces)
    assert buffer.total_bytes == len(whole)
    assert buffer.dropped_bytes == max(0, len(whole) - keep)
    if len(whole) <= keep:
        assert buffer.head() == whole
        assert buffer.tail() == b""
        assert buffer.text() == whole.decode(errors="replace")
    else:
        assert len(buffer.head() + buffer.tail()) == keep
        assert whole.startswith(buffer.head())
        assert whole.endswith(buffer.tail())
        assert "bytes left out ...]" in buffer.text()


@given(st.text(min_size=30, max_size=200), st.integers(8, 25))
def test_the_gap_never_tears_a_character(text: str, keep: int) -> None:
    shown, dropped = cut_text(text, keep)
    assert dropped > 0
    assert "\ufffd" not in shown.replace("\ufffd" if "\ufffd" in text else "", "")


def test_the_note_says_how_much_was_left_out() -> None:
    shown, dropped = cut_text("a" * 50 + "b" * 50, 20)
    assert shown == "a" * 10 + "\n[... 80 bytes left out ...]\n" + "b" * 10
    assert dropped == 80


def test_many_small_pieces_cost_little() -> None:
    buffer = OutputBuffer(100_000)
    started = time.monotonic()
    for _ in range(500_000):
        buffer.add(b"x")
    assert time.monotonic() - started < 3
    assert buffer.dropped_bytes == 400_000


async def test_output_and_exit_code_come_back(spec: SandboxSpec) -> None:
    seen: list[bytes] = []
    async with open_sandbox(spec) as sandbox:
        result = await run_exec(
            sandbox, shell("echo out; echo err >&2; exit 3"), timeout_s=20, keep_bytes=1000, on_output=seen.append
        )
        apart = await run_exec(
            sandbox,
            ExecRequest(("bash", "-c", "echo out; echo err >&2"), merge_stderr=False),
            timeout_s=20,
            keep_bytes=1000,
        )
    assert (result.exit_code, result.output, result.stderr) == (3, "out\nerr\n", "")
    assert b"".join(seen) == b"out\nerr\n" == result.stdout_bytes
    assert (apart.exit_code, apart.output, apart.stderr) == (0, "out\n", "err\n")
    assert not result.timed_out


async def test_a_timeout_ends_the_tree_and_keeps_what_was_printed(spec: SandboxSpec) -> None:
    mark = spec.workspace / "mark"
    command = "echo before; (setsid bash -c 'while :; do date +%N >mark; sleep 0.05; done' &) ; sleep 60"
    async with open_sandbox(spec) as sandbox:
        result = await run_exec(sandbox, shell(command), timeout_s=1, keep_bytes=1000)
        assert result.timed_out
        assert result.exit_code is None
        assert result.output == "before\n"
        assert result.duration_s < 10
        text = mark.read_text()
        await anyio.sleep(0.3)
        assert mark.read_text() == text
        again = await run_exec(sandbox, shell("echo alive"), timeout_s=20, keep_bytes=1000)
        assert again.output == "alive\n"


async def test_endless_output_stays_in_bounds(spec: SandboxSpec) -> None:
    async with open_sandbox(spec) as sandbox:
        result = await run_exec(sandbox, shell("yes"), timeout_s=1, keep_bytes=1000)
    assert result.timed_out
    assert len(result.stdout_bytes) == 1000
    assert result.dropped_bytes > 100_000


async def test_a_cancellation_from_outside_goes_on(spec: SandboxSpec) -> None:
    ended = False
    async with open_sandbox(spec) as sandbox:
        with anyio.move_on_after(0.5) as scope:
            await run_exec(sandbox, shell("sleep 60"), timeout_s=50, keep_bytes=1000)
            ended = True
    assert scope.cancelled_caught
    assert not ended


async def test_a_program_that_is_not_there_is_a_value(spec: SandboxSpec) -> None:
    async with open_sandbox(spec) as sandbox:
        result = await run_exec(sandbox, ExecRequest(("no-such-program",)), timeout_s=20, keep_bytes=1000)
    assert result.exit_code == 127
    assert result.reason
