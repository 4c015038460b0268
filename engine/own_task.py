"""Work in a task of its own, so that however its caller is cancelled, it can clean up; groups that wrap no error."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup

T = TypeVar("T")


async def in_own_task(work: Callable[[], Awaitable[T]]) -> T:
    """What `await work()` gives or raises.

    `asyncio.Task.cancel`, which is how `asyncio.timeout` and web frameworks cancel, goes through the shields of anyio:
    in the caller's own task it would end whatever cleaning up it meets. Here it meets a task that only waits, and
    reaches the work as the cancellation of the scope around it, once or many times.
    """
    given: list[T] = []
    raised: list[Exception] = []

    async def do() -> None:
        try:
            given.append(await work())
        except Exception as error:  # noqa: BLE001 - raised below, outside of the group that would wrap it
            raised.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(do)
    if raised:
        raise raised.pop()
    if not given:  # a part of the caller's raised a cancellation by itself
        raise anyio.get_cancelled_exc_class()
    return given[0]


@asynccontextmanager
async def unwrapping_group() -> AsyncIterator[TaskGroup]:
    """A task group whose body's error comes out as it is, and not in a group of errors."""
    failure: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        try:
            yield tasks
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001 - raised below, outside of the group that would wrap it
            failure = error
    if failure is not None:
        raise failure
