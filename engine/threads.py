"""Blocking work off the loop: short jobs one after the other, those of the oldest run first, long ones beside them.

Hundreds of runs that begin together have hundreds of small jobs for the disk. Forty threads that take Python's lock
from each other spend more time on that than on the jobs: a run's took 36 ms of CPU so, and 25 ms one after the other.
And runs that are made ready one after the other are under way, and end, while the next are made ready.
"""

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TypeVar
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread

SHORT_S = 0.03
"""A job that takes longer is no longer waited for by the next one."""
INLINE_S = 0.004
"""Jobs of a kind that usually take less are done on the loop."""
USUAL_SHARE = 0.8
"""What earlier jobs count in what is usual: one that had to wait for a busy disk does not decide alone."""
MOST_KINDS = 1000
DISK_WAITERS = 4
"""Threads that wait for the disk at a time."""

T = TypeVar("T")

_ages = itertools.count(1)
_age: ContextVar[int] = ContextVar("fbench_age", default=0)


@contextmanager
def younger_than_all() -> Iterator[None]:
    """What happens inside comes after whatever was here before, where both have work for a thread: a run begins."""
    token = _age.set(next(_ages))
    try:
        yield
    finally:
        _age.reset(token)


class _Lane:
    """Who is next in a loop. A job has the lane until it ends, or has taken `SHORT_S`."""

    def __init__(self) -> None:
        self.disk_waiters = anyio.CapacityLimiter(DISK_WAITERS)
        self._is_free = True
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()

    async def take(self) -> None:
        """Wait for one's turn; give it back with `leave`."""
        if self._is_free:
            self._is_free = False
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (_age.get(), next(self._arrivals), turn))
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Let the next one in."""
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._is_free = True


_lanes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Lane] = WeakKeyDictionary()
_usual_s: dict[Hashable, float] = {}


def _own_lane() -> _Lane:
    """The running loop's; found without anyio's RunVar, for it is asked several times a run."""
    loop = asyncio.get_running_loop()
    lane = _lanes.get(loop)
    if lane is None:
        lane = _lanes[loop] = _Lane()
    return lane


async def in_thread(
    function: Callable[[], T],
    limiter: anyio.CapacityLimiter | None = None,
    *,
    abandon_on_cancel: bool = False,
    kind: Hashable = None,
    is_little: bool = False,
) -> T:
    """What `function()` gives, run in a thread. A thread cannot be stopped: a cancelled caller waits for its end,
    unless it abandons it, or it would go on writing into folders that are being removed.

    Jobs of a `kind` do the same work each time, nothing of it an agent's. One that takes no time to speak of is done
    on the loop itself, one in each of its turns: handing it over would take longer. So is one whose caller has looked
    and found that it `is_little`.
    """
    loop, lane = asyncio.get_running_loop(), _own_lane()
    await lane.take()
    is_ours = True

    def leave() -> None:
        nonlocal is_ours
        if is_ours:
            is_ours = False
            lane.leave()

    if is_little or (kind is not None and _usual_s.get(kind, math.inf) < INLINE_S):
        try:
            return function() if kind is None else _timed(function, kind)
        finally:
            loop.call_soon(leave)
    timer = loop.call_later(SHORT_S, leave)
    work = function if kind is None else partial(_timed, function, kind)
    try:
        return await anyio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=abandon_on_cancel)
    finally:
        timer.cancel()
        loop.call_soon(leave)  # when whoever waited for this job has asked for its next


class Once:
    """A job that is done once, by whoever first cannot do without it. Who is at it when it fails gets the error; the
    next tries again."""

    def __init__(self, function: Callable[[], object], *, kind: Hashable = None) -> None:
        self._function = function
        self._kind = kind
        self._is_done = False
        self._lock = anyio.Lock()

    async def done(self) -> None:
        """Return once it is done."""
        if not self._is_done:
            async with self._lock:
                if not self._is_done:
                    await in_thread(self._function, kind=self._kind)
                    self._is_done = True


def _timed(function: Callable[[], T], kind: Hashable) -> T:
    """Do the job, and remember how long jobs of its kind take."""
    begun = time.perf_counter()
    try:
        return function()
    finally:
        took_s = time.perf_counter() - begun
        if len(_usual_s) >= MOST_KINDS:
            _usual_s.clear()
        _usual_s[kind] = took_s + USUAL_SHARE * (_usual_s.get(kind, took_s) - took_s)


async def run_to_its_end(function: Callable[[], T], kind: Hashable = None) -> T:
    """As `in_thread`, but a cancelled caller gets the outcome too, and sees its cancellation at its next await: what
    was made can be closed."""
    return await _shielded(in_thread(function, kind=kind))


async def wait_for_disk(function: Callable[[], T]) -> T:
    """As `run_to_its_end`, for a job that mostly waits until the disk has something. It keeps nobody from the lane,
    and what several wait for the file system writes together."""
    return await _shielded(anyio.to_thread.run_sync(function, limiter=_own_lane().disk_waiters))


async def _shielded(work: Awaitable[T]) -> T:
    made: list[T] = []
    with anyio.CancelScope(shield=True):
        made.append(await work)
    return made[0]
