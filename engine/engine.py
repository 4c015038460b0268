"""The public engine: owns what runs share, makes them one at a time or many at once on the caller's loop."""

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.to_thread

from fbench.engine.events import Watcher, ignore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from anyio.abc import TaskGroup

    from fbench.engine.models.limits import EndpointLimiter
    from fbench.engine.models.names import ModelSpec
    from fbench.engine.models.replay import Recording
    from fbench.engine.options import RunOptions
    from fbench.engine.own_parts import OwnModel
    from fbench.engine.purse import Purse
    from fbench.engine.records.index import Index
    from fbench.engine.rejudge import RejudgeOptions
    from fbench.engine.results import RunResult
    from fbench.engine.seams import Check, OpenSite, Tool
    from fbench.engine.session import RunAgent
    from fbench.engine.streaming import OnLeave, RunStream, Streaming
    from fbench.engine.suite_options import SuiteOptions

MOST_LIMITERS = 1000
"""Kept for endpoints that nobody asks any more: a service may have a key for each of its users."""


class Engine:
    """Runs tasks. Use as an async context manager, from one task; `run` may be called from many tasks at once.

    Nothing is printed, no signal handler is installed and no loop is started. Two engines in one loop share nothing
    but the connections to a server that both ask with the same key.

    Args:
        environ: where keys and endpoints are looked up that the options do not give; default is the process's
            environment, read when a run starts.
        models: models of your own, by `provider/name`, or by a provider whose every name they answer to: objects that
            all runs share, or factories that open one for each run, called with its `ModelSpec`.
        tools: tools that a task's `tools.allow` may name, each called by several runs at once.
        sandboxes: what opens the sandboxes of a run, by the name that `RunOptions.sandbox` asks for.
        agents: loops by the name that a task's `tools.style` gives.
        checks: types of check by the name that a task's `type` gives: objects, or classes to make one of.

    Each satisfies its Protocol in `fbench.engine.seams` (agents: `fbench.engine.session.RunAgent`). They are known to
    this engine's runs alone, win over what installed packages bring and take the place of nothing that is fbench's own.

    Raises:
        TypeError, ValueError: such a part lacks something, or has a name that is taken.
    """

    def __init__(
        self,
        *,
        environ: Mapping[str, str] | None = None,
        models: "Mapping[str, OwnModel] | None" = None,
        tools: "Iterable[Tool]" = (),
        sandboxes: "Mapping[str, OpenSite] | None" = None,
        agents: "Mapping[str, RunAgent] | None" = None,
        checks: "Mapping[str, Check | type[Check]] | None" = None,
    ) -> None:
        from fbench.engine.own_parts import gather_own_parts, use_own_parts  # noqa: PLC0415 - late, see run

        own = gather_own_parts(
            models=models or {}, tools=tools, sandboxes=sandboxes or {}, agents=agents or {}, checks=checks or {}
        )
        self._own_parts: Callable[[], AbstractContextManager[None]] = partial(use_own_parts, own)
        self._environ = environ
        self._indexes: dict[Path, _KeptIndex] = {}
        self._recordings: dict[Path, Recording] = {}
        self._limiters: dict[tuple[str, str | None, str | None], EndpointLimiter] = {}
        self._opening = anyio.Lock()
        self._is_closing = False
        self._runs_ended = anyio.Event()
        self._stack = AsyncExitStack()
        self._group: TaskGroup | None = None
        self._streams: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._group = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(self._runs_ended.set)
        self._streams = await self._stack.enter_async_context(anyio.create_task_group())
        return self

    async def __aexit__(self, error: type[BaseException] | None, *_exc: object) -> None:
        # The groups hold indexes and streamed runs: an error of the caller's body is not shown to them, or it would
        # come out wrapped. Runs that nobody reads any more are waited for, but not after an error.
        self._is_closing = True
        if error is not None and self._streams is not None:
            self._streams.cancel_scope.cancel()
        await self._stack.aclose()

    async def run(self, options: "RunOptions", watch: Watcher = ignore, *, purse: "Purse | None" = None) -> "RunResult":
        """One run. `watch` is called with each event as it happens; it must not block. `purse` holds dollars that
        several runs spend from together; a run it no longer pays for ends as `budget_exceeded:suite_cost`.

        What goes wrong in the run is in the result (`status`, `error`). Cancelling the caller cancels the run: it
        cleans up, writes a `cancelled` result, and the caller sees its own cancellation.

        Raises:
            UsageError, TaskError, PricingError: the run cannot be made as asked; nothing was written.
            RuntimeError: the engine is not open.
        """
        group = self._open_group()
        from fbench.engine.own_task import in_own_task  # noqa: PLC0415 - late: importing the engine stays cheap

        return await in_own_task(partial(self._run, options, watch, purse, group))

    async def _run(
        self, options: "RunOptions", watch: Watcher, purse: "Purse | None", group: "TaskGroup"
    ) -> "RunResult":
        from fbench.engine.models.traffic import open_traffic  # noqa: PLC0415 - late, see run
        from fbench.engine.plan import make_plan, require_price  # noqa: PLC0415
        from fbench.engine.record import RunRecord  # noqa: PLC0415
        from fbench.engine.run import ALONE, Shared, run_task  # noqa: PLC0415
        from fbench.engine.threads import run_to_its_end, younger_than_all  # noqa: PLC0415

        with self._own_parts(), younger_than_all():
            plan = await make_plan(options, os.environ if self._environ is None else self._environ)
            if purse is not None:
                require_price(plan, "the suite's cap on dollars")
            recording = None if options.replay is None else await self._recording(options.replay)
            # A replay asks no server and spends nothing.
            shared = Shared(self._limiter, purse) if recording is None else ALONE
            async with open_traffic(plan, recording) as traffic:
                index = await self._index(options.runs_dir, group)
                # From here on nothing is awaited outside of what writes a result, however it ends.
                with await run_to_its_end(lambda: RunRecord(plan, watch), kind="record") as record:
                    return await run_task(plan, traffic, record, index, shared)

    def stream(
        self, options: "RunOptions", *, purse: "Purse | None" = None, on_leave: "OnLeave" = "cancel"
    ) -> "Streaming":
        """One run as a stream of its events: `async with engine.stream(options) as run: async for event in run: ...`.
        It has begun when the context is entered. `async for event in engine.stream(options)` is the same in short.

        Leaving before its end cancels the run and waits until it has cleaned up; with `on_leave="detach"` it goes on
        unread, and closing the engine waits for it. A slow reader slows nothing: see `RunStream`.

        Raises:
            As `run`, on entering.
        """
        from fbench.engine.streaming import Streaming  # noqa: PLC0415 - late, see run

        return Streaming(partial(self._open_stream, options, purse, on_leave))

    @asynccontextmanager
    async def _open_stream(
        self, options: "RunOptions", purse: "Purse | None", on_leave: "OnLeave"
    ) -> "AsyncIterator[RunStream]":
        from fbench.engine.streaming import RunStream  # noqa: PLC0415 - late, see run

        self._open_group()
        assert self._streams is not None  # opened with the group
        stream = RunStream()
        await self._streams.start(stream.drive, partial(self.run, options, purse=purse))
        if stream.failed_before_it_began:
            await stream.wait()  # raises
        try:
            yield stream
        finally:
            await stream.leave(on_leave)

    async def rejudge(
        self, options: "RejudgeOptions", watch: Watcher = ignore, *, purse: "Purse | None" = None
    ) -> "RunResult":
        """Judge a finished run again, by the task as it is now: a new verdict beside the old one, in the run's folder.
        What is not said here is as with `run`. Several may go on at once, of one run too.

        Raises:
            UsageError, TaskError, PricingError: it cannot be judged again as asked; nothing was written.
            RuntimeError: the engine is not open.
        """
        self._open_group()
        from fbench.engine.own_task import in_own_task  # noqa: PLC0415 - late, see run

        return await in_own_task(partial(self._rejudge, options, watch, purse))

    async def _rejudge(self, options: "RejudgeOptions", watch: Watcher, purse: "Purse | None") -> "RunResult":
        from fbench.engine.models.traffic import open_traffic  # noqa: PLC0415 - late, see run
        from fbench.engine.plan import require_price  # noqa: PLC0415
        from fbench.engine.rejudge import RejudgeRecord, plan_rejudging, rejudge_run  # noqa: PLC0415
        from fbench.engine.run import Shared  # noqa: PLC0415

        with self._own_parts():
            rejudge = await plan_rejudging(options, os.environ if self._environ is None else self._environ)
            if purse is not None:
                require_price(rejudge.plan, "the cap on dollars")
            async with open_traffic(rejudge.plan, None) as traffic:
                with RejudgeRecord(rejudge, watch) as record:
                    return await rejudge_run(rejudge, traffic, record, Shared(self._limiter, purse))

    async def run_suite(self, options: "SuiteOptions", watch: "Callable[[Any, Any], None] | None" = None) -> Any:  # noqa: ANN401 - suites know the engine, not the other way round
        """A whole suite on the caller's loop, its report written beside its runs; gives a
        `fbench.suites.outcomes.SuiteOutcome`. `watch` is called with the planned run and each event of it (a
        `SuiteWatcher` of `fbench.suites.fan_out`); it must not block. Cancelled, it leaves a suite run that
        `fbench suite resume` goes on with.

        Raises:
            UsageError: the suite cannot be run as asked; nothing was spent.
            RuntimeError: the engine is not open.
        """
        self._open_group()
        from fbench.engine.own_task import in_own_task  # noqa: PLC0415 - late, see run
        from fbench.engine.registry import load_part  # noqa: PLC0415

        environ = os.environ if self._environ is None else self._environ
        with self._own_parts():
            suite = partial(load_part("run_suite"), self, options, environ, *([] if watch is None else [watch]))
            return await in_own_task(suite)

    def _open_group(self) -> "TaskGroup":
        if self._group is None or self._is_closing:
            state = "not open" if self._group is None else "closed"
            msg = f"the engine is {state}: call run inside `async with Engine() as engine:`"
            raise RuntimeError(msg)
        return self._group

    def _limiter(self, model: "ModelSpec") -> "EndpointLimiter":
        """The limiter of a model's endpoint, one for each address and key; of several rates the smallest hold."""
        from fbench.engine.models.limits import EndpointLimiter, EndpointRates  # noqa: PLC0415 - late, see run

        endpoint = (model.full_name.partition("/")[0], model.base_url, model.api_key)
        if endpoint not in self._limiters and len(self._limiters) >= MOST_LIMITERS:
            self._limiters = {key: limiter for key, limiter in self._limiters.items() if limiter.is_in_use}
        limiter = self._limiters.setdefault(endpoint, EndpointLimiter())
        rates = EndpointRates(model.requests_per_minute, model.tokens_per_minute, model.max_concurrency)
        limiter.rates = limiter.rates.tightened(rates)
        return limiter

    async def _recording(self, path: Path) -> "Recording":
        """A recording to replay, read once: its answers are handed out to all runs of this engine."""
        from fbench.engine.models.replay import load_recording  # noqa: PLC0415 - late, see run

        path = Path(os.path.realpath(path))  # noqa: ASYNC240 - one look at a path, cheaper than a thread
        async with self._opening:
            if path not in self._recordings:
                self._recordings[path] = await anyio.to_thread.run_sync(load_recording, path)
            return self._recordings[path]

    async def _index(self, runs_dir: Path, group: "TaskGroup") -> "Index":
        """The index of a runs folder, opened once; its writer lives in the engine's own task group. A caller who is
        cancelled meanwhile leaves at once: others may wait for the same."""
        path = Path(os.path.realpath(runs_dir))  # noqa: ASYNC240 - one look at a path, cheaper than a thread
        kept = self._indexes.get(path)
        if kept is None:
            kept = self._indexes[path] = _KeptIndex()
            group.start_soon(self._keep_index, path, kept)
        await kept.is_settled.wait()
        if kept.index is None:
            assert kept.failure is not None
            raise kept.failure
        return kept.index

    async def _keep_index(self, runs_dir: Path, kept: "_KeptIndex") -> None:
        """Hold an index open until the engine closes, also while runs are being cancelled: they still record. One that
        cannot be opened is tried again by the next run."""
        from fbench.engine.records.index import open_index  # noqa: PLC0415

        with anyio.CancelScope(shield=True):
            try:
                async with open_index(runs_dir) as kept.index:
                    kept.is_settled.set()
                    await self._runs_ended.wait()
            except Exception as error:
                if kept.index is not None:
                    raise
                kept.failure = error
                del self._indexes[runs_dir]
                kept.is_settled.set()


class _KeptIndex:
    """An index that is being opened, is open, or could not be opened."""

    def __init__(self) -> None:
        self.index: Index | None = None
        self.failure: Exception | None = None
        self.is_settled = anyio.Event()
