"""Compose through python-on-whales: blocking calls in threads, ended when the caller is cancelled."""

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from typing import TYPE_CHECKING, Literal, TypeVar
from uuid import uuid4

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from fbench.engine.errors import SandboxFailed
from fbench.sandboxes.docker_engine import EngineAddress

if TYPE_CHECKING:
    from python_on_whales import DockerClient

KEEPER_FILE = Path(__file__).with_name("compose_keeper.py")
MOST_CALLS = 32
"""Of each kind at once in one loop: a call is a thread here, and a process with some 50 MB beside it."""
SIGNAL_PAUSE_S = 0.02
STDERR_LINES = 15

OLDEST_VERSION = 2
PROBE_PATIENCE_S = 10.0
INSTALL_HINT = (
    "install the plugin: `docker-compose-plugin` of Docker's own package repository, `docker-compose-v2` on Ubuntu, "
    "`docker-compose` on Debian 13 and later"
)

T = TypeVar("T")

_found: set[str] = set()
_limiters: RunVar[dict[str, anyio.CapacityLimiter]] = RunVar("fbench_compose_limiters")


class ComposeCallFailed(SandboxFailed):
    """Compose ended with an error; the text is the end of what it said. `is_broken` when it did not even answer."""

    def __init__(self, message: str, *, is_broken: bool = False) -> None:
        super().__init__(message)
        self.is_broken = is_broken


@dataclass(frozen=True, slots=True)
class ComposeClient:
    """Calls of `docker compose` for one project.

    Attributes:
        address: the engine's.
        project: the project's name.
        file: the project's file; its folder takes the calls' own files too.
    """

    address: EngineAddress
    project: str
    file: Path

    async def up(self, timeout_s: float) -> None:
        """Create and start the services, and wait until they are healthy.

        Raises:
            ComposeCallFailed: it did not come to that; what is there stays, for `down`.
        """

        def call(client: "DockerClient") -> None:
            client.compose.up(detach=True, wait=True, quiet=True, no_build=True, pull="never")

        try:
            with anyio.fail_after(timeout_s):
                await self._call(call, "bound")
        except TimeoutError as error:
            msg = f"`docker compose up` did not end within {timeout_s:.0f} s"
            raise ComposeCallFailed(msg, is_broken=True) from error

    async def down(self) -> None:
        """Remove the project's containers and volumes. Raises ComposeCallFailed."""

        def call(client: "DockerClient") -> None:
            client.compose.down(remove_orphans=True, volumes=True, timeout=0, quiet=True)

        await self._call(call, "free")

    async def _call(self, call: "Callable[[DockerClient], None]", how: Literal["bound", "free"]) -> None:
        """`call(client)` in a thread; a cancelled caller ends the call's process, and waits for its thread."""
        with _pid_file(self.file.parent) as pid_file:
            state = _CallState()
            async with anyio.create_task_group() as group:
                group.start_soon(self._run, call, how, pid_file, state)
                try:
                    await state.ended.wait()
                except anyio.get_cancelled_exc_class():
                    state.is_stopped = True
                    with anyio.CancelScope(shield=True):
                        await _end_call(pid_file, state)
                    raise
            if state.failure is not None:
                raise state.failure

    async def _run(
        self,
        call: "Callable[[DockerClient], None]",
        how: Literal["bound", "free"],
        pid_file: Path,
        state: "_CallState",
    ) -> None:
        def work() -> None:
            if not state.is_stopped:
                _run_blocking(lambda: call(self._client(how, pid_file)))

        with anyio.CancelScope(shield=True):
            try:
                await anyio.to_thread.run_sync(work, limiter=_limiter(how))
            except SandboxFailed as error:
                state.failure = error
            finally:
                state.ended.set()

    def _client(self, how: str, pid_file: Path) -> "DockerClient":
        from python_on_whales import DockerClient  # noqa: PLC0415 - heavy, and for services only

        keeper = (sys.executable, "-I", "-S", str(KEEPER_FILE))
        folder = self.address.certificates
        is_secured = self.address.url.startswith("https://")
        return DockerClient(
            host=self.address.url.replace("https://", "tcp://").replace("http://", "tcp://"),
            tls=is_secured or None,
            tlsverify=(is_secured and self.address.verifies) or None,
            tlscacert=folder / "ca.pem" if folder else None,
            tlscert=folder / "cert.pem" if folder else None,
            tlskey=folder / "key.pem" if folder else None,
            client_call=[*keeper, str(pid_file), str(os.getpid()), how, "docker"],
            compose_files=[self.file],
            compose_project_name=self.project,
            compose_project_directory=self.file.parent,
        )


