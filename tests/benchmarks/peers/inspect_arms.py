# pyright: reportMissingImports=false
"""Inspect AI's side: run by its own interpreter as `python -m tests.benchmarks.peers.inspect_arms ARM JSON`.

Each arm takes the leanest way that Inspect offers: `generate` with its loop of tool calls for an agent, one scorer,
logs as they are by default, no display.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
from inspect_ai import Task, eval  # noqa: A004 - its name
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import ChatMessage, GenerateConfig, Model, ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import Score, Scorer, Target, accuracy, includes, scorer
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver, use_tools
from inspect_ai.tool import Tool, ToolChoice, ToolInfo, bash, tool
from inspect_ai.util import sandbox
from inspect_ai.util._sandbox.docker import prereqs

from tests.benchmarks.peers.folders import IMAGE
from tests.benchmarks.peers.measure import Meter, cost_of_a_turn, main, peak_mib, raise_open_files, require
from tests.benchmarks.peers.sleepers import Observer, new_tag

DONE = "I am done."
COMPOSE = f"""\
services:
  default:
    image: {IMAGE}
    x-local: true
    init: true
    command: tail -f /dev/null
    network_mode: none
    stop_grace_period: 1s
"""
"""As the compose file is that Inspect writes for an image: `x-local` keeps it from pulling."""


@tool
def view() -> Tool:
    """Reads a file in this process."""

    async def execute(path: str) -> str:
        """View a text file of the workspace with line numbers.

        Args:
            path: The file, relative to the workspace.
        """
        lines = (Path(os.environ["BENCH_WORKSPACE"]) / path).read_text(encoding="utf-8").splitlines()
        return "\n".join(f"{number:6}\t{line}" for number, line in enumerate(lines, 1))

    return execute


def playing(tool_name: str, arguments: dict[str, Any], turns: int, latency_s: float = 0.0) -> Model:
    """A model that asks for a tool `turns - 1` times, then says that it is done; its usage given, or it is counted."""

    async def answer(
        messages: list[ChatMessage], _tools: list[ToolInfo], _choice: ToolChoice, _config: GenerateConfig
    ) -> ModelOutput:
        if latency_s:
            await anyio.sleep(latency_s)
        if sum(message.role == "assistant" for message in messages) < turns - 1:
            output = ModelOutput.for_tool_call("mockllm", tool_name, arguments)
        else:
            output = ModelOutput.from_content("mockllm", DONE)
        output.usage = ModelUsage(input_tokens=100, output_tokens=20, total_tokens=120)
        return output

    return get_model("mockllm/model", custom_outputs=answer, memoize=False)


def evaluate(
    model: Model,
    solvers: list[Solver],
    samples: int,
    *,
    turns: int,
    at_once: int,
    log_dir: Path,
    score: Scorer | None = None,
    **more: Any,
) -> EvalLog:
    """Evaluate so many samples, and see that each did all its turns and passed."""
    dataset = [Sample(input="Do nothing.", target=DONE) for _ in range(samples)]
    task = Task(dataset=dataset, solver=solvers, scorer=score or includes(), sandbox=more.pop("sandbox", None))
    (log,) = eval(
        task,
        model=model,
        log_dir=str(log_dir),
        display="none",
        max_samples=at_once,
        max_connections=at_once,
        max_subprocesses=max(at_once, 2),
        **more,
    )
    require(log.status == "success", log.error)
    require(log.samples is not None and len(log.samples) == samples, "samples of the log")
    for sample in log.samples or []:
        roles = [message.role for message in sample.messages]
        counts = (roles.count("assistant"), roles.count("tool"))
        require(counts == (turns, turns - 1), (counts, sample.error, sample.limit))
        values = [score.value for score in (sample.scores or {}).values()]
        require(values == ["C"], (values, sample.error))
        wrong = [message.error for message in sample.messages if message.role == "tool" and message.error]
        require(not wrong, wrong)
    return log


class Workshop:
    """A folder for logs and the file to view, and what keeps Inspect from reading this user's own files."""

    def __enter__(self) -> Path:
        self._folder = tempfile.TemporaryDirectory(prefix="inspect-bench-")
        root = Path(self._folder.name)
        (root / "readme.txt").write_text("start\n", encoding="utf-8")
        os.environ |= {"BENCH_WORKSPACE": str(root), "HOME": str(root)}  # its bash tool runs a login shell
        return root

    def __exit__(self, *_exc: object) -> None:
        self._folder.cleanup()


