"""The commands of the README and of the guide to tasks do what they say, on a machine as a newcomer has it.

Both are followed twice: with the Docker engine of this machine, where it has one, and with none.
"""

import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import pytest

from fbench.engine.errors import UsageError
from fbench.sandboxes.bubblewrap import probe
from fbench.sandboxes.choose import choose_sandbox, probe_engine, probe_image
from fbench.sandboxes.compose_client import probe as probe_compose
from fbench.tasks.manifest import DEFAULT_IMAGE, Environment

if TYPE_CHECKING:
    import subprocess

CommandRun = Callable[..., "subprocess.CompletedProcess[str]"]
NOX = "pip install uv && uv run nox"
IMAGES = """\
docker pull python:3.11-slim-bookworm
docker pull debian:bookworm-slim
uv run fbench images build
uv run fbench images check"""
# What is not run: this is nox; and images take minutes, need a registry, and would replace those this machine has.
LEFT_OUT = (NOX, IMAGES)
SERVER_IN_TEXT = "http://127.0.0.1:8000/v1"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    language: str
    text: str


def _blocks(document: Path) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(document.read_text(encoding="utf-8"))]


class Machine(NamedTuple):
    """What is here to run models in.

    Attributes:
        sandbox: what a real model gets for a task that needs nothing; None when it is refused.
        services_code: how a run beside a PostgreSQL service ends: 0, 2 when it is refused, 3 without the images.
        env: what makes it so.
    """

    sandbox: str | None
    services_code: int
    env: dict[str, str]


@pytest.fixture(scope="module", params=["its engine", "no engine"])
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """What is here; CI says what must be."""
    env = {}
    if request.param == "no engine":
        env["DOCKER_HOST"] = f"unix://{tmp_path_factory.mktemp('no-engine')}/docker.sock"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        found = Machine(*anyio.run(_look), env)
    trouble = anyio.run(probe)
    assert trouble is None or os.environ.get("FBENCH_REQUIRE_BUBBLEWRAP") != "1", trouble
    if os.environ.get("FBENCH_REQUIRE_DOCKER") == "1" and not env:
        assert (found.sandbox, found.services_code) == ("docker", 0)
    return found


async def _look() -> tuple[str | None, int]:
    sandbox = None
    with suppress(UsageError):
        sandbox = (await choose_sandbox("auto", Environment(image=DEFAULT_IMAGE), model_is_fake=False)).kind
    if await probe_engine() is not None or await probe_compose() is not None:
        return sandbox, 2
    has_images = await probe_image(DEFAULT_IMAGE) and await probe_image("fbench/postgres:1")
    return sandbox, 0 if has_images else 3


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
    machine: Machine,
) -> Newcomer:
    clone = copy_checkout(tmp_path / "fbench")
    run_command([uv, "venv", "--seed", "--python", sys.executable, tmp_path / "python"], cwd=tmp_path)
    env = {
        **plain_environment,
        **machine.env,
        "PATH": f"{tmp_path / 'python' / 'bin'}:{plain_environment['PATH']}",
        "OPENAI_API_KEY": "a-key-of-the-test",
        "OPENAI_BASE_URL": model_server.base_url,
    }
    return Newcomer(clone, env)


def _run_blocks(blocks: list[Block], newcomer: Newcomer, run_command: CommandRun, machine: Machine) -> list[str]:
    """Run each block in turn in the clone; what asks for a real model or for services is refused without a sandbox."""
    outputs = []
    for block in blocks:
        text = block.text.replace(SERVER_IN_TEXT, newcomer.env["OPENAI_BASE_URL"])
        if block.language == "python":
            script = newcomer.clone.parent / "example.py"
            script.write_text(text, encoding="utf-8")
            command: list[str | Path] = ["uv", "run", "python", script]
        else:
            command = ["bash", "-euo", "pipefail", "-c", text]
        code = 0
        if ("--model openai/" in text or "--model local/" in text) and machine.sandbox is None:
            code = 2
        elif "postgres_migration" in text:
            code = machine.services_code
        done = run_command(command, cwd=newcomer.clone, env=newcomer.env, expect=code)
        assert code == 0 or "Docker" in done.stdout + done.stderr
        outputs.append(done.stdout)
    return outputs


