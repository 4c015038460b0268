"""Processes of one command line, found and held by descriptors, and the moment at which the last of them ends."""

import os
import select
import signal
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4


def new_tag() -> str:
    """A number of seconds that nobody else sleeps."""
    return f"9{int(uuid4().hex[:8], 16):010d}"


def open_sleepers(tag: str) -> dict[int, int]:
    """pid -> a descriptor of each process that has `tag` in its command line. The caller closes them."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        pid = int(file.parent.name)
        try:
            if tag.encode() in file.read_bytes() and pid != os.getpid():
                found[pid] = os.pidfd_open(pid)
        except OSError:
            continue
    return found


def wait_for_all(fds: Iterable[int], *, patience_s: float) -> tuple[float, list[int]]:
    """The moment at which the last of these processes ended, and those that outlived the patience. Blocking."""
    waiting = select.poll()
    left = set(fds)
    for fd in left:
        waiting.register(fd, select.POLLIN)
    end = time.monotonic() + patience_s
    while left and (ready := waiting.poll(max(0.0, end - time.monotonic()) * 1000)):
        for fd, _ in ready:
            waiting.unregister(fd)
            left.discard(fd)
    return time.monotonic(), sorted(left)


class Observer:
    """Looks for the processes of `tag` a while after `begin()`, then waits for their end: in a thread, since the loop
    belongs to who is measured. Those that outlive the patience are counted and killed, for some wait for them."""

    def __init__(self, tag: str, *, look_after_s: float, patience_s: float) -> None:
        self.begun = 0.0
        self._tag = tag
        self._look_after_s = look_after_s
        self._patience_s = patience_s
        self._seen = self._left = 0
        self._gone_at = 0.0
        self._thread = threading.Thread(target=self._observe)

    def begin(self) -> None:
        """The clock of whoever has to end the processes starts now."""
        self.begun = time.monotonic()
        self._thread.start()

    def read(self, limit_s: float) -> dict[str, float | int | None]:
        """How late after its limit the last process was gone (None: some had to be killed here), how many there were,
        how many stayed."""
        self._thread.join()
        late_s = None if self._left else self._gone_at - self.begun - limit_s
        return {"late_s": late_s, "seen": self._seen, "left": self._left}

    def _observe(self) -> None:
        time.sleep(self._look_after_s)
        seen = open_sleepers(self._tag)
        self._seen = len(seen)
        self._gone_at, _ = wait_for_all(seen.values(), patience_s=self._patience_s)
        left = open_sleepers(self._tag)  # also those that were started later
        self._left = len(left)
        for fd in left.values():
            with suppress(OSError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        for fd in [*seen.values(), *left.values()]:
            os.close(fd)
