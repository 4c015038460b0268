"""Ctrl-C and SIGTERM for a command that runs something: the first cancels it, the second ends the process at once."""

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, NamedTuple, TypeVar

import anyio
import click
from anyio.abc import TaskStatus

from fbench.engine.commands.progress import clear_live_line

T = TypeVar("T")


class Finished(NamedTuple, Generic[T]):
    """What the work returned (None when it was interrupted), and the signal that interrupted it."""

    value: T | None
    interrupted_by: signal.Signals | None

    @property
    def exit_code(self) -> int | None:
        """128 + the signal's number, None when there was none."""
        return None if self.interrupted_by is None else 128 + self.interrupted_by


async def run_interruptible(
    work: Callable[[], Awaitable[T]], beside: Callable[[], Coroutine[Any, Any, None]] | None = None
) -> Finished[T]:
    """Await `work()`; on SIGINT or SIGTERM it is cancelled, cleans up, and the signal is told.

    `beside` runs along and is cancelled when the work has ended.

    A second signal while it cleans up ends the process with the same exit code; what is then left behind is found
    by `fbench clean`.
    """
    caught: list[signal.Signals] = []
    value: T | None = None

    async def receive(*, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for received in signals:
                if caught:
                    os._exit(128 + received)
                caught.append(received)
                clear_live_line(sys.stderr)
                click.echo(f"{received.name}: stopping; again to stop at once", err=True)
                work_scope.cancel()

    work_scope = anyio.CancelScope()
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        await group.start(receive)
        if beside is not None:
            group.start_soon(beside)
        try:
            with work_scope:
                value = await work()
        except Exception as error:  # noqa: BLE001 - carried out of the group, which would wrap it
            failure = error
        group.cancel_scope.cancel()
    if caught:  # the exit code is decided: a signal that comes while the interpreter ends must not change it
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    if failure is not None:
        raise failure
    return Finished(value, caught[0] if caught else None)
