"""What a judge is shown of hostile or odd workspaces."""

import os
from pathlib import Path
from typing import Any

import pytest

from fbench.engine.confine import ConfinedFolder
from fbench.engine.seams import CheckContext, Materials
from fbench.judging.gather import CannotEvaluate
from fbench.judging.rubric_evidence import MAX_ARTIFACT_CHARS, MAX_TOTAL_CHARS, Exhibit, gather_exhibits
from fbench.judging.rubric_file import parse_rubric


def shown(workspace: Path, settings: str, **materials: Any) -> list[Exhibit]:
    rubric = parse_rubric(f"---\ncriteria: [{{id: a, text: x}}]\n{settings}\n---\n", "rubric.md")
    context = CheckContext(
        ConfinedFolder(workspace, "/workspace"),
        workspace,
        workspace,
        open_sandbox=lambda: pytest.fail("evidence needs no sandbox"),
        materials=Materials(**materials),
    )
    return gather_exhibits(rubric.settings, context)


def test_artifacts_come_in_the_rubrics_order_each_once(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "sub/c.py", "sub/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    found = shown(tmp_path, "diff: false\nartifacts: [sub/d.txt, '**/*.py', '*.py', 'no/*.md', absent.md]")
    assert [exhibit.title for exhibit in found] == [
        "file sub/d.txt", "file a.py", "file b.py", "file sub/c.py", "files no/*.md", "file absent.md"
    ]  # fmt: skip
    assert found[0].text == "sub/d.txt"
    assert found[-1].text is None


def test_links_that_lead_out_devices_and_binaries_are_named_and_not_read(tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    workspace.mkdir()
    (tmp_path / "secret").write_text("the secret")
    (workspace / "out").symlink_to(tmp_path / "secret")
    os.mkfifo(workspace / "pipe")
    (workspace / "data").write_bytes(b"\0\1")
    found = shown(workspace, "diff: false\nartifacts: [out, pipe, data]")
    assert [exhibit.text for exhibit in found] == [None, None, None]
    assert "binary: 2 bytes" in found[2].note


def test_evidence_is_bounded_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.txt").write_text("x" * 10 * MAX_ARTIFACT_CHARS)
    found = shown(tmp_path, "diff: false\nartifacts: ['*.txt']")
    assert sum(len(exhibit.text or "") for exhibit in found) <= MAX_TOTAL_CHARS
    assert "characters left out" in (found[0].text or "")
    assert found[-1].text is None
    assert "left out" in found[-1].note


def test_a_diff_that_is_not_there_cannot_be_judged(tmp_path: Path) -> None:
    with pytest.raises(CannotEvaluate, match="this run has none"):
        shown(tmp_path, "", diff=tmp_path / "workspace.diff")


def test_the_transcript_is_told_without_times(tmp_path: Path) -> None:
    (tmp_path / "transcript.jsonl").write_text(
        '{"type": "message", "turn": 1, "role": "assistant", "content": "I look.", "time": "2026"}\n'
        '{"type": "tool_started", "turn": 1, "name": "bash", "arguments": "{}", "time": "2026"}\n'
        '{"type": "tool_finished", "turn": 1, "exit_code": 0, "output": "3 passed in 0.12s", "duration_s": 0.1}\n'
        '{"type": "message", "tur'
    )
    [exhibit] = shown(tmp_path, "diff: false\ntranscript: true", transcript=tmp_path / "transcript.jsonl")
    assert exhibit.text == (
        "[turn 1] assistant: I look.\n\n[turn 1] calls bash: {}\n\n[turn 1] output, exit code 0: 3 passed in DURATION"
    )