def _results(clone: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(clone.glob("runs/*/result.json"))]


def test_the_commands_of_the_readme_do_what_it_says(
    repository: Path, newcomer: Newcomer, model_server: Any, run_command: CommandRun, machine: Machine
) -> None:
    blocks = _blocks(repository / "README.md")
    assert {block.language for block in blocks} == {"bash", "python"}, "a block that is not run may be wrong"
    assert blocks[0].text.strip() == "pip install uv && uv run fbench run --task hello_repo_fix --model fake/oracle"
    texts = [block.text.strip() for block in blocks]
    assert [texts.count(left_out) for left_out in LEFT_OUT] == [1] * len(LEFT_OUT)

    runnable = [block for block in blocks if block.text.strip() not in LEFT_OUT]
    outputs = _run_blocks(runnable, newcomer, run_command, machine)

    results = _results(newcomer.clone)
    by_oracle = [result for result in results if result["model"] == "fake/oracle" and result["status"] != "error"]
    with_services = {"postgres_migration"} if machine.services_code == 0 else set()
    assert {result["task_id"] for result in by_oracle} == {"hello_repo_fix", "greeting"} | with_services
    assert {(result["status"], result["passed"], result["score"]) for result in by_oracle} == {("completed", True, 1.0)}
    faults = [result["error"]["kind"] for result in results if result["status"] == "error"]
    assert faults == (["image_missing"] if machine.services_code == 3 else [])
    assert outputs[-1].strip() == "completed 1.0"
    by_model = [result for result in results if result["model"].startswith(("openai/", "local/"))]
    if machine.sandbox is not None:
        assert {(result["status"], result["end_reason"]) for result in by_model} == {("completed", "submitted")}
        assert {(result["sandbox"], result["isolated"]) for result in by_model} == {(machine.sandbox, True)}
        assert {(result["task_id"], result["model"]) for result in by_model} == {
            ("hello_repo_fix", "openai/gpt-4o-mini"),
            ("hello_repo_fix", "openai/my-model"),
            ("hello_repo_fix", "local/qwen3"),
            ("pandas_transform", "openai/gpt-4o-mini"),
        }
        assert [result["tokens"]["total"] for result in by_model] == [110] * len(model_server.calls)
    else:
        assert by_model == []
        assert model_server.calls == []


def test_the_commands_of_the_guide_to_tasks_do_what_it_says(
    repository: Path, newcomer: Newcomer, run_command: CommandRun, machine: Machine
) -> None:
    blocks = [block for block in _blocks(repository / "docs" / "writing-a-task.md") if block.language == "bash"]
    assert blocks
    _run_blocks(blocks, newcomer, run_command, machine)
    scores = {result["model"]: (result["passed"], result["score"]) for result in _results(newcomer.clone)}
    assert scores["fake/oracle"] == (True, 1.0)
    lock = json.loads((newcomer.clone.parent / "word_count" / "task.lock").read_text(encoding="utf-8"))
    assert (lock["is_valid"], lock["solution_passed"], lock["untouched_score"]) == (True, 1, 0.0)


def test_the_commands_that_make_images_are_there(repository: Path, run_command: CommandRun) -> None:
    fbench = Path(sys.executable).parent / "fbench"
    commands = [line.split()[3:] for line in IMAGES.splitlines() if line.startswith("uv run fbench ")]
    assert [len(words) for words in commands] == [2, 2]
    for words in commands:
        assert f"fbench {' '.join(words)}" in run_command([fbench, *words, "--help"], cwd=repository).stdout


def test_links_between_documents_lead_somewhere(repository: Path) -> None:
    missing = []
    for document in (repository / "README.md", *sorted((repository / "docs").rglob("*.md"))):
        targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
        missing += [f"{document.name}: {target}" for target in targets if not (document.parent / target).exists()]
    assert missing == []
