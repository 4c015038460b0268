"""The commands of the README and of the guide to tasks do what they say, on a machine as a newcomer has it."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import pytest

from fbench.sandboxes.bubblewrap import probe

if TYPE_CHECKING:
    import subprocess

CommandRun = Callable[..., "subprocess.CompletedProcess[str]"]
NOX = "pip install uv && uv run nox"
SERVER_IN_TEXT = "http://127.0.0.1:8000/v1"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    language: str
    text: str


def _blocks(document: Path) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(document.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def has_bubblewrap() -> bool:
    """Whether real models can be isolated here; CI says that they must be."""
    trouble = anyio.run(probe)
    assert trouble is None or os.environ.get("FBENCH_REQUIRE_BUBBLEWRAP") != "1", trouble
    return trouble is None


class Newcomer(NamedTuple):
    """A clone, and the environment of somebody with Python and pip, whose model server is on loopback."""

    clone: Path
    env: dict[str, str]


@pytest.fixture
def newcomer(
    tmp_path: Path,
    copy_checkout: Callable[[Path], Path],
    plain_environment: dict[str, str],
    model_server: Any,
    uv: str,
    run_command: CommandRun,
) -> Newcomer:
    clone = copy_checkout(tmp_path / "fbench")
    run_command([uv, "venv", "--seed", "--python", sys.executable, tmp_path / "python"], cwd=tmp_path)
    env = {
        **plain_environment,
        "PATH": f"{tmp_path / 'python' / 'bin'}:{plain_environment['PATH']}",
        "OPENAI_API_KEY": "a-key-of-the-test",
        "OPENAI_BASE_URL": model_server.base_url,
    }
    return Newcomer(clone, env)


def _run_blocks(blocks: list[Block], newcomer: Newcomer, run_command: CommandRun, *, isolates: bool) -> list[str]:
    """Run each block in turn in the clone; a block that asks for a real model is refused without a sandbox."""
    outputs = []
    for block in blocks:
        text = block.text.replace(SERVER_IN_TEXT, newcomer.env["OPENAI_BASE_URL"])
        if block.language == "python":
            script = newcomer.clone.parent / "example.py"
            script.write_text(text, encoding="utf-8")
            command: list[str | Path] = ["uv", "run", "python", script]
        else:
            command = ["bash", "-euo", "pipefail", "-c", text]
        refused = "--model openai/" in text and not isolates
        done = run_command(command, cwd=newcomer.clone, env=newcomer.env, expect=2 if refused else 0)
        assert not refused or "bubblewrap" in done.stderr
        outputs.append(done.stdout)
    return outputs


def _results(clone: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(clone.glob("runs/*/result.json"))]


def test_the_commands_of_the_readme_do_what_it_says(
    repository: Path, newcomer: Newcomer, model_server: Any, run_command: CommandRun, has_bubblewrap: bool
) -> None:
    blocks = _blocks(repository / "README.md")
    assert {block.language for block in blocks} == {"bash", "python"}, "a block that is not run may be wrong"
    assert blocks[0].text.strip() == "pip install uv && uv run fbench run --task hello_repo_fix --model fake/oracle"
    assert [block.text.strip() for block in blocks].count(NOX) == 1

    runnable = [block for block in blocks if block.text.strip() != NOX]
    outputs = _run_blocks(runnable, newcomer, run_command, isolates=has_bubblewrap)

    results = _results(newcomer.clone)
    by_oracle = [result for result in results if result["model"] == "fake/oracle"]
    assert {result["task_id"] for result in by_oracle} == {"hello_repo_fix", "greeting"}
    assert {(result["status"], result["passed"], result["score"]) for result in by_oracle} == {("completed", True, 1.0)}
    assert outputs[-1].strip() == "completed 1.0"
    by_model = [result for result in results if result["model"].startswith("openai/")]
    if has_bubblewrap:
        assert {(result["status"], result["end_reason"]) for result in by_model} == {("completed", "submitted")}
        assert {result["isolated"] for result in by_model} == {True}
        assert {(result["task_id"], result["model"]) for result in by_model} == {
            ("hello_repo_fix", "openai/gpt-4o-mini"),
            ("hello_repo_fix", "openai/my-model"),
            ("pandas_transform", "openai/gpt-4o-mini"),
        }
        assert [result["tokens"]["total"] for result in by_model] == [110] * len(model_server.calls)
    else:
        assert by_model == []
        assert model_server.calls == []


def test_the_commands_of_the_guide_to_tasks_do_what_it_says(
    repository: Path, newcomer: Newcomer, run_command: CommandRun, has_bubblewrap: bool
) -> None:
    blocks = [block for block in _blocks(repository / "docs" / "writing-a-task.md") if block.language == "bash"]
    assert blocks
    _run_blocks(blocks, newcomer, run_command, isolates=has_bubblewrap)
    scores = {result["model"]: (result["passed"], result["score"]) for result in _results(newcomer.clone)}
    assert scores["fake/oracle"] == (True, 1.0)
    assert scores["fake/nop"] == (False, 0.0)


def test_links_between_documents_lead_somewhere(repository: Path) -> None:
    missing = []
    for document in (repository / "README.md", *sorted((repository / "docs").rglob("*.md"))):
        targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
        missing += [f"{document.name}: {target}" for target in targets if not (document.parent / target).exists()]
    assert missing == []
