"""What only docker does: its containers, their owner and labels, and what becomes of a run when one is lost."""

import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from fbench.engine.errors import SandboxFailed, SandboxLost, UsageError
from fbench.engine.owner import owner_identity
from fbench.engine.seams import ExecRequest, Limits, SandboxSpec
from fbench.sandboxes import docker_container, docker_exec, docker_plain
from fbench.sandboxes.docker import open_container_sandbox
from fbench.sandboxes.docker_engine import ContainerHost, find_engine, open_container_host
from fbench.sandboxes.docker_processes import InsideProcesses, Process, tree_of
from fbench.sandboxes.docker_sweep import Leftover, find_leftovers


async def _named(run_id: str) -> list[dict[str, Any]]:
    async with open_container_host() as host:
        containers = await host.client.containers.list(
            all=True, filters=json.dumps({"label": [f"fbench.run={run_id}"]})
        )
        return [await container.show() for container in containers]


async def test_a_container_carries_its_run_and_owner_and_no_rights(docker_opener: Any, run: Any, tag: str) -> None:
    async with docker_opener(run_id=tag) as sandbox:
        (facts,) = await _named(tag)
        assert facts["Config"]["Labels"]["fbench.owner"] == owner_identity()
        assert facts["HostConfig"]["CapDrop"] == ["ALL"]
        assert (await run(sandbox, "touch /usr/x /etc/x 2>&1 | grep -c Read-only")).text == "2"
        assert (await run(sandbox, "id -un; touch /run/x /var/tmp/x /dev/shm/x && echo ok")).text == "agent\nok"
    assert await _named(tag) == []


async def test_what_fills_the_places_in_memory_can_be_deleted_again(docker_opener: Any, run: Any) -> None:
    async with docker_opener(limits=Limits(memory_bytes=128 * 1024**2)) as sandbox:
        for place in ("/dev/shm", "/var/tmp", "/run"):
            done = await run(sandbox, f"head -c 1G /dev/zero > {place}/full")
            assert "No space left" in done.text, done
        assert (await run(sandbox, "rm /dev/shm/full /var/tmp/full /run/full && echo done")).text == "done"


async def test_files_belong_to_the_user_of_fbench_afterwards(docker_opener: Any, run: Any, spec: SandboxSpec) -> None:
    async with docker_opener() as sandbox:
        await run(sandbox, "mkdir -p a/b; echo x > a/b/c; ln -s /etc/passwd link; chmod 700 a")
        uid = int((await run(sandbox, "id -u")).text)
        assert uid != 0
        assert (spec.workspace / "a" / "b" / "c").stat().st_uid == uid
    for path in (spec.workspace, *spec.workspace.rglob("*")):
        assert path.lstat().st_uid == os.geteuid()


async def test_a_command_that_kills_itself_is_no_lost_container(docker_opener: Any, run: Any) -> None:
    async with docker_opener() as sandbox:
        for _ in range(3):
            assert (await run(sandbox, "kill -KILL $$")).exit.exit_code == 137
        assert (await run(sandbox, "echo usable")).text == "usable"


@pytest.mark.parametrize("action", ["kill", "remove"])
async def test_a_lost_container_is_an_error_and_no_hang(docker_opener: Any, run: Any, tag: str, action: str) -> None:
    with anyio.fail_after(30):
        async with docker_opener(run_id=tag) as sandbox:
            async with sandbox.exec(ExecRequest(("sleep", tag))) as running:
                async with open_container_host() as host:
                    (facts,) = await _named(tag)
                    container = host.client.containers.container(facts["Id"])
                    await (container.kill(signal="SIGKILL") if action == "kill" else container.delete(force=True))
                with pytest.raises(SandboxLost):
                    await running.wait()
            with pytest.raises(SandboxLost):
                await run(sandbox, "true")
    assert await _named(tag) == []


async def test_cancelling_the_start_leaves_no_container(docker_opener: Any, tag: str) -> None:
    for delay in (0.05, 0.1, 0.15, 0.25):
        with anyio.move_on_after(delay):
            async with docker_opener(run_id=tag):
                await anyio.sleep_forever()
    assert await _named(tag) == []


