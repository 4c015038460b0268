"""The supervisor of `local` and `bubblewrap` as a container's first process, reached through a mounted socket.

Works where the image has Python 3 and the engine runs on this machine: descriptors pass between containers of one
kernel. Then a command starts in milliseconds, its tree is known exactly, and when fbench dies the supervisor ends
everything, itself and the container with it.
"""

import os
import shutil
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import anyio

from fbench.engine.errors import SandboxFailed, SandboxLost
from fbench.sandboxes.cgroups import ControlGroups
from fbench.sandboxes.docker_container import Container
from fbench.sandboxes.link import EXIT_PATIENCE_S, START_PATIENCE_S, SUPERVISOR_FILE, SupervisorLink

PLACE = "/.fbench"
"""Where the folder with the supervisor and its socket is inside."""
SOCKET = "control"
BOOTSTRAP = f"""
import os, socket
control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
control.connect("{PLACE}/{SOCKET}")
os.dup2(control.detach(), 0)
with open("{PLACE}/supervisor.py", "rb") as file:
    code = compile(file.read(), "supervisor.py", "exec")
exec(code, {{"__name__": "__main__"}})
"""
COMMAND = ("python3", "-I", "-S", "-X", "utf8", "-c", BOOTSTRAP)


class SupervisorAbsent(SandboxFailed):
    """No supervisor answers from the container: its image has no fitting Python, or the engine is elsewhere."""


class ContainerLink(SupervisorLink):
    """A supervisor that is a container's first process."""

    def __init__(self, control: socket.socket, container: Container) -> None:
        self.pid = container.pid
        self.is_lost = False
        self._control = control
        self._pid_fd: int | None = None
        self._name = container.name

    def last_words(self) -> str:
        """What is known of its end."""
        return f"the container {self._name} has ended or was removed" if self.is_lost else ""

    async def aclose(self) -> bool:
        """Kill the supervisor, and with it every process of the container. Must be shielded by the caller."""
        gone = self._pid_fd is None
        if self._pid_fd is not None:
            with suppress(OSError), anyio.move_on_after(EXIT_PATIENCE_S):
                _kill(self._pid_fd)
                await anyio.wait_readable(self._pid_fd)
                gone = True
            os.close(self._pid_fd)
            self._pid_fd = None
        self._control.close()
        return gone


class Listener:
    """The socket in a folder that a container shows at `PLACE`; it takes one connection."""

    def __init__(self, folder: Path) -> None:
        """Write the supervisor into `folder`, which must be new, and listen there."""
        folder.mkdir(mode=0o755, parents=True)
        folder.chmod(0o755)
        copy = folder / "supervisor.py"
        shutil.copyfile(SUPERVISOR_FILE, copy)
        copy.chmod(0o644)
        self._folder = folder
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.setblocking(False)
            fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
            try:
                self._socket.bind(f"/proc/self/fd/{fd}/{SOCKET}")  # a socket's path may have 107 bytes only
            finally:
                os.close(fd)
            (folder / SOCKET).chmod(0o666)
            self._socket.listen(1)
        except BaseException:
            self._socket.close()
            raise

    async def accept(self, container: Container) -> ContainerLink:
        """The supervisor's connection, once it answers. Raises SupervisorAbsent when it never will."""
        link: ContainerLink | None = None
        try:
            with anyio.move_on_after(START_PATIENCE_S):
                async with anyio.create_task_group() as group:
                    group.start_soon(_watch, container, group.cancel_scope)
                    control = await self._connection()
                    link = ContainerLink(control, container)
                    control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                    await link._await_ready()  # noqa: SLF001 - of its own class
                    group.cancel_scope.cancel()
                    return link
        except BaseException as error:
            if link is not None:
                await _close(link)
            if isinstance(error, OSError | SandboxLost | ExceptionGroup):
                msg = f"the supervisor in the container {container.name} did not come up: {error}"
                raise SupervisorAbsent(msg) from error
            raise
        if link is not None:
            await _close(link)
        msg = f"no supervisor answered from the container {container.name}: its image may have no Python 3"
        raise SupervisorAbsent(msg)

    async def _connection(self) -> socket.socket:
        while True:
            try:
                control, _ = self._socket.accept()
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
            else:
                control.setblocking(False)
                return control

    def close(self) -> None:
        """Nobody can connect any more."""
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class ContainerGroups(ControlGroups):
    """The control groups the engine made: read, and left to the engine."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        memory = folders.get("memory")
        is_first = memory is not None and (memory / "memory.oom_control").exists()
        super().__init__({"memory": memory} if memory is not None else {}, {"memory": 1 if is_first else 2})

    def add(self, pid: int) -> None:
        """Nothing to do: the engine puts every process of the container there."""

    async def remove(self) -> None:
        """Nothing to do: they go with the container."""


async def _watch(container: Container, scope: anyio.CancelScope) -> None:
    """End the scope when the container has ended."""
    while await container.is_running():  # noqa: ASYNC110 - the engine is asked, nobody tells
        await anyio.sleep(0.1)
    scope.cancel()


async def _close(link: ContainerLink) -> None:
    with anyio.CancelScope(shield=True):
        await link.aclose()


def _kill(pid_fd: int) -> None:
    import signal  # noqa: PLC0415 - beside its only use

    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pid_fd, signal.SIGKILL)
