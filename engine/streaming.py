"""A run's events as an async iterator. Whoever reads slowly slows nothing: tool output that waits too long is dropped
and counted, every other event is kept."""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Literal

import anyio

from fbench.engine.events import Event, OutputDropped, RunStarted, ToolOutput, Watcher
from fbench.engine.logs import get_logger
from fbench.engine.own_task import in_own_task

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from anyio.abc import TaskStatus

    from fbench.engine.results import RunResult

MOST_OUTPUT_BYTES = 1024 * 1024
"""Of memory for tool output that waits to be read; events of other kinds are few, a handful a turn."""
EVENT_BYTES = 128
"""What a piece of output takes beside its bytes: a command may write them one at a time."""

OnLeave = Literal["cancel", "detach"]

log = get_logger(__name__)


class Streaming:
    """A run to be streamed, made by `Engine.stream`: `async with` begins it and gives its `RunStream`, `async for`
    reads its events. A loop that is left early closes soon after, when Python collects it; `async with` closes there.
    """

    def __init__(self, open_stream: "Callable[[], AbstractAsyncContextManager[RunStream]]") -> None:
        self._open_stream = open_stream
        self._entered: AbstractAsyncContextManager[RunStream] | None = None

    async def __aenter__(self) -> "RunStream":
        self._entered = self._open_stream()
        return await self._entered.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> bool | None:
        assert self._entered is not None  # by __aenter__
        return await self._entered.__aexit__(kind, error, trace)

    async def __aiter__(self) -> AsyncIterator[Event]:
        async with self._open_stream() as run:
            async for event in run:
                yield event


class RunStream:
    """One run that goes on; iterating gives its events and ends with the run. Made by `Engine.stream`. For one reader.

    Attributes:
        result: None until the run has ended.
    """

    def __init__(self) -> None:
        self.result: RunResult | None = None
        self._waiting: deque[Event] = deque()
        self._output_bytes = 0
        self._gaps: dict[str, int] = {}
        """Bytes dropped so far, for each call whose OutputDropped waits to be read."""
        self._news = anyio.Event()
        self._ended = anyio.Event()
        self._scope = anyio.CancelScope()
        self._failure: Exception | None = None
        self._is_started = False
        self._on_started: Callable[[], None] = lambda: None

    def __aiter__(self) -> "RunStream":
        return self

    async def __anext__(self) -> Event:
        """The next event, in the order they happened."""
        while not self._waiting:
            if self._ended.is_set():
                raise StopAsyncIteration
            self._news = anyio.Event()
            await self._news.wait()
        event = self._waiting.popleft()
        if isinstance(event, ToolOutput):
            self._output_bytes -= len(event.data) + EVENT_BYTES
        elif isinstance(event, OutputDropped):
            return OutputDropped(event.tool_call_id, self._gaps.pop(event.tool_call_id))
        return event

    @property
    def failed_before_it_began(self) -> bool:
        """Whether the run could not be made as asked; `wait` raises why."""
        return self._failure is not None and not self._is_started

    async def wait(self) -> "RunResult":
        """The result, once the run has ended; events need not be read for that.

        Raises what the run could not turn into a result, such as RuntimeError where the engine was closed.
        """
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure
        if self.result is None:
            msg = "the run was cancelled before it had a result"
            raise RuntimeError(msg)
        return self.result

    def cancel(self) -> None:
        """Cancel the run: it cleans up and leaves a `cancelled` result in its folder."""
        self._scope.cancel()

    async def drive(self, run: Callable[[Watcher], Awaitable["RunResult"]], *, task_status: "TaskStatus[None]") -> None:
        """Make the run; `task_status` is told once it has begun, or could not."""
        self._on_started = task_status.started
        try:
            with self._scope:
                self.result = await run(self._put)
        except Exception as error:  # noqa: BLE001 - carried to whoever waits; the engine's group serves other runs
            self._failure = error
            if self._is_started:
                log.warning("stream.run_failed", error=f"{type(error).__name__}: {error}")
        finally:
            self._ended.set()
            self._news.set()
        if not self._is_started:
            task_status.started()

    async def leave(self, on_leave: OnLeave) -> None:
        """What becomes of the run when its reader goes: it is cancelled and awaited, or goes on unread."""
        if on_leave == "detach":
            return
        self.cancel()
        await in_own_task(self._outlast)

    async def _outlast(self) -> None:
        with anyio.CancelScope(shield=True):  # cleaning up is bounded by the run itself
            await self._ended.wait()

    def _put(self, event: Event) -> None:
        if isinstance(event, ToolOutput):
            size = len(event.data) + EVENT_BYTES
            if event.tool_call_id in self._gaps:
                # A smaller piece might fit: it would make two gaps of one.
                self._gaps[event.tool_call_id] += len(event.data)
                return
            if self._output_bytes + size > MOST_OUTPUT_BYTES:
                self._gaps[event.tool_call_id] = len(event.data)
                event = OutputDropped(event.tool_call_id, 0)  # counted when it is read
            else:
                self._output_bytes += size
        elif isinstance(event, RunStarted) and not self._is_started:
            self._is_started = True
            self._on_started()
        self._waiting.append(event)
        self._news.set()
