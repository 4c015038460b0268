"""What dead owners left on a real engine is swept, and nothing else; what remains of `fbench run` after signals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from fbench.engine.owner import Owner
from fbench.sandboxes import docker_sweep
from fbench.sandboxes.docker_engine import ContainerHost
from fbench.sandboxes.docker_sweep import find_leftovers, sweep_at_start, sweep_docker

IMAGE = "fbench/base:1"
FBENCH = (sys.executable, "-P", "-c", "from fbench.engine.cli import main; main()")


@contextmanager
def dying_owner() -> Iterator[str]:
    """The mark of a process that dies when the context ends: until then nobody may sweep what it owns."""
    code = "from fbench.engine.owner import owner_identity; print(owner_identity(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().decode().strip()
        process.kill()


def dead_owner() -> str:
    """The mark of a process that has ended."""
    with dying_owner() as mark:
        pass
    return mark


async def docker(*arguments: str) -> str:
    done = await anyio.run_process(["docker", *arguments], check=False)
    return done.stdout.decode().strip()


async def make_things(name: str, owner: str | None) -> list[str]:
    """A container that runs on a network with a volume, all of that name, with that owner's mark."""
    labels = ["--label", f"fbench.run={name}"]
    labels += ["--label", f"fbench.owner={owner}"] if owner is not None else []
    # 10.214/16 in steps of 16, by the name's own random digits
    place = int(name[-3:], 16)
    await docker("network", "create", "--subnet", f"10.214.{place // 16}.{place % 16 * 16}/28", *labels, name)
    await docker("volume", "create", *labels, name)
    made = await docker(
        "run", "-d", "--init", "--name", name, "--network", name, "-v", f"{name}:/data", *labels, IMAGE, "sleep", "600"
    )
    assert made, "the container was not made"
    return [f"container {name}", f"network {name}", f"volume {name}"]


async def remove_things(name: str) -> None:
    await docker("rm", "-f", name)
    await docker("network", "rm", name)
    await docker("volume", "rm", "-f", name)


async def left_of(host: ContainerHost, run_id: str) -> list[str]:
    """Everything on the engine that carries a run's label."""
    return [str(item) for item in await find_leftovers(host.client, lambda labels: labels.get("fbench.run") == run_id)]


async def test_what_dead_owners_left_is_removed_and_nothing_else(host: ContainerHost) -> None:
    run = f"test-{os.urandom(4).hex()}"
    names = {
        kind: f"{run}-{number}{os.urandom(1).hex()}"
        for number, kind in enumerate(("dead", "alive", "far", "odd", "none"))
    }
    me = Owner.this_process()
    owners: dict[str, str | None] = {
        "alive": str(me),
        "far": f"another-{me.host}:{me.pid}:1",
        "odd": "no mark of an owner",
        "none": None,
    }
    try:
        with dying_owner() as owners["dead"]:
            made = {kind: await make_things(name, owners[kind]) for kind, name in names.items()}
            await sweep_docker(host.client)
            assert sorted(await left_of(host, names["dead"])) == made["dead"]
        await sweep_docker(host.client)
        assert await left_of(host, names["dead"]) == []
        for kind in ("alive", "far", "odd"):
            assert sorted(await left_of(host, names[kind])) == made[kind]
        assert await docker("ps", "-q", "--filter", f"name={names['none']}")
        assert names["none"] in await docker("network", "ls", "--format", "{{.Name}}")
        assert names["none"] in await docker("volume", "ls", "-q")
    finally:
        for name in names.values():
            await remove_things(name)


async def test_a_network_with_a_strangers_container_stays_and_says_why(host: ContainerHost) -> None:
    name = f"test-{os.urandom(4).hex()}"
    stranger = f"stranger-{name}"
    try:
        with dying_owner() as owner:
            await make_things(name, owner)
            assert await docker("run", "-d", "--init", "--name", stranger, "--network", name, IMAGE, "sleep", "600")
        swept = await sweep_docker(host.client)
        assert any(item.name == name and "active endpoints" in why for item, why in swept.stuck.items())
        assert await docker("ps", "-q", "--filter", f"name={stranger}")
    finally:
        await docker("rm", "-f", stranger)
        await remove_things(name)


