"""fbench's side: run by fbench's interpreter as `python -m tests.benchmarks.peers.fbench_arms ARM JSON`."""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import anyio

from fbench.engine import Engine, RunOptions, RunResult
from fbench.engine.events import Event, ModelAnswered, PhaseStarted
from fbench.sandboxes.docker_engine import open_container_host
from tests.benchmarks.peers.docker_floor import floor
from tests.benchmarks.peers.folders import SUBMIT, bash_call, write_script, write_task
from tests.benchmarks.peers.measure import Cost, Meter, cost_of_a_turn, main, peak_mib, raise_open_files, require
from tests.benchmarks.peers.sleepers import Observer, new_tag

VIEW = {"name": "text_editor", "arguments": {"command": "view", "path": "readme.txt"}}
TRUE = bash_call("true")
UNLIMITED: Mapping[str, Any] = {
    "max_turns": "none",
    "max_tool_calls": "none",
    "max_tokens": "none",
    "max_wall_time": "none",
}
FILE_CHECK = {"checks": [{"id": "there", "type": "file_present", "path": "readme.txt"}]}
"""The cheapest check there is: it starts nothing."""


class Workshop:
    """A folder with a task and scripts for it, gone when the context ends."""

    def __init__(self, **sections: Any) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fbench-bench-")
        self.root = Path(self._folder.name)
        self.task = write_task(self.root / "trivial", tools={"allow": ["bash", "text_editor"]}, **sections)

    def options(self, model: str, sandbox: Literal["local", "docker"], **more: Any) -> RunOptions:
        return RunOptions(
            task=self.task, model=model, sandbox=sandbox, runs_dir=self.root / "runs", **{**UNLIMITED, **more}
        )

    def script(self, call: Mapping[str, Any], turns: int) -> str:
        """`turns` calls of the model, the last of which submits."""
        return write_script(self.root, [*[call] * (turns - 1), SUBMIT])

    def endless(self, call: Mapping[str, Any], *, latency_s: float = 0.0) -> str:
        """One turn again and again, ended by the budget of turns: a script's length would count as the turns'."""
        return write_script(self.root, [call], latency_s=latency_s, loop=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._folder.cleanup()


def check_results(workshop: Workshop, results: Sequence[RunResult], runs: int, turns: int) -> None:
    """That every run of an endless script did all its turns, passed, and wrote down every call."""
    require(len(results) == runs, f"{len(results)} of {runs} runs")
    for result in results:
        facts = (result.kill_reason, result.passed, result.turns, result.tool_calls)
        require(facts == ("budget_exceeded:turns", True, turns, turns), (facts, result.error))
        folder = workshop.root / "runs" / result.run_id
        require(len((folder / "ledger.jsonl").read_bytes().splitlines()) == turns, f"{folder}: lines in the ledger")
        require(len((folder / "transcript.jsonl").read_bytes().splitlines()) > 4 * turns, f"{folder}: the transcript")


async def run_at_once(options: RunOptions, runs: int, at_once: int, watch: Callable[[Event], None]) -> list[RunResult]:
    results: list[RunResult] = []
    limiter = anyio.CapacityLimiter(at_once)

    async def run(engine: Engine) -> None:
        async with limiter:
            results.append(await engine.run(options, watch))

    async with Engine(environ={}) as engine, anyio.create_task_group() as group:
        for _ in range(runs):
            group.start_soon(run, engine)
    return results


def loop(tool: Literal["view", "bash"], short: int, long: int, conversations: int) -> dict[str, float]:
    """A fake model and a tool: `view` in this process, `bash` with `true` in the sandbox `local`."""
    call = VIEW if tool == "view" else TRUE
    with Workshop(grader=FILE_CHECK) as workshop:
        model = workshop.endless(call)

        def converse(turns: int) -> None:
            options = workshop.options(model, "local", max_turns=turns)
            results = anyio.run(run_at_once, options, conversations, 1, _ignore)
            check_results(workshop, results, conversations, turns)

        return cost_of_a_turn(converse, short=short, long=long, conversations=conversations)


def http(url: str, turns: int, conversations: int, *, is_warm: bool = False) -> dict[str, Any]:
    """Runs against a server, all at once; with `is_warm` in an engine that has had one before, so that what they need
    is imported. The agent's part of a run is from its first turn to its last answer."""
    raise_open_files()
    acting: list[float] = []
    meter = Meter()

    def new_watch() -> Callable[[Event], None]:
        begun: list[float] = []

        def watch(event: Event) -> None:
            if isinstance(event, PhaseStarted) and event.phase == "acting":
                begun.append(time.perf_counter())
            elif isinstance(event, ModelAnswered) and event.turn == turns:
                acting.append(time.perf_counter() - begun[0])

        return watch

    async def converse(options: RunOptions) -> list[RunResult]:
        nonlocal meter
        results: list[RunResult] = []

        async def run(engine: Engine) -> None:
            results.append(await engine.run(options, new_watch()))

        async with Engine(environ={}) as engine:
            if is_warm:
                await engine.run(options)
            meter = Meter()
            async with anyio.create_task_group() as group:
                for _ in range(conversations):
                    group.start_soon(run, engine)
        return results

    with Workshop(grader=FILE_CHECK) as workshop:
        options = workshop.options("openai/fake", "local", base_url=url, api_key="none")
        results = anyio.run(converse, options)
        cost = meter.read()
        for result in results:
            require((result.status, result.passed, result.turns) == ("completed", True, turns), result)
        require(len(acting) == conversations, acting)
    return {
        **cost._asdict(),
        "turns": turns * conversations,
        "peak_mib": peak_mib(),
        "acting_s": statistics.median(acting),
        "longest_acting_s": max(acting),
    }


def memory(runs: int, turns: int, latency_s: float) -> dict[str, Any]:
    """Many runs at once of a fake model that takes a while for each answer."""
    raise_open_files()
    acting = 0
    most_acting = 0

    def watch(event: Event) -> None:
        nonlocal acting, most_acting
        if isinstance(event, PhaseStarted):
            acting += {"acting": 1, "keeping": -1}.get(event.phase, 0)
            most_acting = max(acting, most_acting)

    with Workshop(grader=FILE_CHECK) as workshop:
        before_mib = peak_mib()
        options = workshop.options(workshop.endless(VIEW, latency_s=latency_s), "local", max_turns=turns)
        meter = Meter()
        results = anyio.run(run_at_once, options, runs, runs, watch)
        cost = meter.read()
        check_results(workshop, results, runs, turns)
    return {**cost._asdict(), "peak_mib": peak_mib(), "before_mib": before_mib, "most_at_once": most_acting}


def docker(trials: int, calls: int, at_once: int) -> dict[str, Any]:
    """Runs in containers, each with so many commands, judged by a command in a container of its own."""
    walls: list[float] = []

    async def work(options: RunOptions) -> Cost:
        limiter = anyio.CapacityLimiter(at_once)

        async def run(engine: Engine) -> None:
            async with limiter:
                meter = Meter()
                result = await engine.run(options)
                walls.append(meter.read().wall_s)
            facts = (result.status, result.passed, result.tool_calls)
            require(facts == ("completed", True, calls), (facts, result.error))

        async with Engine(environ={}) as engine:
            await run(engine)  # the one that warms the engine, sweeps, and loads what runs import
            walls.clear()
            meter = Meter()
            async with anyio.create_task_group() as group:
                for _ in range(trials):
                    group.start_soon(run, engine)
            return meter.read()

    with Workshop() as workshop:
        cost = anyio.run(work, workshop.options(workshop.script(TRUE, calls + 1), "docker"))
    return {**cost._asdict(), "trials_s": walls}


def docker_floor(trials: int, execs: Sequence[int]) -> dict[str, Any]:
    """The containers of a run, one after the other, with so many commands in each, by the bare API."""
    walls: list[float] = []

    async def work() -> Cost:
        async with open_container_host() as host:
            await floor(host, execs)
            meter = Meter()
            walls.extend([(await floor(host, execs)).wall_s for _ in range(trials)])
            return meter.read()

    return {**anyio.run(work)._asdict(), "trials_s": walls}


def kill(sandbox: Literal["local", "docker"], limit_s: float, patience_s: float) -> dict[str, Any]:
    """A budget of wall time, breached by a shell with a child in the background and one in a session of its own."""
    tag = new_tag()
    observer = Observer(tag, look_after_s=limit_s * 0.6, patience_s=patience_s)

    def watch(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase == "acting":
            observer.begin()

    with Workshop() as workshop:
        command = bash_call(f"sleep {tag} & setsid sleep {tag} & sleep {tag}")
        options = workshop.options(workshop.script(command, 2), sandbox, max_wall_time=limit_s)
        (result,) = anyio.run(run_at_once, options, 1, 1, watch)
    require((result.status, result.kill_reason) == ("killed", "budget_exceeded:wall_time"), result)
    return observer.read(limit_s)


def _ignore(_: Event) -> None:
    pass


if __name__ == "__main__":
    main(
        {
            "loop": loop,
            "http": http,
            "memory": memory,
            "docker": docker,
            "docker_floor": docker_floor,
            "kill": kill,
        }
    )
