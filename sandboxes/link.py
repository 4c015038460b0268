"""The host's end of a supervisor: its process, its control socket, the messages between them."""

import json
import marshal
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import anyio

from fbench.engine.errors import SandboxFailed, SandboxLost

START_PATIENCE_S = 30.0
"""How long a supervisor may take to answer; seen are 30 ms, the rest is for a machine that is very busy."""
EXIT_PATIENCE_S = 5.0
"""How long a killed supervisor may take to be gone; a namespace waits for its last process to be."""
LONG_MESSAGE = 32 * 1024
"""Bytes from which a message goes as a file: a packet has to fit the socket's buffer (about 200 KB)."""
MAX_REPLY = 1 << 18
MARSHAL_FORMAT = 2
"""What every Python 3 reads: that of an image may be another than ours."""
SUPERVISOR_FILE = Path(__file__).with_name("supervisor.py")

_UCRED = struct.Struct("3i")


def supervisor_argv(script: str) -> list[str]:
    """The command that runs the supervisor: the interpreter itself, isolated, without site, in UTF-8."""
    return [os.path.realpath(sys.executable), "-I", "-S", "-X", "utf8", script]


class SupervisorLink:
    """A running supervisor.

    Attributes:
        pid: the supervisor's pid as the host sees it; in a namespace it is not the child we started.
        is_lost: whether it has gone.
    """

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, log_fd: int) -> None:
        self.pid = process.pid
        self.is_lost = False
        self._process = process
        self._control = control
        self._log_fd = log_fd
        self._exit_fd = os.pidfd_open(process.pid)
        self._pid_fd: int | None = None

    @classmethod
    async def start(cls, argv: Sequence[str], *, what: str) -> Self:
        """Start `argv` with the control socket as its standard input and an empty environment; wait until it answers.

        Raises SandboxFailed, with what the process had to say, when it does not come up.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log_fd = os.memfd_create("fbench-supervisor-log", os.MFD_CLOEXEC)
        try:
            ours.setblocking(False)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            process = subprocess.Popen(  # noqa: ASYNC220, S603 - returns after exec; the argv is ours
                list(argv),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=log_fd,
                env={},
                cwd="/",
                start_new_session=True,
            )
        except BaseException as error:
            ours.close()
            os.close(log_fd)
            if isinstance(error, OSError):
                msg = f"{what} could not be started: {error}"
                raise SandboxFailed(msg) from error
            raise
        finally:
            theirs.close()
        link = cls(process, ours, log_fd)
        try:
            with anyio.move_on_after(START_PATIENCE_S):
                await link._await_ready()
                return link
            msg = f"{what} did not answer within {START_PATIENCE_S:.0f} s: the machine may be overloaded; try again"
            raise SandboxFailed(msg)  # noqa: TRY301 - what was started is ended on the same way out
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await link.aclose()
            if isinstance(error, SandboxLost):
                msg = f"{what} could not be started: {error}"
                raise SandboxFailed(msg) from error
            raise

    async def _await_ready(self) -> None:
        data, sender = await self._receive()
        if not data:
            raise SandboxLost(self.last_words() or "it ended at once without a word")
        self.pid = sender
        self._pid_fd = os.pidfd_open(sender)

    async def _receive(self) -> tuple[bytes, int]:
        """One packet and its sender's pid; empty at the end."""
        while True:
            try:
                data, ancillary, _, _ = self._control.recvmsg(MAX_REPLY, socket.CMSG_SPACE(_UCRED.size))
            except BlockingIOError:
                await anyio.wait_readable(self._control)
                continue
            except OSError:
                return b"", 0
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS and len(content) >= _UCRED.size:
                    return data, int(_UCRED.unpack(content[: _UCRED.size])[0])
            return data, 0

    async def replies(self) -> AsyncIterator[Mapping[str, Any]]:
        """Every message of the supervisor; ends when it is gone."""
        while (data := (await self._receive())[0]) != b"":
            yield json.loads(data)
        self.is_lost = True

    async def send(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Send one message whole, or not at all when cancelled. Raises SandboxLost."""
        data = marshal.dumps(dict(message), MARSHAL_FORMAT)
        long_fd = -1
        if len(data) > LONG_MESSAGE:
            long_fd = memory_file(data)
            data = marshal.dumps({"long": True}, MARSHAL_FORMAT)
            fds = [*fds, long_fd]
        try:
            while True:
                try:
                    socket.send_fds(self._control, [data], fds)
                    return  # noqa: TRY300 - the loop's only good end
                except BlockingIOError:
                    await anyio.wait_writable(self._control)
                except OSError as error:
                    self.is_lost = True
                    msg = f"the sandbox's supervisor is gone ({self.last_words() or error}): run the task again"
                    raise SandboxLost(msg) from error
        finally:
            if long_fd >= 0:
                os.close(long_fd)

    def last_words(self) -> str:
        """The end of what the process wrote on stderr."""
        size = os.fstat(self._log_fd).st_size
        return os.pread(self._log_fd, 2000, max(0, size - 2000)).decode(errors="replace").strip()

    async def aclose(self) -> bool:
        """Kill the supervisor, with its namespace if it has one, and wait until both are gone; False if they stay.

        Must be shielded by the caller.
        """
        gone = False
        with anyio.move_on_after(EXIT_PATIENCE_S):
            if self._pid_fd is None:
                # The whole group: a bwrap that is killed early leaves a child that waits for it for ever.
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                await self._outlast_start()
            else:
                _signal_by_pidfd(self._pid_fd)
                await anyio.wait_readable(self._pid_fd)
            await anyio.wait_readable(self._exit_fd)
            gone = True
        self._control.close()
        if not gone:
            self._process.kill()
            with anyio.move_on_after(EXIT_PATIENCE_S):
                await anyio.wait_readable(self._exit_fd)
        self._process.poll()
        for fd in (self._exit_fd, self._log_fd, self._pid_fd):
            if fd is not None:
                os.close(fd)
        return gone

    async def _outlast_start(self) -> None:
        """Wait until nobody holds the other end: what bwrap forked dies only some time after it, or comes up yet."""
        while (packet := await self._receive())[0]:
            with suppress(ProcessLookupError):
                os.kill(packet[1], signal.SIGKILL)


def memory_file(data: bytes) -> int:
    """A descriptor of a file in memory that holds `data` and cannot be changed any more; the caller closes it."""
    import fcntl  # noqa: PLC0415 - Linux only, like its caller; the module must import elsewhere too

    fd = os.memfd_create("fbench", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _signal_by_pidfd(fd: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(fd, signal.SIGKILL)
