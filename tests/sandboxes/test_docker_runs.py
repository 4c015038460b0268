"""Whole runs through the engine with `--sandbox docker`: how they end, and what is left of them."""

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from fbench.engine import Engine, RunOptions, RunResult
from fbench.engine.events import Event, RunFinished, RunStarted, ToolStarted
from fbench.engine.scratch import scratch_root
from fbench.sandboxes.docker_engine import ContainerHost, open_container_host
from fbench.sandboxes.docker_sweep import find_leftovers
from fbench.sandboxes.image_store import LABEL_TASK

LONG_S = 120
DONE_CHECK = {"id": "done", "type": "file_present", "path": "done.txt"}
DAEMON = """(setsid sh -c 'trap "" TERM; exec sleep {tag}' >/dev/null 2>&1 &)"""


@pytest.fixture
async def host(needs_docker: None) -> AsyncIterator[ContainerHost]:
    async with open_container_host() as found:
        yield found


@pytest.fixture
def make_task(tmp_path: Path, image: str) -> Callable[..., Path]:
    """A task folder whose check wants `done.txt`: `make_task(environment={...}, files={...}, checks=[...])`."""

    def make(
        *,
        task_id: str = "in_docker",
        environment: Mapping[str, Any] | None = None,
        files: Mapping[str, str] | None = None,
        checks: list[dict[str, Any]] | None = None,
    ) -> Path:
        folder = tmp_path / "tasks" / task_id
        manifest = {
            "id": task_id,
            "title": "A small task",
            "difficulty": "easy",
            "domain": "testing",
            "environment": environment or {"image": image},
            "agent": {"prompt_text": "Make done.txt."},
            "grader": {"checks": checks or [DONE_CHECK]},
            "solution": "solution/solve.sh",
        }
        contents = {
            "task.yaml": yaml.safe_dump(manifest, sort_keys=False),
            "workspace/readme.txt": "start\n",
            "solution/solve.sh": "echo done > done.txt\n",
            "grader/secret.txt": "the answer\n",
            **(files or {}),
        }
        for name, text in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        return folder

    return make


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., str]:
    """The name of a model that asks for these commands, one a turn."""

    def make(*commands: str) -> str:
        calls = [{"name": "bash", "arguments": {"command": command, "timeout_s": LONG_S}} for command in commands]
        (tmp_path / "script.yaml").write_text(yaml.safe_dump({"turns": [{"tool_calls": [call]} for call in calls]}))
        return f"fake/script:{tmp_path / 'script.yaml'}"

    return make


@pytest.fixture
def run_docker(tmp_path: Path, host: ContainerHost) -> Callable[..., Any]:
    """One run; its result and folder, once it is seen that the engine and the scratch folder hold nothing of it."""

    async def run(task: Path, model: str, watch: Any = None, **options: Any) -> tuple[RunResult, Path]:
        given = {"task": task, "model": model, "sandbox": "docker", "runs_dir": tmp_path / "runs", **options}
        with anyio.fail_after(LONG_S):
            async with Engine(environ={}) as engine:
                result = await engine.run(RunOptions.model_validate(given), *([watch] if watch else []))
        assert await left_of(host, result.run_id) == []
        return result, tmp_path / "runs" / result.run_id

    return run


async def left_of(host: ContainerHost, run_id: str) -> list[str]:
    """What there is of a run on the engine, and of its scratch folder."""
    found = [str(item) for item in await find_leftovers(host.client, partial(is_of_run, run_id))]
    folder = scratch_root() / run_id
    return [*found, *([str(folder)] if folder.exists() else [])]


def is_of_run(run_id: str, labels: Mapping[str, str]) -> bool:
    return labels.get("fbench.run") == run_id


async def test_the_oracle_passes_and_doing_nothing_fails(make_task: Any, run_docker: Any) -> None:
    task = make_task(
        checks=[
            DONE_CHECK,
            {"id": "command", "type": "command_exit_zero", "command": "grep -q answer $FBENCH_GRADER/secret.txt"},
        ]
    )
    result, folder = await run_docker(task, "fake/oracle")
    assert (result.status, result.end_reason, result.passed, result.score) == ("completed", "submitted", True, 1.0)
    assert (result.sandbox, result.isolated, result.tool_calls) == ("docker", True, 1)
    assert (folder / "workspace_final" / "done.txt").read_text() == "done\n"
    assert b"+done" in (folder / "workspace.diff").read_bytes()
    result, _ = await run_docker(task, "fake/nop")
    assert (result.status, result.passed, result.score) == ("completed", False, 0.5)


