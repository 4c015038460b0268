"""A Compose sandbox on a real engine: what the agent reaches, what it does not, and who judges beside its services."""

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from fbench.engine import Engine, RunOptions
from fbench.engine.owner import owner_identity
from fbench.engine.seams import SandboxSpec, SiteSpec
from fbench.sandboxes import compose
from fbench.sandboxes.docker_engine import ContainerHost
from fbench.sandboxes.docker_sweep import find_leftovers
from fbench.tasks.manifest import Environment

IMAGE = "fbench/base:1"
KEEPER = """\
import http.server, sys
class Keep(http.server.BaseHTTPRequestHandler):
    value = b"nothing yet"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(Keep.value)))
        self.end_headers()
        self.wfile.write(Keep.value)
    def do_POST(self):
        Keep.value = self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()
http.server.ThreadingHTTPServer(("", 80), Keep).serve_forever()
"""
"""A service with data: what was posted to it last."""
SERVICE = {
    "image": IMAGE,
    "command": "python3 /keeper.py",
    "files": {"services/keeper.py": "/keeper.py"},
    "healthcheck": {
        "command": "python3 -c \"import urllib.request as u; u.urlopen('http://localhost')\"",
        "interval_s": 0.2,
        "retries": 50,
    },
}
ASK = "import urllib.request as u; print(u.urlopen('http://{0}', {1}, timeout=5).read().decode())"
CONNECT = """\
import socket, sys
from concurrent.futures import ThreadPoolExecutor
def connect(place):
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
        return f"REACHED {place}"
    except OSError as error:
        return f"no {place} {error}"
with ThreadPoolExecutor(30) as pool:
    print(*pool.map(connect, sys.argv[1:]), sep="\\n")
"""


@pytest.fixture
def site(tmp_path: Path) -> SiteSpec:
    """A site with the service `store`."""
    (tmp_path / "task" / "services").mkdir(parents=True)
    (tmp_path / "task" / "services" / "keeper.py").write_text(KEEPER)
    environment = Environment.model_validate({"image": IMAGE, "services": {"store": SERVICE}})
    run_id = f"test-{os.urandom(4).hex()}"
    return SiteSpec(run_id, owner_identity(), tmp_path / "task", environment, tmp_path / "site")


@pytest.fixture
def inside(tmp_path: Path, site: SiteSpec) -> Callable[[str], SandboxSpec]:
    """The spec of a sandbox at the site, with a workspace of its own."""

    def make(name: str) -> SandboxSpec:
        (tmp_path / name / "workspace").mkdir(parents=True)
        return SandboxSpec(run_id=site.run_id, workspace=tmp_path / name / "workspace", scratch=tmp_path / name / "own")

    return make


@pytest.fixture
def listener() -> Iterator[int]:
    """A port of this machine, open on all its addresses; connections are taken and closed."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        server.settimeout(0.1)
        is_over = threading.Event()

        def take() -> None:
            while not is_over.is_set():
                try:
                    server.accept()[0].close()
                except TimeoutError:
                    continue

        thread = threading.Thread(target=take)
        thread.start()
        yield server.getsockname()[1]
        is_over.set()
        thread.join()


def is_of_run(run_id: str, labels: Mapping[str, str]) -> bool:
    return labels.get("fbench.run") == run_id


def python(code: str, *arguments: str) -> tuple[str, ...]:
    return ("python3", "-c", code, *arguments)


def ask(name: str = "store", post: str | None = None) -> tuple[str, ...]:
    return python(ASK.format(name, post.encode() if post is not None else None))


def own_addresses() -> list[str]:
    """This machine's addresses, and where it would be looked for from inside."""
    found = {"127.0.0.1", "host.docker.internal", socket.gethostname(), "172.17.0.1"}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            found.add(probe.getsockname()[0])
        except OSError:
            pass
    return sorted(found)


