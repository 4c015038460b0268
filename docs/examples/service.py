"""Runs of fbench as a web service: start one, watch it by server-sent events, cancel it.

    pip install factory-bench starlette uvicorn
    uvicorn service:app --app-dir docs/examples --timeout-graceful-shutdown 5

    curl -X POST localhost:8000/runs -d '{"task": "hello_repo_fix", "model": "fake/oracle"}'
    curl -N localhost:8000/runs/RUN_ID/events
    curl -X DELETE localhost:8000/runs/RUN_ID

One engine serves all runs on the server's own loop, so that they share the limits of each model's endpoint. Without
that timeout a server that is to stop waits for whoever watches, and so for the runs, before it would cancel them.
"""

import base64
import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskStatus
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fbench.engine import Engine, Event, FbenchError, RunOptions, RunStarted, RunStream
from fbench.engine.events import ToolOutput
from fbench.tasks.errors import TaskError

MOST_OUTPUT_BYTES = 4 * 1024**2
"""Of a run's output that is kept for its readers; the transcript has what the model read of it."""


class Watched:
    """A run that is going on or has ended, and all that was said of it so far."""

    def __init__(self, run: RunStream) -> None:
        self.run = run
        self.told: list[str] = []
        self.is_over = False
        self.news = anyio.Event()
        self.output_bytes = 0

    def tell(self, event: Event) -> None:
        """Add an event for everybody who watches."""
        if isinstance(event, ToolOutput):
            self.output_bytes += len(event.data)
            if self.output_bytes > MOST_OUTPUT_BYTES:
                return
        facts = json.dumps(dataclasses.asdict(event), default=as_json)
        self.told.append(f"event: {type(event).__name__}\ndata: {facts}\n\n")
        self.wake()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        self.news.set()
        self.news = anyio.Event()

    async def read(self) -> AsyncIterator[str]:
        """Everything from the beginning, then each event as it happens. Any number of readers; each at its own pace."""
        position = 0
        while True:
            while position < len(self.told):
                yield self.told[position]
                position += 1
            if self.is_over:
                return
            await self.news.wait()


def as_json(value: object) -> object:
    """What JSON has no type for."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """The engine and the runs live as long as the server; its end cancels runs, and each cleans up."""
    app.state.runs = {}
    async with Engine() as engine, anyio.create_task_group() as group:
        app.state.engine, app.state.group = engine, group
        yield
        group.cancel_scope.cancel()


async def start(request: Request) -> Response:
    """Start a run. The body has the fields of RunOptions, which should not come from strangers: they name paths."""
    try:
        options = RunOptions.model_validate_json(await request.body())
        run_id = await request.app.state.group.start(carry_out, request.app, options)
    except (ValidationError, FbenchError, TaskError) as error:
        return JSONResponse({"error": str(error)}, status_code=422)
    return JSONResponse({"run_id": run_id, "events": f"/runs/{run_id}/events"}, status_code=202)


async def carry_out(app: Starlette, options: RunOptions, *, task_status: TaskStatus[str]) -> None:
    """One run from its start to its end, told to whoever watches."""
    async with app.state.engine.stream(options) as run:
        watched = Watched(run)
        try:
            async for event in run:
                watched.tell(event)
                if isinstance(event, RunStarted):
                    app.state.runs[event.run_id] = watched
                    task_status.started(event.run_id)
        finally:
            watched.is_over = True
            watched.wake()


async def events(request: Request) -> Response:
    """The run's events; a reader that goes away changes nothing for the run."""
    watched = request.app.state.runs.get(request.path_params["run_id"])
    if watched is None:
        return JSONResponse({"error": "there is no such run"}, status_code=404)
    return StreamingResponse(watched.read(), media_type="text/event-stream")


async def show(request: Request) -> Response:
    """The result, once there is one."""
    watched = request.app.state.runs.get(request.path_params["run_id"])
    if watched is None:
        return JSONResponse({"error": "there is no such run"}, status_code=404)
    result = watched.run.result
    return JSONResponse({"is_over": watched.is_over, "result": None if result is None else result.to_json()})


async def cancel(request: Request) -> Response:
    """Cancel the run; it cleans up by itself, and its last event is a result of status `cancelled`."""
    watched = request.app.state.runs.get(request.path_params["run_id"])
    if watched is None:
        return JSONResponse({"error": "there is no such run"}, status_code=404)
    watched.run.cancel()
    return Response(status_code=202)


app = Starlette(
    routes=[
        Route("/runs", start, methods=["POST"]),
        Route("/runs/{run_id}", show, methods=["GET"]),
        Route("/runs/{run_id}", cancel, methods=["DELETE"]),
        Route("/runs/{run_id}/events", events, methods=["GET"]),
    ],
    lifespan=lifespan,
)