def loop(tool: str, short: int, long: int, conversations: int) -> dict[str, float]:
    """A mock model and a tool: `view` in this process, or `bash` with `true` in the sandbox `local`."""
    with Workshop() as root:

        def converse(turns: int) -> None:
            if tool == "view":
                model, tools, where = playing("view", {"path": "readme.txt"}, turns), view(), None
            else:
                model, tools, where = playing("bash", {"command": "true"}, turns), bash(), "local"
            solvers = [use_tools(tools), generate(tool_calls="loop")]
            evaluate(model, solvers, conversations, turns=turns, at_once=1, log_dir=root / "logs", sandbox=where)

        return cost_of_a_turn(converse, short=short, long=long, conversations=conversations)


def http(url: str, turns: int, conversations: int) -> dict[str, Any]:
    """Samples against a server, all at once."""
    raise_open_files()
    with Workshop() as root:
        model = get_model("openai-api/bench/fake", base_url=url, api_key="none", memoize=False)
        solvers = [use_tools(view()), generate(tool_calls="loop")]
        meter = Meter()
        evaluate(model, solvers, conversations, turns=turns, at_once=conversations, log_dir=root / "logs")
        cost = meter.read()
    return {**cost._asdict(), "turns": turns * conversations, "peak_mib": peak_mib()}


def memory(runs: int, turns: int, latency_s: float) -> dict[str, Any]:
    """Many samples at once of a mock model that takes a while for each answer."""
    raise_open_files()
    acting = 0
    most_acting = 0

    @solver
    def counted() -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            nonlocal acting, most_acting
            acting += 1
            most_acting = max(acting, most_acting)
            try:
                return await generate(state, tool_calls="loop")
            finally:
                acting -= 1

        return solve

    with Workshop() as root:
        before_mib = peak_mib()
        model = playing("view", {"path": "readme.txt"}, turns, latency_s)
        meter = Meter()
        evaluate(model, [use_tools(view()), counted()], runs, turns=turns, at_once=runs, log_dir=root / "logs")
        cost = meter.read()
    return {**cost._asdict(), "peak_mib": peak_mib(), "before_mib": before_mib, "most_at_once": most_acting}


@scorer(metrics=[accuracy()])
def command_succeeds() -> Scorer:
    """The verdict of a command in the sample's own container: Inspect opens no second one."""

    async def score(_state: TaskState, _target: Target) -> Score:
        done = await sandbox().exec(["bash", "-c", "true"])
        return Score(value="C" if done.success else "I")

    return score


def docker(trials: int, calls: int, at_once: int) -> dict[str, Any]:
    """Samples in containers, each with so many commands."""
    with Workshop() as root:
        meter = Meter()
        evaluate(
            playing("bash", {"command": "true"}, calls + 1),
            [use_tools(bash()), generate(tool_calls="loop")],
            trials,
            turns=calls + 1,
            at_once=at_once,
            log_dir=root / "logs",
            score=command_succeeds(),
            sandbox=containers(root),
            max_sandboxes=at_once,
        )
        return meter.read()._asdict()


def kill(sandbox: str, limit_s: int, patience_s: float) -> dict[str, Any]:
    """A time limit, passed by a shell with a child in the background and one in a session of its own."""
    tag = new_tag()
    observer = Observer(tag, look_after_s=limit_s * 0.6, patience_s=patience_s)

    @solver
    def observed() -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            observer.begin()
            return await generate(state, tool_calls="loop")

        return solve

    command = f"sleep {tag} & setsid sleep {tag} & sleep {tag}"
    with Workshop() as root:
        task = Task(
            dataset=[Sample(input="Do nothing.", target=DONE)],
            solver=[use_tools(bash()), observed()],
            scorer=includes(),
            sandbox="local" if sandbox == "local" else containers(root),
            time_limit=limit_s,
        )
        model = playing("bash", {"command": command}, 2)
        (log,) = eval(task, model=model, log_dir=str(root / "logs"), display="none")
        ended = time.monotonic()
        require(log.status == "success" and bool(log.samples), log.error)
        limit = (log.samples or [])[0].limit
        require(limit is not None and limit.type == "time", limit)
        return {**observer.read(limit_s), "returned_late_s": ended - observer.begun - limit_s}


def containers(root: Path) -> tuple[str, str]:
    """Inspect's Docker sandbox with a compose file in the folder. It refuses engines before 24.0.6, and works with
    older ones: its check is left out in this process."""

    async def accept() -> None:
        pass

    prereqs.validate_docker_engine = accept
    path = root / "compose.yaml"
    path.write_text(COMPOSE, encoding="utf-8")
    return "docker", str(path)


if __name__ == "__main__":
    main({"loop": loop, "http": http, "memory": memory, "docker": docker, "kill": kill})