async def subnet_of(host: ContainerHost, run_id: str) -> tuple[str, str]:
    """The gateway of the run's network, and the address of its service."""
    (item,) = await host.client.networks.list(filters={"label": [f"fbench.run={run_id}"]})
    first = item["IPAM"]["Config"][0]["Subnet"].partition("/")[0]
    head, _, last = first.rpartition(".")
    filters = {"label": [f"fbench.run={run_id}", "com.docker.compose.service=store"]}
    (service,) = await host.client.containers.list(filters=filters)
    address = (await service.show())["NetworkSettings"]["Networks"][item["Name"]]["IPAddress"]
    return f"{head}.{int(last) + 1}", address


async def test_the_agent_reaches_its_services_by_name(
    host: ContainerHost, site: SiteSpec, inside: Callable[[str], SandboxSpec], run: Any
) -> None:
    async with compose.open_site(site) as open_sandbox, open_sandbox(inside("agent")) as sandbox:
        assert sandbox.kind == "compose"
        assert sandbox.capabilities.limits["network"] == "namespace"
        done = await run(sandbox, ask())
        assert (done.exit.exit_code, done.text) == (0, "nothing yet")


async def test_service_data_outlives_the_agent_and_a_fresh_container_judges(
    host: ContainerHost, site: SiteSpec, inside: Callable[[str], SandboxSpec], run: Any
) -> None:
    async with compose.open_site(site) as open_sandbox:
        async with open_sandbox(inside("agent")) as sandbox:
            assert (await run(sandbox, ask(post="from the agent"))).text == "from the agent"
            assert (await run(sandbox, "touch /tmp/mine && echo made")).text == "made"
        async with open_sandbox(inside("first")) as one, open_sandbox(inside("second")) as two:
            for judge in (one, two):
                assert (await run(judge, ask())).text == "from the agent"
                assert (await run(judge, "ls /tmp")).text == ""


async def test_the_agent_and_its_services_reach_nothing_else(
    host: ContainerHost,
    site: SiteSpec,
    inside: Callable[[str], SandboxSpec],
    run: Any,
    listener: int,
    tmp_path: Path,
) -> None:
    other = replace(site, run_id=f"{site.run_id}-other", scratch=tmp_path / "other")
    async with (
        compose.open_site(site) as open_sandbox,
        compose.open_site(other),
        open_sandbox(inside("agent")) as sandbox,
    ):
        gateway, own = await subnet_of(host, site.run_id)
        other_gateway, neighbour = await subnet_of(host, other.run_id)
        places = [f"{address}:{listener}" for address in (*own_addresses(), gateway, other_gateway)]
        places += [f"{neighbour}:80", "1.1.1.1:53", "8.8.8.8:443"]
        done = await run(sandbox, python(CONNECT, *places, f"{own}:80"))
        assert done.text.splitlines()[-1] == f"REACHED {own}:80"
        assert done.text.count("REACHED") == 1, done.text
        (service,) = await host.client.containers.list(
            filters={"label": [f"fbench.run={site.run_id}", "com.docker.compose.service"]}
        )
        asked = await anyio.run_process(["docker", "exec", service.id, *python(CONNECT, *places)])
        assert b"REACHED" not in asked.stdout
        addresses = await run(sandbox, "grep -vc ' lo$' /proc/net/if_inet6")
        assert addresses.text == "0", "no address of IPv6, by which the host could be found"


async def test_other_names_are_not_asked_for_outside(
    host: ContainerHost, site: SiteSpec, inside: Callable[[str], SandboxSpec], run: Any
) -> None:
    look = (
        "import socket\ntry: print(socket.getaddrinfo('secret.example.com', 80))\nexcept OSError as e: print('no', e)"
    )
    async with compose.open_site(site) as open_sandbox, open_sandbox(inside("agent")) as sandbox:
        with anyio.fail_after(20):
            done = await run(sandbox, python(look))
        assert done.text.startswith("no "), done.text
        inspected = await anyio.run_process(["docker", "ps", "-q", "--filter", f"label=fbench.run={site.run_id}"])
        for container in inspected.stdout.decode().split():
            shown = await anyio.run_process(["docker", "inspect", "-f", "{{.HostConfig.Dns}}", container])
            assert shown.stdout.decode().strip() == "[127.0.0.1]"


