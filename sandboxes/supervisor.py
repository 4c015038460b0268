"""The process that starts and ends commands inside one sandbox; run as a file by `python -I -S`, standard library only.

Its control channel is a SOCK_SEQPACKET socket on descriptor 0, one message a packet (`fbench.sandboxes.link` is the
other end): requests in the second format of `marshal`, which the host alone writes, replies as JSON. For each command
it forks a *monitor*, a child subreaper that forks the command, reports how that ended, and stays as the parent of
whatever was left in the background until nothing is. So the tree of a command is always the monitor's descendants,
daemons and setsid children included. Output never passes through here.

Requests:  exec {id, argv, env, cwd, rlimits, has_stdin} with descriptors [stdin?] stdout stderr; kill {id}; end {}.
Replies:   ready; exited {id, status}; failed {id, errno, what}; killed {id, survivors}; ended {survivors}.
Texts travel as latin-1 images of bytes. A packet that would be too long comes as {"long": True} with a descriptor of a
file that holds it as its last one.

Every command forks this process, and every run that executes something starts it, so it imports no module that brings
`enum`: with json, signal, socket and ctypes it took 40 ms of CPU to be there, so 16.
"""

from __future__ import annotations

import errno
import marshal
import os
import resource
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing would cost a fifth of the start-up
    import signal
    import socket
    from collections.abc import Callable
    from typing import Any, NoReturn
else:
    try:  # what the public modules are made of
        import _signal as signal
        import _socket as socket
    except ImportError:
        import signal
        import socket

KILL_PATIENCE_S = 5.0
"""How long one kill may take before the survivors are reported; a D-state process cannot be ended by anybody."""
MONITOR_PATIENCE_S = 1.0
"""How long a monitor may take to leave once its descendants are gone, before it is taken for sabotaged."""
COMMAND_OOM_SCORE = "500"
"""Commands go first when memory runs out, the supervisor last."""
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36
MAX_FDS, MAX_PACKET = 16, 1 << 18
IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def _find_prctl() -> Callable[..., object]:
    try:
        from _ctypes import call_function, dlopen, dlsym  # noqa: PLC0415

        program_itself: Any = None
        address = dlsym(dlopen(program_itself, 0), "prctl")
    except (ImportError, OSError):
        import ctypes  # noqa: PLC0415

        return ctypes.CDLL(None).prctl
    return lambda *arguments: call_function(address, arguments)


_prctl = _find_prctl()


class Command:
    """What is known of one exec."""

    __slots__ = ("has_exited", "id", "monitor", "monitor_alive", "pid", "report_fd")

    def __init__(self, id_: int, monitor: int, report_fd: int) -> None:
        self.id = id_
        self.monitor = monitor
        self.report_fd = report_fd
        self.pid: int | None = None
        self.monitor_alive = True
        self.has_exited = False


class HostGone(Exception):
    """The control socket is at its end."""