async def probe() -> str | None:
    """None when Docker's Compose plugin can be used, else why not and what to do. Looks until it finds one."""
    program = shutil.which("docker") or ""
    if program in _found:
        return None
    if not program:
        return "Docker's command line (the program `docker`) is not in PATH: install it, and its Compose plugin"
    try:
        await compose_version(program)
    except ComposeCallFailed as error:
        return str(error)
    _found.add(program)
    return None


async def compose_version(program: str) -> str:
    """The version of the Compose plugin of Docker's command line. Raises ComposeCallFailed where there is none."""
    try:
        with anyio.fail_after(PROBE_PATIENCE_S):
            done = await anyio.run_process([program, "compose", "version", "--short"], check=False, stdin=DEVNULL)
    except TimeoutError as error:
        msg = f"`docker compose version` gave no answer in {PROBE_PATIENCE_S:g} s: is {program} Docker's command line?"
        raise ComposeCallFailed(msg, is_broken=True) from error
    except OSError as error:
        msg = f"{program} cannot be started: {error.strerror or error}"
        raise ComposeCallFailed(msg, is_broken=True) from error
    version = done.stdout.decode(errors="replace").strip()
    number = re.match(r"v?(\d+)\.", version)
    if done.returncode != 0 or number is None:
        msg = f"Docker's command line ({program}) has no Compose plugin: {INSTALL_HINT}"
        raise ComposeCallFailed(msg)
    if int(number[1]) < OLDEST_VERSION:
        msg = f"Compose {version} is too old: {INSTALL_HINT}"
        raise ComposeCallFailed(msg)
    return version.splitlines()[0]


class _CallState:
    """What the waiting task and the one with the thread tell each other."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.is_stopped = False
        self.failure: SandboxFailed | None = None


@contextmanager
def _pid_file(folder: Path) -> Iterator[Path]:
    path = folder / f"compose-{uuid4().hex[:8]}.pid"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


async def _end_call(pid_file: Path, state: _CallState) -> None:
    """Signal the call's process, as soon as there is one, until the thread has ended; the keeper has a bound itself."""
    while not state.ended.is_set():
        with suppress(OSError, ValueError):
            os.kill(_read_pid(pid_file), signal.SIGTERM)
        with anyio.move_on_after(SIGNAL_PAUSE_S):
            await state.ended.wait()


def _read_pid(file: Path) -> int:
    return int(file.read_text(encoding="utf-8"))


def _run_blocking(call: Callable[[], T]) -> T:
    from python_on_whales.client_config import ClientNotFoundError  # noqa: PLC0415 - see _client
    from python_on_whales.exceptions import DockerException  # noqa: PLC0415

    try:
        return call()
    except DockerException as error:
        raise ComposeCallFailed(_end_of(error.stderr or error.stdout or f"exit code {error.return_code}")) from error
    except (ClientNotFoundError, OSError) as error:
        msg = f"the program `docker` could not be started: {error}; install Docker's command line"
        raise ComposeCallFailed(msg) from error


def _end_of(text: str) -> str:
    lines = [line.rstrip() for line in text.strip().splitlines() if line.strip()]
    return "\n".join(lines[-STDERR_LINES:])


def _limiter(kind: str) -> anyio.CapacityLimiter:
    """One for starting and one for taking down, so that slow starts never keep what is over from being removed."""
    limiters = _limiters.get({})
    if kind not in limiters:
        limiters[kind] = anyio.CapacityLimiter(MOST_CALLS)
        _limiters.set(limiters)
    return limiters[kind]
