"""Models, tools, sandboxes, agents and checks that a program hands to its engine as objects."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import anyio
import pytest
import yaml
from pydantic import BaseModel, Field

from fbench.engine import Engine, RejudgeOptions, RunOptions, SuiteOptions
from fbench.engine.errors import UnknownNameError
from fbench.engine.own_parts import NO_PARTS, own_parts
from fbench.engine.records.reading import find_run
from fbench.engine.seams import (
    CheckContext,
    CheckOutcome,
    Message,
    ModelReply,
    ModelRequest,
    OpenSandbox,
    SiteSpec,
    TokenEstimate,
    ToolCall,
    ToolContext,
    ToolOutcome,
    ToolSchema,
    Usage,
)
from fbench.sandboxes.local import open_site as open_local_site
from fbench.tasks.checks import OutsideCheck
from fbench.tasks.errors import TaskError

if TYPE_CHECKING:
    from fbench.engine.models.names import ModelSpec
    from fbench.engine.results import Tier
    from fbench.engine.session import Session
    from tests.engine.conftest import MakeTask


@dataclass
class Shouter:
    """Calls the tool `shout` once, then submits; what it is asked is kept."""

    name: str = "mine/shouter"
    is_free: bool = True
    asked: list[ModelRequest] = field(default_factory=list)

    def estimate(self, request: ModelRequest) -> TokenEstimate:
        return TokenEstimate(input=len(request.messages))

    async def complete(self, request: ModelRequest) -> ModelReply:
        self.asked.append(request)
        has_worked = any(message.role == "tool" for message in request.messages)
        call = ToolCall("a", "submit", "{}") if has_worked else ToolCall("a", "shout", '{"text": "done"}')
        return ModelReply("", (call,), usage=Usage(input=10, output=5))


class ShoutArguments(BaseModel):
    text: Annotated[str, Field(description="What to shout.")]


class Shout:
    """Writes a text to done.txt in capitals."""

    name: ClassVar[str] = "shout"
    description: ClassVar[str] = "Shout a text into done.txt."
    arguments: ClassVar[type[BaseModel]] = ShoutArguments

    async def run(self, arguments: ShoutArguments, context: ToolContext) -> ToolOutcome:
        context.workspace.write_bytes("done.txt", arguments.text.upper().encode())
        return ToolOutcome(f"shouted {arguments.text}")


class LoudArguments(OutsideCheck):
    path: str


class Loud:
    tier: ClassVar["Tier"] = "deterministic"
    arguments: ClassVar[type[OutsideCheck]] = LoudArguments

    async def evaluate(self, check: LoudArguments, context: CheckContext) -> CheckOutcome:
        text = context.workspace.read_bytes(check.path, 100).decode()
        return CheckOutcome("passed" if text.isupper() else "failed", float(text.isupper()), f"it says {text}")


@dataclass
class Site:
    """The local sandbox, its sites counted."""

    opened: int = 0
    closed: int = 0

    @asynccontextmanager
    async def open_site(self, spec: SiteSpec) -> AsyncIterator[OpenSandbox]:
        self.opened += 1
        async with open_local_site(spec) as open_sandbox:
            yield open_sandbox
        self.closed += 1


@pytest.fixture
def task(make_task: "MakeTask") -> Path:
    return make_task(
        tools={"style": "native", "allow": ["shout"]},
        grader={"checks": [{"id": "loud", "type": "loud", "path": "done.txt"}]},
    )


@pytest.fixture
def options(task: Path, tmp_path: Path) -> RunOptions:
    return RunOptions(task=task, model="mine/shouter", sandbox="place", runs_dir=tmp_path / "runs")


def engine_of(model: Any, site: Site | None = None) -> Engine:
    return Engine(
        environ={},
        models={"mine": model},
        tools=[Shout()],
        sandboxes={"place": (site or Site()).open_site},
        checks={"loud": Loud},
    )


async def test_a_run_is_made_of_parts_handed_over_as_objects(options: RunOptions) -> None:
    model, site = Shouter(), Site()
    async with engine_of(model, site) as engine:
        result = await engine.run(options)
    assert (result.status, result.score, result.sandbox, result.tool_calls) == ("completed", 1.0, "place", 1), result
    assert [check.type for check in result.checks] == ["loud"]
    assert [tool.name for tool in model.asked[0].tools] == ["shout", "submit"]
    assert (result.cost_usd, result.cost_status, result.tokens.total) == (0, "exact", 30)
    assert (site.opened, site.closed) == (1, 1)
    assert own_parts() == NO_PARTS


async def test_a_factory_opens_one_model_for_each_run_and_gets_its_spec(options: RunOptions) -> None:
    specs: list[ModelSpec] = []
    closed: list[str] = []

    @asynccontextmanager
    async def open_shouter(spec: "ModelSpec") -> AsyncIterator[Shouter]:
        specs.append(spec)
        yield Shouter(spec.full_name)
        closed.append(spec.full_name)

    async with engine_of(open_shouter) as engine, anyio.create_task_group() as group:
        for name in ("mine/a", "mine/b"):
            group.start_soon(engine.run, options.model_copy(update={"model": name}))
    assert sorted(spec.full_name for spec in specs) == sorted(closed) == ["mine/a", "mine/b"]
    assert [spec.task is not None for spec in specs] == [True, True]


async def test_two_engines_of_one_loop_do_not_see_each_others_parts(options: RunOptions) -> None:
    async with engine_of(Shouter()) as mine, Engine(environ={}) as other, anyio.create_task_group() as group:
        group.start_soon(mine.run, options)
        with pytest.raises(UnknownNameError, match="unknown provider 'mine'"):
            await other.run(options)
        with pytest.raises(TaskError, match="loud"):
            await other.run(options.model_copy(update={"model": "fake/nop"}))


async def test_names_that_nothing_answers_to_are_told_with_the_own_ones(options: RunOptions) -> None:
    async with engine_of(Shouter()) as engine:
        for change, text in [({"model": "mime/x"}, "did you mean mine/x"), ({"sandbox": "plaice"}, "'place'")]:
            with pytest.raises(UnknownNameError, match=text):
                await engine.run(options.model_copy(update=change))


async def test_an_own_model_that_is_not_free_costs_what_its_price_says(options: RunOptions, tmp_path: Path) -> None:
    async with engine_of(Shouter(is_free=False)) as engine:
        unpriced = await engine.run(options)
        prices = tmp_path / "prices.yaml"
        prices.write_text(yaml.safe_dump({"models": {"mine/shouter": {"input": 1, "output": 2}}}))
        priced = await engine.run(options.model_copy(update={"prices": prices}))
    assert (unpriced.cost_usd, unpriced.cost_status) == (None, "unknown")
    assert priced.cost_usd == pytest.approx((20 * 1 + 10 * 2) / 1e6)


async def test_an_own_model_stands_before_a_provider_of_the_configuration(options: RunOptions, tmp_path: Path) -> None:
    config = tmp_path / "fbench.toml"
    config.write_text('[providers.mine]\nbase_url = "http://127.0.0.1:9/v1"\napi_key_env = "NOT_SET"\n')
    async with engine_of(Shouter()) as engine:
        result = await engine.run(options.model_copy(update={"config": config}))
    assert result.score == 1


async def test_an_own_model_is_recorded_and_played_back(options: RunOptions, tmp_path: Path) -> None:
    model, recording = Shouter(), tmp_path / "traffic.jsonl"
    async with engine_of(model) as engine:
        await engine.run(options.model_copy(update={"record": recording}))
        asked = len(model.asked)
        result = await engine.run(options.model_copy(update={"replay": recording}))
    assert (result.score, len(model.asked)) == (1, asked)


async def test_a_stream_a_suite_and_a_later_verdict_find_the_parts_too(options: RunOptions, tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(yaml.safe_dump({"id": "own", "tasks": [str(options.task)]}))
    async with engine_of(Shouter()) as engine:
        async with engine.stream(options) as run:
            streamed = await run.wait()
        folder = find_run(options.runs_dir, streamed.run_id)
        again = await engine.rejudge(RejudgeOptions(run=folder, runs_dir=options.runs_dir))
        outcome = await engine.run_suite(
            SuiteOptions(
                suite=suite,
                models=("mine/shouter",),
                attempts=2,
                runs_dir=options.runs_dir,
                run_options={"sandbox": "place"},
            )
        )
    assert (streamed.score, again.score, again.sandbox) == (1, 1, "place")
    assert [(result.status, result.score) for result in outcome.results.values()] == [("completed", 1.0)] * 2


async def test_an_own_model_judges_a_rubric(make_task: "MakeTask", tmp_path: Path) -> None:
    judged: list[tuple[Message, ...]] = []

    class Judge(Shouter):
        async def complete(self, request: ModelRequest) -> ModelReply:
            judged.append(tuple(request.messages))
            (tool,) = request.tools
            return ModelReply("", (ToolCall("v", tool.name, verdict_for(tool)),), usage=Usage(1, output=1))

    rubric = {"criteria": [{"id": "clear", "description": "It is clear."}]}
    task = make_task(
        files={"grader/rubric.yaml": yaml.safe_dump(rubric)},
        grader={"checks": [{"id": "rubric", "type": "llm_rubric", "rubric": "grader/rubric.yaml"}]},
    )
    options = RunOptions(
        task=task, model="fake/nop", judge_model="judge/of_mine", sandbox="local", runs_dir=tmp_path / "runs"
    )
    async with Engine(environ={}, models={"judge/of_mine": Judge("judge/of_mine")}) as engine:
        result = await engine.run(options)
    assert (result.status, result.score, len(judged)) == ("completed", 1.0, 1), result
    assert result.judge_cost_usd == 0


def verdict_for(tool: ToolSchema) -> str:
    """A verdict that gives each criterion all of it, as the tool's schema asks."""
    import json

    def fill(schema: Any) -> Any:
        match schema:
            case {"enum": values}:
                return values[-1]
            case {"type": "object", "properties": properties}:
                return {name: fill(value) for name, value in properties.items()}
            case {"type": "array", "items": items}:
                return [fill(items)]
            case {"type": "string"}:
                return "because"
            case {"maximum": most}:
                return most
        raise AssertionError(schema)

    return json.dumps(fill(tool.parameters))