class Supervisor:
    """The loop, its commands and the control socket."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.host_gone = False
        self.commands: dict[int, Command] = {}
        self.monitors: dict[int, Command] = {}
        self.reports: dict[int, Command] = {}
        self.wake_fd, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.poll = select.poll()
        for fd in (control.fileno(), self.wake_fd):
            self.poll.register(fd, select.POLLIN)

    def serve(self) -> None:
        """Work until the host is gone, then end everything."""
        try:
            self.reply({"event": "ready"})
            while True:
                for fd, _ in self.poll.poll():
                    if fd == self.wake_fd:
                        self.reap()
                    elif fd in self.reports:
                        self.read_report(self.reports[fd])
                    elif fd == self.control.fileno():
                        self.take_request()
        except HostGone:
            pass
        finally:
            self.host_gone = True
            self.end_all()

    # -------------------------------------------------------------------------------------------------- messages

    def reply(self, message: dict[str, Any]) -> None:
        if self.host_gone:
            return
        try:
            self.control.send(as_json(message))
        except OSError as error:
            raise HostGone from error

    def take_request(self) -> None:
        try:
            space = socket.CMSG_SPACE(MAX_FDS * 4)
            data, ancillary, _, _ = self.control.recvmsg(MAX_PACKET, space, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise HostGone from error
        fds = [fd for *_, content in ancillary for fd in memoryview(content).cast("i").tolist()]
        if not data:
            raise HostGone
        try:
            message = marshal.loads(data)  # noqa: S302 - the host wrote it
            if message.get("long"):
                with open(fds.pop(), "rb") as file:  # noqa: PTH123 - a descriptor, not a path
                    file.seek(0)
                    message = marshal.loads(file.read())  # noqa: S302 - the same
            self.handle(message, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def handle(self, message: dict[str, Any], fds: list[int]) -> None:
        operation = message["op"]
        if operation == "exec":
            self.start(message, fds)
        elif operation == "kill":
            command = self.commands.get(message["id"])
            survivors = [] if command is None else self.kill(command)
            self.reply({"event": "killed", "id": message["id"], "survivors": survivors})
        elif operation == "end":
            self.reply({"event": "ended", "survivors": self.end_all()})

    # -------------------------------------------------------------------------------------------------- starting

    def start(self, message: dict[str, Any], fds: list[int]) -> None:
        report_read, report_write = os.pipe2(os.O_CLOEXEC)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            monitor = os.fork()
        except OSError as error:
            os.close(report_read)
            self.reply({"event": "failed", "id": message["id"], "errno": error.errno, "what": "fork"})
            return
        else:
            if monitor == 0:
                try:
                    self.control.close()
                    run_monitor(message, fds, report_write)
                finally:
                    os._exit(125)
        finally:
            os.close(report_write)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
        command = Command(message["id"], monitor, report_read)
        self.commands[command.id] = self.monitors[monitor] = self.reports[report_read] = command
        os.set_blocking(report_read, False)
        self.poll.register(report_read, select.POLLIN)

    # --------------------------------------------------------------------------------------------------- reaping

    def read_report(self, command: Command) -> None:
        """Take what a monitor says; at the end of its pipe the monitor is gone or going."""
        if command.report_fd < 0:
            return
        try:
            data = os.read(command.report_fd, 65536)
        except BlockingIOError:
            return
        for line in data.decode().splitlines():
            word, number, *what = line.split()
            if word == "started":
                command.pid = int(number)
            else:
                self.finish(command, {word: int(number), **({"what": what[0]} if what else {})})
        if not data:
            self.poll.unregister(command.report_fd)
            del self.reports[command.report_fd]
            os.close(command.report_fd)
            command.report_fd = -1

    def finish(self, command: Command, outcome: dict[str, Any]) -> None:
        if not command.has_exited:
            command.has_exited = True
            self.reply({"event": "failed" if "errno" in outcome else "exited", "id": command.id, **outcome})
            self.forget(command)

    def forget(self, command: Command) -> None:
        """Nothing is left to tell or to end of it."""
        if command.has_exited and not command.monitor_alive:
            self.commands.pop(command.id, None)

    def reap(self) -> None:
        """Take every child that ended: monitors, and orphans of monitors that somebody killed."""
        if select.select([self.wake_fd], [], [], 0)[0]:
            os.read(self.wake_fd, 65536)
        while (child := reap_one(os.WUNTRACED)) is not None and child[0]:
            pid, status = child
            if os.WIFSTOPPED(status):
                if pid in self.monitors:
                    os.kill(pid, signal.SIGCONT)
            elif pid in self.monitors:
                self.lose_monitor(self.monitors.pop(pid))
            else:
                for command in list(self.commands.values()):
                    self.read_report(command)
                    if command.pid == pid:  # it became our child, so its monitor is gone, reaped already or not
                        self.finish(command, {"status": status})

    def lose_monitor(self, command: Command) -> None:
        """A monitor ended. When it was killed, its command is a child of ours now and is waited for here."""
        while command.report_fd >= 0:
            before = command.report_fd
            self.read_report(command)
            if command.report_fd == before and not select.select([before], [], [], 0)[0]:
                break
        command.monitor_alive = False
        if not command.has_exited and (command.pid is None or parent_of(command.pid, even_zombie=True) != os.getpid()):
            self.finish(command, {"status": int(signal.SIGKILL)})
        self.forget(command)

    # --------------------------------------------------------------------------------------------------- killing

    def kill(self, command: Command) -> list[int]:
        """End the command's whole tree; gives the pids that would not end."""
        deadline = time.monotonic() + KILL_PATIENCE_S
        idle_since: float | None = None
        while True:
            self.reap()
            victims = self.victims(command)
            now = time.monotonic()
            if (not victims and not command.monitor_alive) or now > deadline:
                return sorted(victims)
            if victims:
                idle_since = None
                end_processes(victims, lambda: self.victims(command))
            else:
                idle_since = idle_since or now
                if now - idle_since > MONITOR_PATIENCE_S:
                    send({command.monitor}, signal.SIGKILL)
            select.select([self.wake_fd], [], [], 0.005)

    def victims(self, command: Command) -> set[int]:
        """What is below its monitor, and what came to us because a monitor was killed, but other running commands."""
        table = process_table()
        others = {c.pid for c in self.commands.values() if c is not command and not c.has_exited}
        adopted = [
            p for p, parent in table.items() if parent == os.getpid() and p not in self.monitors and p not in others
        ]
        below = [command.monitor] if command.monitor_alive else []
        return set(adopted) | descendants([*adopted, *below], table)

    def end_all(self) -> list[int]:
        """End every process but this one; gives the pids that would not end."""
        deadline = time.monotonic() + KILL_PATIENCE_S
        while True:
            self.reap()
            victims = descendants([os.getpid()])
            if not victims:
                break
            if time.monotonic() > deadline:
                return sorted(victims)
            if os.getpid() == 1:
                os.kill(-1, signal.SIGKILL)  # all at once: the namespace is ours, nobody can fork out of it
            else:
                end_processes(victims, lambda: descendants([os.getpid()]))
            select.select([self.wake_fd], [], [], 0.005)
        return []