async def test_many_leftovers_go_together_with_their_unnamed_volumes(host: ContainerHost) -> None:
    name = f"test-{os.urandom(4).hex()}"
    with dying_owner() as owner:
        labels = ["--label", f"fbench.run={name}", "--label", f"fbench.owner={owner}"]
        made = [await docker("create", *labels, "-v", "/unnamed", IMAGE, "sleep", "600") for _ in range(12)]
        mounts = json.loads(await docker("inspect", *made))
        volumes = [mount["Name"] for item in mounts for mount in item["Mounts"]]
        assert len(volumes) == 12
        assert len(await left_of(host, name)) == 12
    await sweep_docker(host.client)
    assert await left_of(host, name) == []
    assert set(volumes) & set((await docker("volume", "ls", "-q")).split()) == set()


async def test_a_run_begins_with_a_sweep_but_not_every_run(
    host: ContainerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"test-{os.urandom(4).hex()}"
    try:
        with dying_owner() as owner:
            await make_things(name, owner)
        await sweep_at_start(host.client, name)
        assert await left_of(host, name) == []
    finally:
        await remove_things(name)
    swept: list[object] = []

    async def note(docker: object) -> docker_sweep.Swept:
        swept.append(docker)
        return docker_sweep.Swept()

    monkeypatch.setattr(docker_sweep, "sweep_docker", note)
    await sweep_at_start(host.client, name)
    assert swept == []
    monkeypatch.setattr(docker_sweep, "REST_S", 0.0)
    await sweep_at_start(host.client, name)
    assert swept == [host.client]


def test_where_there_is_no_proc_nobody_is_taken_for_dead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mark = dead_owner()
    assert docker_sweep.is_of_dead_owner({"fbench.owner": mark})
    monkeypatch.setattr(docker_sweep, "PROC", tmp_path / "none")
    assert not docker_sweep.is_of_dead_owner({"fbench.owner": mark})


def test_clean_says_when_the_engine_was_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/none.sock", "TMPDIR": str(tmp_path)}
    done = fbench("clean", "--json", env=env)
    assert done.returncode == 0
    assert f"{tmp_path}/none.sock" in json.loads(done.stdout)["not_asked"]
    assert json.loads(done.stdout)["not_removed"] == {}


# ------------------------------------------------------------------------------------- `fbench run` under signals


def fbench(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*FBENCH, *arguments], capture_output=True, text=True, env=env, check=False)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., list[str]]:
    """Makes a task with a service and a command line that runs it: `make_run(health="exit 0", command="...")`."""

    def make(*, health: str, command: str, judge: str, services: bool = True) -> list[str]:
        folder = tmp_path / "tasks" / "slow"
        service = {
            "image": IMAGE,
            "command": "sleep 600",
            "healthcheck": {"command": health, "interval_s": 0.3, "retries": 1000},
        }
        manifest = {
            "id": "slow",
            "title": "Slow",
            "difficulty": "easy",
            "domain": "testing",
            "environment": {"image": IMAGE, "services": {"one": service, "two": service} if services else {}},
            "agent": {"prompt_text": "Wait."},
            "grader": {"checks": [{"id": "wait", "type": "command_exit_zero", "command": judge}]},
        }
        script = {"turns": [{"tool_calls": [{"name": "bash", "arguments": {"command": command}}]}]}
        files = {
            "task.yaml": yaml.safe_dump(manifest),
            "workspace/.gitkeep": "",
            "../script.yaml": yaml.safe_dump(script),
        }
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        model = f"fake/script:{tmp_path / 'tasks' / 'script.yaml'}"
        runs = str(tmp_path / "runs")
        return ["run", "--task", str(folder), "--model", model, "--sandbox", "docker", "--runs-dir", runs, "--quiet"]

    return make


PHASES: dict[str, dict[str, Any]] = {
    "up": {"health": "exit 1", "command": "true", "judge": "true"},
    "exec": {"health": "exit 0", "command": "sleep 300", "judge": "true"},
    "judge": {"health": "exit 0", "command": "true", "judge": "sleep 55"},
    "docker exec": {"health": "exit 0", "command": "sleep 300", "judge": "true", "services": False},
}


async def owned_by(host: ContainerHost, pid: int) -> list[str]:
    """What on the engine is labelled as that process's."""
    return [
        str(item)
        for item in await find_leftovers(host.client, lambda labels: f":{pid}:" in labels.get("fbench.owner", ""))
    ]