async def test_every_file_of_a_run_belongs_to_the_user_of_fbench(make_task: Any, script: Any, run_docker: Any) -> None:
    command = (
        "id -u; mkdir -p shut/deep; echo x > shut/deep/file; ln -s /etc/passwd link; chmod 000 shut/deep/file; "
        "chmod 700 shut; echo y > done.txt; chmod 4755 done.txt"
    )
    result, folder = await run_docker(make_task(), script(command))
    assert result.passed is True, result.error
    work = folder / "workspace_final"
    assert (work / "shut" / "deep" / "file").read_text() == "x\n"
    assert (work / "link").is_symlink()
    for path in (folder, *folder.rglob("*")):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (os.geteuid(), os.getegid()), path


async def test_a_wall_time_breach_ends_the_tree_and_the_work_is_judged(
    make_task: Any, script: Any, run_docker: Any, alive: Any, tag: str
) -> None:
    model = script(f"echo half > done.txt; {DAEMON.format(tag=tag)}; sleep {tag}")
    seen: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, RunFinished):
            seen.append(len(alive(tag)))

    result, folder = await run_docker(make_task(), model, watch, max_wall_time=2)
    assert (result.status, result.kill_reason) == ("killed", "budget_exceeded:wall_time")
    assert (result.end_reason, result.passed, result.score) == (None, True, 1.0)
    assert result.duration_s < LONG_S / 4
    assert seen == [0]
    assert "cut off" in (folder / "transcript.jsonl").read_text()


async def test_no_process_of_the_agent_is_alive_when_the_judging_begins(
    make_task: Any, script: Any, run_docker: Any, alive: Any, tag: str
) -> None:
    lives: list[int] = []

    def watch(event: Event) -> None:
        if getattr(event, "phase", "") == "judging":
            lives.append(len(alive(tag)))

    result, _ = await run_docker(
        make_task(), script(f"{DAEMON.format(tag=tag)}; sleep {tag} & echo x > done.txt"), watch
    )
    assert (result.passed, lives) == (True, [0])


@pytest.mark.parametrize("action", ["kill", "remove"])
async def test_a_container_ended_by_hand_is_a_lost_sandbox_and_no_score(
    host: ContainerHost, make_task: Any, script: Any, run_docker: Any, alive: Any, tag: str, action: str
) -> None:
    started = anyio.Event()
    ids: list[str] = []

    def watch(event: Event) -> None:
        if isinstance(event, RunStarted):
            ids.append(event.run_id)
        if isinstance(event, ToolStarted):
            started.set()

    async def end_it() -> None:
        await started.wait()
        await anyio.sleep(0.3)
        (container,) = await host.client.containers.list(filters={"label": [f"fbench.run={ids[0]}"]})
        await (container.kill(signal="SIGKILL") if action == "kill" else container.delete(force=True))

    ended: list[tuple[RunResult, Path]] = []
    async with anyio.create_task_group() as group:
        group.start_soon(end_it)
        ended.append(await run_docker(make_task(), script(f"echo x > done.txt; sleep {tag}", "echo y"), watch))
    ((result, folder),) = ended
    assert result.error is not None
    assert (result.status, result.error.kind, result.score, result.passed) == ("error", "sandbox_lost", None, None)
    assert "container" in result.error.message
    assert (result.turns, alive(tag)) == (1, [])
    assert (folder / "workspace_final" / "done.txt").read_text() == "x\n"