async def test_an_image_without_python_works_all_the_same(
    needs_docker: None, spec: SandboxSpec, run: Any, image: str, tag: str
) -> None:
    name = f"fbench-test-no-python-{tag}"
    build = f"FROM {image}\nRUN rm -f /usr/bin/python3* /usr/local/bin/python*\n"
    await anyio.run_process(["docker", "build", "-q", "-t", name, "-"], input=build.encode())
    try:
        async with (
            open_container_host() as host,
            open_container_sandbox(host, spec, image=name, owner=owner_identity()) as sandbox,
        ):
            assert (await run(sandbox, "echo here; command -v python3")).text == "here"
    finally:
        subprocess.run(["docker", "rmi", "-f", name], check=True, capture_output=True)  # noqa: ASYNC221 - cleaning up


async def _volumes_of(host: ContainerHost, run_id: str) -> list[Leftover]:
    found = await find_leftovers(host.client, lambda labels: labels.get("fbench.run") == run_id)
    return [item for item in found if item.kind == "volume"]


VOLUMES = """FROM {image}
RUN mkdir -p /data /workspace/part && echo of the image > /data/file && chmod -R 777 /data
VOLUME /data /workspace /home/agent /tmp /run
"""


@pytest.mark.parametrize("has_hole", [False, True])
async def test_volumes_of_an_image_are_read_only_like_the_rest_of_it(
    needs_docker: None, spec: SandboxSpec, run: Any, image: str, tag: str, has_hole: bool
) -> None:
    name = f"fbench-test-volumes-{tag}"
    build = VOLUMES.format(image=image) + ("VOLUME /workspace/part\n" if has_hole else "")
    await anyio.run_process(["docker", "build", "-q", "-t", name, "-"], input=build.encode())
    try:
        async with open_container_host() as host:
            spec = replace(spec, run_id=tag)
            opening = open_container_sandbox(host, spec, image=name, owner=owner_identity())
            if has_hole:
                with pytest.raises(SandboxFailed, match="the volume /workspace/part"):
                    await opening.__aenter__()
                return
            async with opening as sandbox:
                assert len(await _volumes_of(host, spec.run_id)) == 1
                assert (await run(sandbox, "cat /data/file; echo x > /data/file")).text.splitlines() == [
                    "of the image",
                    "bash: line 1: /data/file: Read-only file system",
                ]
                assert (await run(sandbox, "touch /workspace/x /tmp/x ~/x /run/x && echo ok")).text == "ok"
            assert await _volumes_of(host, spec.run_id) == []
        assert (spec.workspace / "x").exists()
    finally:
        subprocess.run(["docker", "rmi", "-f", name], check=True, capture_output=True)  # noqa: ASYNC221 - cleaning up


async def test_trees_are_ended_from_inside_too(
    until: Any, needs_docker: None, spec: SandboxSpec, run: Any, alive: Any, image: str, tag: str
) -> None:
    """As with an engine elsewhere, whose processes cannot be seen."""
    async with (
        open_container_host() as host,
        open_container_sandbox(host, spec, image=image, owner=owner_identity(), has_supervisor=False) as opened,
    ):
        sandbox: Any = opened
        sandbox._processes = InsideProcesses(sandbox._run_script, sandbox._account.uid)
        await run(sandbox, f"sleep {tag} & echo started")
        command = f"setsid sleep {tag}1 & env -i setsid /usr/bin/sleep {tag}2 & sleep {tag}3"
        async with sandbox.exec(ExecRequest(("bash", "-c", command))):
            await anyio.sleep(0.5)
            assert await until(lambda: len(alive(tag)) >= 4)
        assert await until(lambda: len(alive(tag)) == 1)
        await sandbox.end_processes()
        assert alive(tag) == []
        assert (await run(sandbox, "echo usable")).text == "usable"


async def test_a_missing_image_is_refused_in_words(needs_docker: None, spec: SandboxSpec) -> None:
    with pytest.raises(SandboxFailed, match="no image 'fbench/nowhere:1'"):
        async with (
            open_container_host() as host,
            open_container_sandbox(host, spec, image="fbench/nowhere:1", owner=owner_identity()),
        ):
            pass