async def test_names_are_told_or_refused_quickly_on_a_closed_network(
    host: ContainerHost, site: SiteSpec, inside: Callable[[str], SandboxSpec], run: Any
) -> None:
    look = (
        "import socket, time\nfor name in ('store', 'store', 'secret.example.com', 'nowhere'):\n"
        "  began = time.monotonic()\n"
        "  try: said = socket.getaddrinfo(name, 80, socket.AF_INET)[0][4][0]\n  except OSError: said = 'no'\n"
        "  print(name, said, time.monotonic() - began < 5)"
    )
    async with compose.open_site(site) as open_sandbox, open_sandbox(inside("agent")) as sandbox:
        _, address = await subnet_of(host, site.run_id)
        text = (await run(sandbox, python(look))).text
        assert text.splitlines() == [f"store {address} True"] * 2 + ["secret.example.com no True", "nowhere no True"]
        options = (await run(sandbox, "grep ^options /etc/resolv.conf")).text
        assert {"timeout:1", "attempts:2"} <= set(options.split()), options


async def test_an_opened_network_leads_out(
    host: ContainerHost, site: SiteSpec, inside: Callable[[str], SandboxSpec], run: Any, listener: int
) -> None:
    environment = Environment.model_validate({"image": IMAGE, "network": {"allow": ["internet"]}})
    opened = replace(site, environment=environment)
    async with compose.open_site(opened) as open_sandbox, open_sandbox(inside("agent")) as sandbox:
        assert sandbox.capabilities.limits["network"] == ""
        (item,) = await host.client.networks.list(filters={"label": [f"fbench.run={site.run_id}"]})
        gateway = item["IPAM"]["Config"][0]["Subnet"].partition("/")[0].rpartition(".")
        address = f"{gateway[0]}.{int(gateway[2]) + 1}:{listener}"
        done = await run(sandbox, python(CONNECT, address))
        assert done.text == f"REACHED {address}"


async def test_a_site_closes_under_a_sandbox_that_failed(
    host: ContainerHost, site: SiteSpec, inside: Callable[[str], SandboxSpec]
) -> None:
    text = "mine"
    with pytest.raises(RuntimeError, match=text):
        async with compose.open_site(site) as open_sandbox, open_sandbox(inside("agent")):
            raise RuntimeError(text)
    left = await find_leftovers(host.client, partial(is_of_run, site.run_id))
    assert left == []


async def test_a_whole_run_beside_a_service_is_judged_there(host: ContainerHost, tmp_path: Path) -> None:
    folder = tmp_path / "tasks" / "beside"
    check = {"id": "kept", "type": "command_exit_zero"}
    manifest = {
        "id": "beside",
        "title": "Tell the store",
        "difficulty": "easy",
        "domain": "testing",
        "environment": {"image": IMAGE, "services": {"store": SERVICE}, "container_only": True},
        "agent": {"prompt_text": "Post `kept` to the store."},
        "grader": {"checks": [{**check, "command": "python3 /grader/look.py"}]},
        "solution": "solution/solve.sh",
    }
    files = {
        "task.yaml": yaml.safe_dump(manifest),
        "workspace/.gitkeep": "",
        "services/keeper.py": KEEPER,
        "grader/look.py": "import urllib.request as u; assert u.urlopen('http://store').read() == b'kept'",
        "solution/solve.sh": "python3 -c \"import urllib.request as u; u.urlopen('http://store', b'kept')\"\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    scores = {}
    async with Engine(environ={}) as engine:
        for model in ("fake/oracle", "fake/nop"):
            result = await engine.run(RunOptions(task=folder, model=model, runs_dir=tmp_path / "runs"))
            assert (result.status, result.sandbox, result.isolated) == ("completed", "compose", True), result.error
            scores[model] = result.score
            left = await find_leftovers(host.client, partial(is_of_run, result.run_id))
            assert left == []
    assert scores == {"fake/oracle": 1.0, "fake/nop": 0.0}
