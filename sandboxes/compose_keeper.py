"""A program of its own: runs a command in a session of its own and ends it all when asked, or when its caller dies.

`python -I -S compose_keeper.py PIDFILE CALLER bound|free PROGRAM ARGUMENT...`

python-on-whales blocks a thread in `subprocess.run`. To end that call, send SIGTERM to the pid in PIDFILE. CALLER is
the caller's pid; `bound` ends the command when it dies, so that a killed fbench leaves nobody who goes on creating
containers; `free` lets it finish, as taking down should. Ctrl-C of the terminal does not reach the command: fbench
decides.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

POLL_S = 0.05
TERM_GRACE_S = 2.0
"""For the command to take back what it was doing, before everything in its session is killed."""


def main(arguments: list[str]) -> int:
    """Run the command; its exit code, 143 when it was ended."""
    pid_file, caller, how, *command = arguments
    asked: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    signal.signal(signal.SIGTERM, remember)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    write_whole(Path(pid_file), str(os.getpid()))
    # A process group of its own, or Ctrl-C would cut short what must finish; and no terminal to be stopped by.
    child = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)  # noqa: S603 - what fbench asked for
    while child.poll() is None:
        is_orphan = os.getppid() != int(caller)
        if asked or (is_orphan and how == "bound"):
            end_session(child)
            return 128 + signal.SIGTERM
        if is_orphan:
            return 0
        with suppress(subprocess.TimeoutExpired):
            child.wait(POLL_S)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def write_whole(path: Path, text: str) -> None:
    """Write a file that nobody ever sees half of."""
    half = path.with_suffix(".half")
    half.write_text(text)
    half.rename(path)


def end_session(child: "subprocess.Popen[bytes]") -> None:
    """Ask the command to end, then kill whatever is left in its session: plugins run in process groups of their own."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + TERM_GRACE_S
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(POLL_S / 5)
    for pid in [*session_members(child.pid), child.pid]:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    child.wait()


def session_members(session: int) -> list[int]:
    """The processes of a session, as far as /proc tells."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            if int(fields[3]) == session:
                found.append(int(folder.name))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
