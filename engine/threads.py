"""Blocking work off the loop whose outcome must not be lost."""

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")


async def run_to_its_end(function: Callable[[], T]) -> T:
    """What `function()` gives, run in a thread. A cancelled caller gets it too, and sees its cancellation at its next
    await: what was made can be closed."""
    made: list[T] = []
    with anyio.CancelScope(shield=True):
        made.append(await anyio.to_thread.run_sync(function))
    return made[0]