async def test_a_container_removed_while_judging_is_a_lost_sandbox_and_no_score(
    host: ContainerHost, make_task: Any, run_docker: Any, alive: Any, tag: str
) -> None:
    ids: list[str] = []

    def watch(event: Event) -> None:
        if isinstance(event, RunStarted):
            ids.append(event.run_id)

    async def remove_it() -> None:
        while not alive(tag):  # noqa: ASYNC110 - a process of the check's, which tells nobody
            await anyio.sleep(0.05)
        (container,) = await host.client.containers.list(filters={"label": [f"fbench.run={ids[0]}"]})
        await container.delete(force=True)

    task = make_task(checks=[{"id": "slow", "type": "command_exit_zero", "command": f"sleep {tag}"}])
    ended: list[tuple[RunResult, Path]] = []
    async with anyio.create_task_group() as group:
        group.start_soon(remove_it)
        ended.append(await run_docker(task, "fake/oracle", watch))
    ((result, folder),) = ended
    assert result.error is not None
    assert (result.status, result.error.kind, result.score, result.passed) == ("error", "sandbox_lost", None, None)
    assert "fbench rejudge" in result.error.message
    assert (folder / "workspace_final" / "done.txt").read_text() == "done\n"


async def test_a_missing_image_is_an_error_before_any_model_is_asked(make_task: Any, run_docker: Any) -> None:
    result, folder = await run_docker(make_task(environment={"image": "fbench/nowhere:1"}), "fake/oracle")
    assert result.error is not None
    assert (result.status, result.error.kind, result.score, result.passed) == ("error", "image_missing", None, None)
    assert "fbench/nowhere:1" in result.error.message
    assert (result.turns, result.tokens.total) == (0, 0)
    ledger = folder / "ledger.jsonl"
    assert not ledger.exists() or ledger.read_bytes() == b""


@pytest.mark.parametrize("moment", ["opening", "command"])
async def test_a_cancelled_run_leaves_no_container(
    host: ContainerHost, make_task: Any, script: Any, tmp_path: Path, alive: Any, tag: str, moment: str
) -> None:
    events: list[Event] = []
    with anyio.CancelScope() as scope:

        def watch(event: Event) -> None:
            events.append(event)
            if isinstance(event, RunStarted if moment == "opening" else ToolStarted):
                scope.deadline = anyio.current_time() + 0.3

        async with Engine(environ={}) as engine:
            model = script(f"{DAEMON.format(tag=tag)}; sleep {tag}")
            options = RunOptions(task=make_task(), model=model, sandbox="docker", runs_dir=tmp_path / "runs")
            await engine.run(options, watch)
    assert scope.cancelled_caught
    finished = next(event for event in events if isinstance(event, RunFinished))
    assert (finished.result.status, finished.result.score) == ("cancelled", None)
    assert alive(tag) == []
    assert await left_of(host, finished.result.run_id) == []


async def test_a_task_with_an_image_of_its_own_runs(
    host: ContainerHost, make_task: Any, run_docker: Any, image: str, tag: str
) -> None:
    task_id = f"own_image_{tag}"
    task = make_task(
        task_id=task_id,
        environment={"build": "environment/"},
        files={
            "environment/Dockerfile": f"FROM {image}\nCOPY word /word\nRUN cat /word /word > /twice\n",
            "environment/word": "own\n",
            "solution/solve.sh": "cp /twice done.txt\n",
        },
        checks=[{"id": "same", "type": "command_exit_zero", "command": "cmp done.txt /twice"}],
    )
    async with images_removed(host, task_id):
        result, folder = await run_docker(task, "fake/oracle")
        assert (result.status, result.passed) == ("completed", True), result.error
        assert (folder / "workspace_final" / "done.txt").read_text() == "own\nown\n"


async def test_an_image_without_bash_is_an_error_before_any_model_is_asked(
    host: ContainerHost, make_task: Any, run_docker: Any, image: str, tag: str
) -> None:
    task_id = f"without_bash_{tag}"
    dockerfile = f"FROM {image}\nRUN rm -f /bin/bash /usr/bin/bash\n"
    task = make_task(
        task_id=task_id, environment={"build": "environment/"}, files={"environment/Dockerfile": dockerfile}
    )
    async with images_removed(host, task_id):
        result, _ = await run_docker(task, "fake/nop")
    assert result.error is not None
    assert (result.status, result.error.kind, result.score, result.turns) == ("error", "sandbox_failed", None, 0)
    assert "no bash" in result.error.message


@asynccontextmanager
async def images_removed(host: ContainerHost, task_id: str) -> AsyncIterator[None]:
    """Whatever was built for the task is gone at the end."""
    try:
        yield
    finally:
        for built in await host.client.images.list(filters={"label": [f"{LABEL_TASK}={task_id}"]}):
            await host.client.images.delete(built["Id"], force=True)