def look_at_runs(runs: Path) -> tuple[str, bool]:
    """What the transcripts say, and whether a run has come to judging."""
    transcript = "".join(path.read_text() for path in runs.glob("*/transcript.jsonl"))
    return transcript, bool(list(runs.glob("*/grader_outputs")))


async def has_come_to(host: ContainerHost, phase: str, pid: int, runs: Path) -> bool:
    """Whether the run of that process is in the middle of a phase."""
    transcript, is_judging = look_at_runs(runs)
    owned = await owned_by(host, pid)
    if phase == "create":
        return bool(owned)
    if phase == "up":
        return sum(item.startswith("container") for item in owned) == 2
    if phase == "judge":
        return (
            is_judging and '"run_finished"' not in transcript and len(owned) == 4
        )  # two services, the network, the judge's container
    return '"tool_started"' in transcript


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        ((signal.SIGINT,), 130),
        ((signal.SIGTERM,), 143),
        ((signal.SIGINT, signal.SIGINT), 130),
        ((signal.SIGKILL,), -9),
    ],
    ids=["INT", "TERM", "INT twice", "KILL"],
)
@pytest.mark.parametrize("phase", ["create", "up", "exec", "judge", "docker exec"])
async def test_signals_leave_nothing_that_clean_does_not_find(
    host: ContainerHost,
    make_run: Callable[..., list[str]],
    tmp_path: Path,
    phase: str,
    signals: tuple[signal.Signals, ...],
    code: int,
) -> None:
    arguments = make_run(**PHASES["up" if phase == "create" else phase])
    (tmp_path / "tmp").mkdir()
    env = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    command = [*FBENCH, *arguments]
    async with await anyio.open_process(command, env=env, start_new_session=True, stdin=subprocess.DEVNULL) as process:
        try:
            with anyio.fail_after(60):
                while not await has_come_to(host, phase, process.pid, tmp_path / "runs"):
                    assert process.returncode is None, "the run ended before the phase"
                    await anyio.sleep(0.05)
            started = time.monotonic()
            for number in signals:
                with suppress(ProcessLookupError):
                    process.send_signal(number)
                await anyio.sleep(0.15)
            # A second signal after the cleanup ends the interpreter itself, which a shell calls 128 + N all the same.
            codes = {code, -signals[-1]} if len(signals) > 1 else {code}
            with anyio.fail_after(60):
                assert await process.wait() in codes
        finally:
            with suppress(ProcessLookupError):
                process.kill()
    assert time.monotonic() - started < 40
    if len(signals) == 1 and code > 0:  # it had its time to clean up
        assert await owned_by(host, process.pid) == []
        assert list((tmp_path / "tmp").glob("fbench-*/*")) == []
        (result,) = (tmp_path / "runs").glob("*/result.json")
        assert json.loads(result.read_text())["status"] == "cancelled"
    with anyio.fail_after(60):
        done = await anyio.to_thread.run_sync(lambda: fbench("clean", "--json", env=env))
    assert done.returncode == 0, done.stderr
    assert await owned_by(host, process.pid) == []
    assert list((tmp_path / "tmp").glob("fbench-*/*")) == []
    await anyio.sleep(0.5)
    assert await owned_by(host, process.pid) == [], "something came into being after the sweep"


async def test_a_kill_while_taking_down_leaves_nothing_that_clean_does_not_find(
    host: ContainerHost, make_run: Callable[..., list[str]], tmp_path: Path
) -> None:
    arguments = make_run(health="exit 0", command="true", judge="true")
    (tmp_path / "tmp").mkdir()
    env = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    command = [*FBENCH, *arguments]
    async with await anyio.open_process(command, env=env, stdin=subprocess.DEVNULL) as process:
        with anyio.fail_after(90):
            while not is_going_down(process.pid):
                assert process.returncode is None, "it was down before it was seen"
                await anyio.sleep(0.01)
        process.kill()
        await process.wait()
    done = await anyio.to_thread.run_sync(lambda: fbench("clean", "--json", env=env))
    assert done.returncode == 0, done.stderr
    assert await owned_by(host, process.pid) == []
    assert list((tmp_path / "tmp").glob("fbench-*/*")) == []


def is_going_down(pid: int) -> bool:
    """Whether a child of that process takes a project down."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = file.read_bytes().split(b"\0")
            if b"down" in words and str(pid).encode() in words:
                return True
    return False
