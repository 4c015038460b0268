"""The public engine: owns what runs share, makes them one at a time or many at once on the caller's loop."""

import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import anyio
import anyio.to_thread

from fbench.engine.events import Watcher, ignore

if TYPE_CHECKING:
    from anyio.abc import TaskGroup, TaskStatus

    from fbench.engine.models.limits import EndpointLimiter
    from fbench.engine.models.names import ModelSpec
    from fbench.engine.models.replay import Recording
    from fbench.engine.options import RunOptions
    from fbench.engine.purse import Purse
    from fbench.engine.records.index import Index
    from fbench.engine.results import RunResult


class Engine:
    """Runs tasks. Use as an async context manager, from one task; `run` may be called from many tasks at once.

    Nothing is printed, no signal handler is installed and no loop is started. Two engines in one loop share nothing.

    Args:
        environ: where keys and endpoints are looked up that the options do not give; default is the process's
            environment, read when a run starts.
    """

    def __init__(self, *, environ: Mapping[str, str] | None = None) -> None:
        self._environ = environ
        self._indexes: dict[Path, Index] = {}
        self._recordings: dict[Path, Recording] = {}
        self._limiters: dict[tuple[str, str | None, str | None], EndpointLimiter] = {}
        self._opening = anyio.Lock()
        self._closing = anyio.Event()
        self._stack = AsyncExitStack()
        self._group: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._group = await self._stack.enter_async_context(anyio.create_task_group())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        # The group only holds indexes: an error of the caller's body is not shown to it, or it would come out wrapped.
        self._closing.set()
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
        from fbench.engine.models.traffic import open_traffic  # noqa: PLC0415 - late: importing the engine stays cheap
        from fbench.engine.plan import make_plan, require_price  # noqa: PLC0415
        from fbench.engine.record import RunRecord  # noqa: PLC0415
        from fbench.engine.run import Shared, run_task  # noqa: PLC0415
        from fbench.engine.threads import run_to_its_end  # noqa: PLC0415

        plan = await make_plan(options, os.environ if self._environ is None else self._environ)
        if purse is not None:
            require_price(plan, "the suite's cap on dollars")
        recording = None if options.replay is None else await self._recording(options.replay)
        async with open_traffic(plan, recording) as model_of_run:
            opened = await run_to_its_end(lambda: RunRecord(plan, watch))
            with opened as record, model_of_run(record) as model:
                shared = Shared()
                if recording is None:  # a replay asks no server and spends nothing
                    shared = Shared(None if model.is_free else self._limiter(plan.model), purse)
                return await run_task(plan, model, record, await self._index(options.runs_dir, group), shared)

    def _open_group(self) -> "TaskGroup":
        if self._group is None or self._closing.is_set():
            state = "not open" if self._group is None else "closed"
            msg = f"the engine is {state}: call run inside `async with Engine() as engine:`"
            raise RuntimeError(msg)
        return self._group

    def _limiter(self, model: "ModelSpec") -> "EndpointLimiter":
        """The limiter of a model's endpoint, one for each address and key; of several rates the smallest hold."""
        from fbench.engine.models.limits import EndpointLimiter, EndpointRates  # noqa: PLC0415 - late, see run

        endpoint = (model.full_name.partition("/")[0], model.base_url, model.api_key)
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
        """The index of a runs folder, opened once; its writer lives in the engine's own task group."""
        path = Path(os.path.realpath(runs_dir))  # noqa: ASYNC240 - one look at a path, cheaper than a thread
        async with self._opening:
            if path not in self._indexes:
                self._indexes[path] = await group.start(self._keep_index, path)
            return self._indexes[path]

    async def _keep_index(self, runs_dir: Path, *, task_status: "TaskStatus[Index]") -> None:
        """Hold an index open until the engine closes, also while runs are being cancelled: they still record."""
        from fbench.engine.records.index import open_index  # noqa: PLC0415

        with anyio.CancelScope(shield=True):
            async with open_index(runs_dir) as index:
                task_status.started(index)
                await self._closing.wait()
