"""Ctrl-C and SIGTERM for a command that runs something: the first cancels it, the second ends the process at once."""

import os
import signal
from collections.abc import Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

import anyio
import click
from anyio.abc import TaskStatus

T = TypeVar("T")


class Finished(NamedTuple, Generic[T]):
    """What the work returned (None when it was interrupted), and the signal that interrupted it."""

    value: T | None
    interrupted_by: signal.Signals | None

    @property
    def exit_code(self) -> int | None:
        """128 + the signal's number, None when there was none."""
        return None if self.interrupted_by is None else 128 + self.interrupted_by


async def run_interruptible(work: Callable[[], Awaitable[T]]) -> Finished[T]:
    """Await `work()`; on SIGINT or SIGTERM it is cancelled, cleans up, and the signal is told.

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
                click.echo(f"{received.name}: stopping; again to stop at once", err=True)
                work_scope.cancel()

    work_scope = anyio.CancelScope()
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        await group.start(receive)
        try:
            with work_scope:
                value = await work()
        except Exception as error:  # noqa: BLE001 - carried out of the group, which would wrap it
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return Finished(value, caught[0] if caught else None)