async def test_an_own_agent_runs_by_the_style_of_the_task(make_task: "MakeTask", tmp_path: Path) -> None:
    async def write_once(session: "Session") -> str:
        session.say(Message("user", "go"))
        await session.ask(session.schemas)
        return "answered"

    task = make_task(tools={"style": "once", "allow": ["bash"]})
    model = Shouter()
    async with Engine(environ={}, models={"mine/shouter": model}, agents={"once": write_once}) as engine:
        result = await engine.run(RunOptions(task=task, model="mine/shouter", sandbox="local", runs_dir=tmp_path))
    assert (result.status, result.end_reason, len(model.asked)) == ("completed", "answered", 1)


async def test_an_own_agent_that_raises_is_not_called_a_fault_of_fbench(make_task: "MakeTask", tmp_path: Path) -> None:
    async def boom(session: "Session") -> str:
        raise ValueError(session.schemas[0].name)

    task = make_task(tools={"style": "boom", "allow": ["bash"]})
    async with Engine(environ={}, agents={"boom": boom}) as engine:
        result = await engine.run(RunOptions(task=task, model="fake/nop", sandbox="local", runs_dir=tmp_path))
    assert result.status == "error"
    assert result.error is not None
    assert result.error.kind == "internal"
    assert f"ValueError: bash. It was raised in {__name__} line" in result.error.message