# ------------------------------------------------------------------------------------------------- monitor and command


def run_monitor(message: dict[str, Any], fds: list[int], report_fd: int) -> NoReturn:
    """The monitor's whole life; every signal is blocked."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    supervisor = os.getppid()
    _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _prctl(PR_SET_PDEATHSIG, int(signal.SIGUSR1), 0, 0, 0)
    try:
        child = os.fork()
    except OSError as error:
        write_line(report_fd, f"errno {error.errno} fork")
        os._exit(0)
    if child == 0:
        run_command(message, fds, report_fd)
    for fd in fds:
        os.close(fd)
    while True:
        ended = reap_one()
        if ended is None:
            os._exit(0)
        if ended[0] == child:
            write_line(report_fd, f"status {ended[1]}")
        elif ended[0] == 0:
            signal.sigwait({signal.SIGCHLD, signal.SIGUSR1})
            if os.getppid() != supervisor:
                end_orphaned_tree()


def end_orphaned_tree() -> NoReturn:
    """The supervisor was killed: nobody else is left to end this tree."""
    deadline = time.monotonic() + KILL_PATIENCE_S
    while time.monotonic() < deadline:
        while (ended := reap_one()) is not None and ended[0]:
            pass
        if ended is None:
            break
        end_processes(descendants([os.getpid()]), lambda: descendants([os.getpid()]))
        time.sleep(0.005)
    os._exit(0)


def run_command(message: dict[str, Any], fds: list[int], report_fd: int) -> NoReturn:
    """Become the command. It reports its start itself, before it could kill the monitor that would, or its failure."""
    what = "stdio"
    write_line(report_fd, f"started {os.getpid()}")
    try:
        os.setsid()
        *given, out, err = fds
        os.dup2(given[0] if message["has_stdin"] else os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        set_oom_score()
        os.umask(0o022)
        what = "cwd"
        os.chdir(to_bytes(message["cwd"]))
        what = "rlimit"
        for name, value in message["rlimits"].items():
            limit = getattr(resource, name)
            hard = resource.getrlimit(limit)[1]
            cap = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(limit, (cap, cap))
        for number in (signal.SIGPIPE, signal.SIGXFSZ, *IGNORED_SIGNALS):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        what = "exec"
        argv = [to_bytes(argument) for argument in message["argv"]]
        os.execvpe(  # noqa: S606 - starting what it is told is its whole purpose
            argv[0], argv, {to_bytes(k): to_bytes(v) for k, v in message["env"].items()}
        )
    except BaseException as error:  # noqa: BLE001 - a forked child must never return into its parent's code
        code = (error.errno if isinstance(error, OSError) else None) or errno.EINVAL
        write_line(report_fd, f"errno {code} {what}")
    os._exit(127)


def set_oom_score() -> None:
    _prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # a process that is not dumpable does not own its files in /proc
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - pathlib would double the start-up
            file.write(COMMAND_OOM_SCORE)
    except OSError:
        pass  # an older value is higher already, or /proc is read-only: the limit itself still holds


# ------------------------------------------------------------------------------------------------------------ helpers


def end_processes(victims: set[int], again: Callable[[], set[int]]) -> None:
    """Stop all victims, and those found again while that was done, then kill them: a stopped process forks no more."""
    stopped: set[int] = set()
    for _ in range(50):
        fresh = victims - stopped
        if not fresh:
            break
        send(fresh, signal.SIGSTOP)
        stopped |= fresh
        victims = again()
    send(stopped, signal.SIGKILL)


def reap_one(flags: int = 0) -> tuple[int, int] | None:
    """The next child that ended and its status; a pid of 0 when none did yet, None when there are no children."""
    try:
        return os.waitpid(-1, os.WNOHANG | flags)
    except ChildProcessError:
        return None


def send(pids: set[int], number: int) -> None:
    for pid in pids:
        try:  # noqa: SIM105 - contextlib would be one import more
            os.kill(pid, number)
        except OSError:
            pass  # it ended meanwhile


def process_table() -> dict[int, int]:
    """pid -> parent of every process that is no zombie."""
    table: dict[int, int] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib would double the start-up
        if name.isdecimal() and (parent := parent_of(int(name))) is not None:
            table[int(name)] = parent
    return table


def parent_of(pid: int, *, even_zombie: bool = False) -> int | None:
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        state, parent = os.read(fd, 4096).rpartition(b")")[2].split()[:2]
    except OSError:
        return None
    finally:
        os.close(fd)
    return None if state in b"ZX" and not even_zombie else int(parent)


def descendants(roots: list[int], table: dict[int, int] | None = None) -> set[int]:
    """Every process below `roots`, which are not in it."""
    children: dict[int, list[int]] = {}
    for pid, parent in (process_table() if table is None else table).items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    queue = list(roots)
    while queue:
        for pid in children.get(queue.pop(), ()):
            if pid not in found:
                found.add(pid)
                queue.append(pid)
    return found


def write_line(fd: int, line: str) -> None:
    os.write(fd, line.encode() + b"\n")


def as_json(message: dict[str, Any]) -> bytes:
    """A message of plain words, numbers and lists of numbers."""
    pairs = (f'"{key}": ' + (f'"{value}"' if isinstance(value, str) else repr(value)) for key, value in message.items())
    return f"{{{', '.join(pairs)}}}".encode()


def to_bytes(text: str) -> bytes:
    return text.encode("latin-1")


def main() -> None:
    """Take the control socket from descriptor 0 and serve it."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - see process_table
        try:
            if int(name) > 2:  # noqa: PLR2004 - stderr
                os.set_inheritable(int(name), False)
        except OSError:
            pass  # the folder's own descriptor
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    _prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    Supervisor(control).serve()


if __name__ == "__main__":
    main()
    sys.exit(0)
