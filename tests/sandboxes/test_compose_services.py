"""A Compose site's services, on a real engine: up and healthy, failing, cut short, many at once."""

import json
import os
import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import anyio
import pytest

from fbench.engine.errors import SandboxFailed
from fbench.engine.owner import owner_identity
from fbench.engine.seams import SiteSpec
from fbench.sandboxes import compose, compose_client, compose_network, compose_project
from fbench.sandboxes.compose_client import ComposeCallFailed, ComposeClient
from fbench.sandboxes.compose_trouble import ServiceUnhealthy
from fbench.sandboxes.docker_engine import ContainerHost, EngineAddress
from fbench.sandboxes.docker_sweep import find_leftovers
from fbench.tasks.manifest import Environment

IMAGE = "fbench/base:1"
SERVER = "python3 -c \"import http.server as h; print('serving', flush=True); h.test(port=80)\""
WELL = {"command": "exit 0", "interval_s": 0.2, "retries": 5}
MakeSite = Callable[..., SiteSpec]


@pytest.fixture
def make_site(tmp_path: Path) -> MakeSite:
    """Makes a site's spec: `make_site({"web": {...}}, run_id="r", allow=[], files={...})`."""

    def make(
        services: dict[str, Any], *, run_id: str | None = None, files: dict[str, str] | None = None, **more: Any
    ) -> SiteSpec:
        run = run_id or f"test-{os.urandom(4).hex()}"
        folder = tmp_path / "task"
        for name, text in (files or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        environment = Environment.model_validate(
            {"image": IMAGE, "services": {name: {"image": IMAGE, **service} for name, service in services.items()}}
            | more
        )
        return SiteSpec(run, owner_identity(), folder, environment, tmp_path / run / "site")

    return make


async def left_of(host: ContainerHost, run_id: str) -> list[str]:
    """Everything on the engine that carries a run's label."""
    return [str(item) for item in await find_leftovers(host.client, lambda labels: labels.get("fbench.run") == run_id)]


async def docker(*arguments: str) -> str:
    """What Docker's command line says."""
    done = await anyio.run_process(["docker", *arguments], check=True)
    return done.stdout.decode().strip()


async def container_of(host: ContainerHost, run_id: str) -> dict[str, Any]:
    """The engine's words on the only container of a run."""
    (found,) = await host.client.containers.list(all=True, filters={"label": [f"fbench.run={run_id}"]})
    return dict(await found.show())


async def test_a_service_gets_what_its_manifest_says(host: ContainerHost, make_site: MakeSite) -> None:
    service = {
        "command": SERVER,
        "env": {"PRICE": "$5 and ${HOME}", "NUMBER": 7},
        "files": {"services/start.txt": "/etc/start.txt"},
        "healthcheck": {"command": "test -f /etc/start.txt", "interval_s": 0.2, "retries": 20},
        "resources": {"memory": "128m", "pids": 40, "cpus": 0.5, "disk": "64m"},
    }
    spec = make_site({"web": service}, files={"services/start.txt": "hello\n"})
    (spec.task_folder / "services" / "start.txt").chmod(0o600)
    async with compose.open_site(spec):
        details = await container_of(host, spec.run_id)
        assert details["State"]["Health"]["Status"] == "healthy"
        assert {"PRICE=$5 and ${HOME}", "NUMBER=7"} <= set(details["Config"]["Env"])
        limits = details["HostConfig"]
        assert (limits["Memory"], limits["MemorySwap"], limits["PidsLimit"]) == (128 << 20, 128 << 20, 40)
        assert limits["NanoCpus"] == 500_000_000
        assert limits["Ulimits"] == [{"Name": "fsize", "Soft": 64 << 20, "Hard": 64 << 20}]
        assert details["Config"]["Labels"]["fbench.owner"] == owner_identity()
        seen = await docker("exec", "--user", "65534", details["Id"], "cat", "/etc/start.txt")
        assert seen == "hello"
        tried = await anyio.run_process(["docker", "exec", details["Id"], "touch", "/etc/start.txt"], check=False)
        assert tried.returncode != 0
        assert "OPENAI" not in " ".join(details["Config"]["Env"])
    assert await left_of(host, spec.run_id) == []


async def test_nothing_is_printed(host: ContainerHost, make_site: MakeSite, capfd: pytest.CaptureFixture[str]) -> None:
    async with compose.open_site(make_site({"web": {"command": SERVER}})):
        pass
    assert capfd.readouterr() == ("", "")


async def test_an_unhealthy_service_is_named_with_its_last_lines(host: ContainerHost, make_site: MakeSite) -> None:
    check = {"command": "echo no answer on port 5; exit 3", "interval_s": 0.1, "retries": 2}
    spec = make_site(
        {"good": {"command": SERVER, "healthcheck": WELL}, "bad": {"command": SERVER, "healthcheck": check}}
    )
    with pytest.raises(ServiceUnhealthy) as caught:
        async with compose.open_site(spec):
            pytest.fail("an unhealthy service was taken for a healthy one")
    assert caught.value.kind == "service_unhealthy"
    text = str(caught.value)
    for part in ("'bad' is not healthy", "exit code 3", "no answer on port 5", "serving"):
        assert part in text
    assert "'good'" not in text
    assert await left_of(host, spec.run_id) == []


@pytest.mark.parametrize(
    ("service", "words"),
    [
        ({"command": "sh -c 'echo cannot read my file; exit 4'", "healthcheck": WELL}, ["exit code 4", "cannot read"]),
        ({"command": "no-such-program", "healthcheck": WELL}, ["'web'", "no-such-program"]),
        ({"command": "sh -c 'unclosed"}, ["'web'", "quotes"]),
        ({"image": "no/such-image:9", "command": SERVER}, ["no/such-image:9", "docker pull"]),
    ],
)
async def test_what_cannot_start_says_why(
    host: ContainerHost, make_site: MakeSite, service: dict[str, Any], words: list[str]
) -> None:
    spec = make_site({"web": service})
    with pytest.raises(SandboxFailed) as caught:
        async with compose.open_site(spec):
            pytest.fail("the service cannot have started")
    for word in words:
        assert word in str(caught.value)
    assert await left_of(host, spec.run_id) == []


@pytest.mark.parametrize("after_s", [0.05, 0.3, 0.5, 0.7, 0.9, 1.2, 2.0])
async def test_a_start_that_is_cancelled_leaves_nothing(
    host: ContainerHost, make_site: MakeSite, after_s: float
) -> None:
    never = {"command": "exit 1", "interval_s": 1, "retries": 100}
    spec = make_site({name: {"command": SERVER, "healthcheck": never} for name in ("one", "two", "three")})
    started = time.monotonic()
    with anyio.move_on_after(after_s) as scope:
        async with compose.open_site(spec):
            pytest.fail("no service is healthy")
    assert scope.cancelled_caught
    assert time.monotonic() - started < after_s + 15
    assert await left_of(host, spec.run_id) == []
    await anyio.sleep(1)
    assert await left_of(host, spec.run_id) == []
    assert _command_lines_with(spec.run_id) == []


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _pid_files(folder: Path) -> list[Path]:
    return list(folder.glob("*.pid"))


def _command_lines_with(text: str) -> list[str]:
    return [line for file in Path("/proc").glob("[0-9]*/cmdline") if text in (line := _read(file))]


async def test_a_body_that_fails_keeps_its_own_error_and_leaves_nothing(
    host: ContainerHost, make_site: MakeSite
) -> None:
    spec, text = make_site({"web": {"command": SERVER}}), "mine"
    with pytest.raises(KeyError, match="mine"):
        async with compose.open_site(spec):
            raise KeyError(text)
    assert await left_of(host, spec.run_id) == []


async def test_a_site_without_services_needs_no_compose(
    host: ContainerHost, make_site: MakeSite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    spec = make_site({}, network={"allow": ["internet"]})
    async with compose.open_site(spec):
        (network,) = await left_of(host, spec.run_id)
        assert network.startswith("network fbench-")
    assert await left_of(host, spec.run_id) == []


async def test_a_hundred_networks_exist_at_once(host: ContainerHost) -> None:
    run_id = f"test-{os.urandom(4).hex()}"
    labels = {"fbench.run": run_id, "fbench.owner": owner_identity()}
    all_there, ready, count = anyio.Event(), anyio.Event(), 0

    async def hold(number: int) -> None:
        nonlocal count
        async with compose_network.open_network(
            host.client, f"{run_id}-{number}", labels=labels, is_internal=True, members=2
        ):
            count += 1
            if count == 100:
                all_there.set()
            await ready.wait()

    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(hold, number)
        with anyio.fail_after(120):
            await all_there.wait()
        # One by one: the engine's list may miss some while other networks come and go.
        for number in range(100):
            network = await host.client.networks.get(f"{run_id}-{number}")
            assert (await network.show())["Labels"]["fbench.run"] == run_id
        ready.set()
    assert await left_of(host, run_id) == []


async def test_a_subnet_that_is_taken_is_passed_over(host: ContainerHost, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {"fbench.run": f"test-{os.urandom(4).hex()}", "fbench.owner": owner_identity()}
    pool = IPv4Network("10.213.77.0/27")
    monkeypatch.setattr(compose_network, "POOLS", (pool,))
    name = labels["fbench.run"]
    settings: dict[str, Any] = {"labels": labels, "is_internal": True, "members": 1}
    async with (
        compose_network.open_network(host.client, f"{name}-1", **settings),
        compose_network.open_network(host.client, f"{name}-2", **settings),
    ):
        subnets = json.loads(await docker("network", "inspect", f"{name}-1", f"{name}-2"))
        assert {item["IPAM"]["Config"][0]["Subnet"] for item in subnets} == {"10.213.77.0/28", "10.213.77.16/28"}
        with pytest.raises(SandboxFailed, match="verlap"):
            async with compose_network.open_network(host.client, f"{name}-3", **settings):
                pytest.fail("there is no room for a third")
    assert await left_of(host, name) == []


async def test_an_engine_that_does_not_answer_is_told(make_site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(SandboxFailed, match=r"/nowhere/docker\.sock"):
        async with compose.open_site(make_site({"web": {"command": SERVER}})):
            pytest.fail("there is no engine")


# ------------------------------------------------------------------------------------------- without an engine


@pytest.mark.parametrize(("members", "prefix"), [(0, 28), (1, 28), (8, 28), (9, 27), (24, 27), (25, 26), (200, 24)])
def test_subnets_are_as_small_as_their_members_allow(members: int, prefix: int) -> None:
    assert compose_network.subnet_prefix(members) == prefix
    assert 2 ** (32 - prefix) >= members + compose_network.SPARE_ADDRESSES


def test_subnets_keep_clear_of_the_hosts_routes(tmp_path: Path) -> None:
    routes = tmp_path / "route"
    routes.write_text(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "vpn0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n"
        "eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    )
    taken = compose_network.host_routes(routes)
    assert taken == (IPv4Network("10.0.0.0/8"), IPv4Network("192.168.0.0/16"))
    subnets = compose_network.random_subnets(28, taken)
    assert all(next(subnets).subnet_of(IPv4Network("172.16.0.0/12")) for _ in range(200))
    assert compose_network.host_routes(tmp_path / "none") == ()
    everything = (IPv4Network("10.0.0.0/8"), IPv4Network("172.16.0.0/12"), IPv4Network("192.168.0.0/16"))
    assert next(compose_network.random_subnets(28, everything)).is_private


def test_a_link_out_of_the_task_is_not_mounted(make_site: MakeSite, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("host's own")
    spec = make_site({"web": {"command": SERVER, "files": {"link.txt": "/etc/x"}}}, files={"a": ""})
    (spec.task_folder / "link.txt").symlink_to(tmp_path / "secret")
    (tmp_path / "out").mkdir()
    with pytest.raises(SandboxFailed, match="leads out"):
        compose_project.write_project(
            tmp_path / "out",
            name="p",
            services=spec.environment.services,
            images={"web": IMAGE},
            network="n",
            labels={},
            task_folder=spec.task_folder,
            is_internal=True,
        )


async def test_patience_covers_the_slowest_health_check(make_site: MakeSite) -> None:
    slow = {"command": "false", "interval_s": 2, "retries": 30}
    spec = make_site({"fast": {"command": SERVER}, "slow": {"command": SERVER, "healthcheck": slow}})
    assert compose_project.patience_s(spec.environment.services) == 60 + 30 * 12


def fake_docker(folder: Path, script: str) -> None:
    """Puts a program called docker first in PATH."""
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("echo 'unknown command: compose' >&2; exit 1", "has no Compose plugin"),
        ("echo 1.29.2", "too old"),
        ("exec sleep 60", "no answer"),
    ],
)
async def test_a_missing_compose_plugin_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, word: str
) -> None:
    fake_docker(tmp_path, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(compose_client, "PROBE_PATIENCE_S", 0.5)
    assert word in str(await compose_client.probe())
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert "not in PATH" in str(await compose_client.probe())


async def test_a_call_that_hangs_ends_with_its_whole_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str, alive: Callable[[str], list[int]]
) -> None:
    fake_docker(tmp_path, f"trap '' TERM; sleep {tag}2 & exec sleep {tag}3")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    client = ComposeClient(EngineAddress("unix:///nowhere"), "p", tmp_path / "compose.json")
    started = time.monotonic()
    with pytest.raises(ComposeCallFailed, match="did not end within"):
        await client.up(0.6)
    assert time.monotonic() - started < 6
    assert alive(f"{tag}2") == alive(f"{tag}3") == []
    assert _pid_files(tmp_path) == []


async def test_a_killed_fbench_takes_its_compose_call_along(
    tmp_path: Path, tag: str, alive: Callable[[str], list[int]], until: Any
) -> None:
    fake_docker(tmp_path, f"exec sleep {tag}")
    code = (
        "import anyio, sys; from pathlib import Path; from fbench.sandboxes.compose_client import ComposeClient;"
        "from fbench.sandboxes.docker_engine import EngineAddress;"
        "c = ComposeClient(EngineAddress('unix:///nowhere'), 'p', Path(sys.argv[1]) / 'compose.json');"
        "anyio.run(c.up, 60)"
    )
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    async with await anyio.open_process([sys.executable, "-c", code, str(tmp_path)], env=env) as process:
        assert await until(
            lambda: bool([p for p in alive(tag) if _read(Path(f"/proc/{p}/cmdline")).startswith("sleep")])
        )
        process.kill()
        await process.wait()
    assert await until(lambda: alive(tag) == [], 3.0)
