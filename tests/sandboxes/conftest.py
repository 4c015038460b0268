"""What the sandbox tests share: opening any kind, running a command to its end, looking for processes."""

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import anyio
import pytest

from fbench.engine.errors import SandboxFailed, UsageError
from fbench.engine.owner import owner_identity
from fbench.engine.seams import ExecExit, ExecRequest, Sandbox, SandboxSpec, SiteSpec
from fbench.sandboxes import bubblewrap, compose, compose_client, local
from fbench.sandboxes.docker import open_container_sandbox
from fbench.sandboxes.docker_engine import ContainerHost, open_container_host, ping
from fbench.sandboxes.image_store import find_image
from fbench.tasks.manifest import Environment

IMAGE = "fbench/base:1"
"""What the containers of these tests are made of; `.ci/machine.sh` makes it."""
SERVICES = {
    "store": {
        "image": IMAGE,
        "command": "python3 -m http.server --directory /etc 80",
        "healthcheck": {
            "command": "python3 -c \"import urllib.request as u; u.urlopen('http://localhost')\"",
            "interval_s": 0.2,
            "retries": 50,
        },
    }
}


class Done(NamedTuple):
    exit: ExecExit
    output: bytes

    @property
    def text(self) -> str:
        return self.output.decode(errors="replace").strip()


class Opener(Protocol):
    def __call__(self, **changes: Any) -> AbstractAsyncContextManager[Sandbox]: ...


async def _bubblewrap_or_skip() -> None:
    trouble = await bubblewrap.probe()
    if trouble is not None:
        if os.environ.get("FBENCH_REQUIRE_BUBBLEWRAP") == "1":
            pytest.fail(f"FBENCH_REQUIRE_BUBBLEWRAP=1 and {trouble}")
        pytest.skip(f"NOT TESTED HERE: {trouble}")


async def _docker_or_skip(*, needs_compose: bool = False) -> None:
    trouble = await ping()
    if trouble is None and needs_compose:
        trouble = await compose_client.probe()
    if trouble is not None:
        if os.environ.get("FBENCH_REQUIRE_DOCKER") == "1":
            pytest.fail(f"FBENCH_REQUIRE_DOCKER=1 and {trouble}")
        pytest.skip(f"NOT TESTED HERE: {trouble}")


async def _ready(name: str) -> str:
    if name == "bubblewrap":
        await _bubblewrap_or_skip()
    elif name != "local":
        await _docker_or_skip()
    return name


@pytest.fixture(params=["local", "bubblewrap", "docker", "docker-plain", "compose"])
async def kind(request: pytest.FixtureRequest) -> str:
    """`docker-plain` is docker without a supervisor, as with an image that has no Python; `compose` is a site with a
    network and no services."""
    return await _ready(request.param)


@pytest.fixture(params=["local", "bubblewrap", "docker"])
async def supervised_kind(request: pytest.FixtureRequest) -> str:
    return await _ready(request.param)


@pytest.fixture(params=["docker", "docker-plain"])
async def docker_kind(request: pytest.FixtureRequest) -> str:
    return await _ready(request.param)


@pytest.fixture
async def host() -> AsyncIterator[ContainerHost]:
    """The engine of this machine; without one, without Compose or the base image the test does not run."""
    trouble = await compose_client.probe()
    try:
        async with open_container_host() as found:
            if trouble is None and await find_image(found.client, IMAGE) is None:
                trouble = f"the image {IMAGE} is missing: run .ci/machine.sh"
            if trouble is None:
                yield found
                return
    except (SandboxFailed, UsageError) as error:
        trouble = str(error)
    if os.environ.get("FBENCH_REQUIRE_DOCKER") == "1":
        pytest.fail(f"FBENCH_REQUIRE_DOCKER=1 and {trouble}")
    pytest.skip(f"NOT TESTED HERE: {trouble}")


@pytest.fixture(params=["local", "bubblewrap"])
async def host_kind(request: pytest.FixtureRequest) -> str:
    """The kinds that run the host's own programs."""
    return await _ready(request.param)


@pytest.fixture
async def needs_docker() -> None:
    await _docker_or_skip()


@pytest.fixture
async def needs_bubblewrap() -> None:
    await _bubblewrap_or_skip()