async def test_no_engine_is_said_in_words(tmp_path: Path) -> None:
    address = find_engine({"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    with pytest.raises(SandboxFailed, match=r"DOCKER_HOST.*start it"):
        async with open_container_host(address):
            pass


ANSWERS = {
    "no content type": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "does not speak as a Docker engine"),
    "broken JSON": (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n{oop",
        "does not speak as a Docker engine",
    ),
    "no HTTP": (b"220 mail.example.com ESMTP\r\n\r\n", "Is it running"),
    "a refusal without JSON": (b"HTTP/1.1 502 Bad\r\nContent-Length: 3\r\n\r\nbad", "bad"),
    "a hang-up": (b"", "Is it running"),
    "silence": (None, "within 1 s: it may be overloaded"),
}


@pytest.mark.parametrize("kind", ANSWERS)
async def test_what_answers_as_no_engine_should_is_said_in_words(tmp_path: Path, kind: str) -> None:
    answer, words = ANSWERS[kind]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
            writer.close()
            await writer.wait_closed()

    address = find_engine({"DOCKER_HOST": f"unix://{tmp_path}/s"})
    async with await asyncio.start_unix_server(serve, tmp_path / "s"):
        with pytest.raises(SandboxFailed, match=words) as caught:
            async with open_container_host(address, patience_s=1):
                pass
        assert f"{tmp_path}/s (named by DOCKER_HOST)" in str(caught.value)
    await asyncio.sleep(0.05)


async def test_a_command_is_lost_and_not_waited_for_when_the_engine_hangs(
    needs_docker: None, spec: SandboxSpec, tmp_path: Path, image: str, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (docker_exec, docker_container, docker_plain):
        monkeypatch.setattr(module, "REQUEST_PATIENCE_S", 2.0)
    async with (
        engine_that_can_hang(tmp_path / "engine") as answers,
        open_container_host(find_engine({"DOCKER_HOST": f"unix://{tmp_path}/engine"})) as host,
        open_container_sandbox(host, spec, image=image, owner=owner_identity(), has_supervisor=False) as sandbox,
    ):
        async with sandbox.exec(ExecRequest(("sleep", tag))) as running:
            answers.clear()
            with anyio.fail_after(10), pytest.raises(SandboxLost, match="did not say how a command ended within"):
                await running.wait()
        answers.set()


@contextlib.asynccontextmanager
async def engine_that_can_hang(path: Path) -> AsyncIterator[asyncio.Event]:
    """The engine at hand behind another socket; while the event is not set, it hears nothing."""
    answers = asyncio.Event()
    answers.set()
    real = find_engine().socket
    assert real is not None

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await answers.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_engine, to_engine = await asyncio.open_unix_connection(real)
        async with asyncio.TaskGroup() as group:
            group.create_task(pass_on(reader, to_engine))
            group.create_task(pass_on(from_engine, writer))

    async with await asyncio.start_unix_server(serve, path):
        yield answers


def test_strangers_born_after_a_command_are_its_and_older_jobs_are_not() -> None:
    table = {
        process.pid: process
        for process in (
            Process(10, 1, 50, None),  # a background job of before
            Process(11, 10, 200, None),  # its child
            Process(20, 0, 100, "a"),
            Process(21, 1, 150, None),  # cleared its environment and left
            Process(30, 0, 120, "b"),
            Process(31, 30, 130, None),
        )
    }
    assert tree_of("a", table, 100) == {20, 21}


def test_the_docker_context_names_the_engine(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"mine").hexdigest()
    meta = tmp_path / "contexts" / "meta" / digest
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Endpoints": {"docker": {"Host": "tcp://there:2375"}}}))
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "mine"}))
    env = {"DOCKER_CONFIG": str(tmp_path)}
    assert find_engine(env).url == "http://there:2375"
    assert find_engine({**env, "DOCKER_CONTEXT": "default"}).url.endswith("docker.sock")
    assert find_engine({**env, "DOCKER_HOST": "unix:///x.sock"}).url == "unix:///x.sock"
    assert find_engine({**env, "DOCKER_HOST": "tcp://h:1", "DOCKER_TLS_VERIFY": "1"}).url == "https://h:1"
    with pytest.raises(UsageError, match="'gone' is not there"):
        find_engine({**env, "DOCKER_CONTEXT": "gone"})
    with pytest.raises(UsageError, match="forward its socket"):
        find_engine({"DOCKER_HOST": "ssh://me@there"})