class Unfinished:
    name = "unfinished"


@pytest.mark.parametrize(
    ("parts", "error", "text"),
    [
        (lambda: {"tools": [Unfinished()]}, TypeError, "'unfinished' lacks description, arguments, run"),
        (lambda: {"tools": [Shout(), Shout()]}, ValueError, "'shout' is given twice"),
        (lambda: {"models": {"mine": Unfinished()}}, TypeError, "'mine' lacks is_free, estimate, complete"),
        (lambda: {"models": {"openai": Shouter()}}, ValueError, "models 'openai'"),
        (lambda: {"models": {"fake/mine": Shouter()}}, ValueError, "models 'fake/mine'"),
        (lambda: {"sandboxes": {"docker": Site().open_site}}, ValueError, "sandboxes 'docker'"),
        (lambda: {"sandboxes": {"place": Site()}}, TypeError, "'place' cannot be called"),
        (lambda: {"checks": {"metric_check": Loud}}, ValueError, "checks 'metric_check'"),
        (lambda: {"checks": {"loud": Unfinished}}, TypeError, "'loud' lacks tier, arguments, evaluate"),
        (lambda: {"agents": {"native": print}}, ValueError, "agents 'native'"),
    ],
)
def test_parts_that_cannot_be_used_are_refused_at_once(
    parts: Callable[[], dict[str, Any]], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Engine(**parts())


async def test_compose_is_no_sandbox_to_ask_for(options: RunOptions) -> None:
    async with engine_of(Shouter()) as engine:
        with pytest.raises(Exception, match="docker becomes it"):
            await engine.run(options.model_copy(update={"sandbox": "compose"}))