@pytest.fixture
def spec(tmp_path: Path) -> SandboxSpec:
    (tmp_path / "workspace").mkdir()
    return SandboxSpec(run_id="r", workspace=tmp_path / "workspace", scratch=tmp_path / "scratch")


def _opener(spec: SandboxSpec, name: str) -> Opener:
    def open_it(**changes: Any) -> AbstractAsyncContextManager[Sandbox]:
        changed = replace(spec, **changes)
        if name.startswith("docker"):
            return _open_docker(changed, has_supervisor=name == "docker")
        if name.startswith("compose"):
            return _open_compose(changed, SERVICES if name == "compose-services" else {})
        opened: AbstractAsyncContextManager[Sandbox]
        opened = (local if name == "local" else bubblewrap).open_sandbox(changed)
        return opened

    return open_it


@asynccontextmanager
async def _open_docker(spec: SandboxSpec, *, has_supervisor: bool) -> AsyncIterator[Sandbox]:
    async with (
        open_container_host() as host,
        open_container_sandbox(
            host, spec, image=IMAGE, owner=owner_identity(), has_supervisor=has_supervisor
        ) as sandbox,
    ):
        assert hasattr(sandbox, "begun") == has_supervisor
        yield sandbox


@asynccontextmanager
async def _open_compose(spec: SandboxSpec, services: Mapping[str, Any]) -> AsyncIterator[Sandbox]:
    """A sandbox at a site of its own."""
    environment = Environment.model_validate({"image": IMAGE, "services": services})
    scratch = spec.scratch.with_name(f"{spec.scratch.name}-site")
    site = SiteSpec(spec.run_id, owner_identity(), spec.scratch.parent, environment, scratch)
    async with compose.open_site(site) as open_sandbox, open_sandbox(spec) as sandbox:
        assert sandbox.kind == "compose"
        yield sandbox


@pytest.fixture
def opener(spec: SandboxSpec, kind: str) -> Opener:
    return _opener(spec, kind)


@pytest.fixture
def supervised_opener(spec: SandboxSpec, supervised_kind: str) -> Opener:
    return _opener(spec, supervised_kind)


@pytest.fixture
def docker_opener(spec: SandboxSpec, docker_kind: str) -> Opener:
    return _opener(spec, docker_kind)


@pytest.fixture
def host_opener(spec: SandboxSpec, host_kind: str) -> Opener:
    return _opener(spec, host_kind)


@pytest.fixture
def open_bubblewrap(spec: SandboxSpec, needs_bubblewrap: None) -> Opener:
    return _opener(spec, "bubblewrap")


@pytest.fixture
async def open_beside_a_service(spec: SandboxSpec) -> Opener:
    """A `compose` sandbox with the service `store` of `SERVICES`."""
    await _docker_or_skip(needs_compose=True)
    return _opener(spec, "compose-services")


@pytest.fixture
def open_local(spec: SandboxSpec) -> Opener:
    return _opener(spec, "local")


@pytest.fixture
def image() -> str:
    return IMAGE


@pytest.fixture
def run() -> Callable[..., Any]:
    async def run_it(sandbox: Sandbox, command: str | tuple[str, ...], **more: Any) -> Done:
        argv = ("bash", "-c", command) if isinstance(command, str) else command
        with anyio.fail_after(30):
            async with sandbox.exec(ExecRequest(argv, **more)) as running:
                output = b"".join([chunk.data async for chunk in running])
                return Done(await running.wait(), output)

    return run_it


@pytest.fixture
def alive() -> Callable[[str], list[int]]:
    """Host pids of the processes whose command line holds a text, zombies not counted."""

    def find(text: str) -> list[int]:
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                try:
                    if text.encode() in (folder / "cmdline").read_bytes() and int(folder.name) != os.getpid():
                        found.append(int(folder.name))
                except OSError:
                    continue
        return found

    return find


@pytest.fixture
def until() -> Callable[..., Any]:
    async def wait(condition: Callable[[], bool], patience_s: float = 10.0) -> bool:
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            if condition():
                return True
            await anyio.sleep(0.02)
        return condition()

    return wait


@pytest.fixture
def tag() -> AsyncIterator[str] | str:
    """A number no other test sleeps for: `sleep TAG` can be found by it."""
    return f"9{int.from_bytes(os.urandom(4), 'big'):010d}"
