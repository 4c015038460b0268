"""What a run was asked to be, and how options, manifest and defaults become one plan.

The order is: an option given (on the command line or to `RunOptions`), its environment variable (the command line
reads those), the manifest, the manifest's default. `"none"` lifts a cap.
"""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from fbench.engine.budgets import BudgetLimits
from fbench.engine.errors import UsageError
from fbench.tasks.manifest import Agent, Budget, ModelSettings, TaskManifest
from fbench.tasks.values import MAX_USD

Lifted = Literal["none"]
SandboxName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
"""`auto`, `docker`, `bubblewrap`, `local`, or one that an installed package or the embedding program brings."""

DEFAULT_RUNS_DIR = Path("runs")
DEFAULT_MODEL_WAIT_S = 600.0
"""Patience with a server that refuses or fails, seconds for one call: long enough for a minute-long rate limit to
pass several times, short enough that an unattended suite ends."""

DEFAULT_EFFORT = "default"
"""Unsets the manifest's reasoning effort. `none` does not: it is an effort that servers know."""


class RunOptions(BaseModel):
    """One run; the command line's option names with underscores. None means: as the manifest says.

    `task` is a folder or a built-in task's id. `api_key` and `judge_api_key` are for embedding; without them keys are
    read from the environment when the run starts. `image_map` gives for an image that a task names the one to use in
    its place.
    `max_wall_time` and `max_model_wait` are seconds, `max_cost` dollars. `config` is a fbench.toml; without one none is
    read, for only the command line looks into the working folder. `record` is a file that model traffic is added to,
    `replay` one that it comes from, in place of a server.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str | Path
    model: Annotated[str, StringConstraints(strip_whitespace=True)]
    sandbox: SandboxName = "auto"
    runs_dir: Path = DEFAULT_RUNS_DIR
    base_url: str | None = None
    api_key: SecretStr | None = None
    config: Path | None = None
    judge_model: Annotated[str, StringConstraints(strip_whitespace=True)] | None = None
    judge_base_url: str | None = None
    judge_api_key: SecretStr | None = None
    no_judge_cache: bool = False
    max_tokens: Annotated[int, Field(ge=0)] | Lifted | None = None
    max_tool_calls: Annotated[int, Field(ge=0)] | Lifted | None = None
    max_wall_time: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Lifted | None = None
    max_cost: Annotated[Decimal, Field(ge=0, le=MAX_USD, allow_inf_nan=False)] | Lifted | None = None
    max_turns: Annotated[int, Field(gt=0)] | Lifted | None = None
    max_model_wait: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Lifted = DEFAULT_MODEL_WAIT_S
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Lifted | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | Lifted | None = None
    seed: int | Lifted | None = None
    reasoning_effort: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] | None = None
    max_output_tokens: Annotated[int, Field(gt=0)] | None = None
    prices: Path | None = None
    record: Path | None = None
    replay: Path | None = None
    image_map: Mapping[str, str] = Field(default_factory=dict)
    attempt: Annotated[int, Field(ge=1)] = 1
    suite_run_id: str | None = None


def parse_image_map(texts: Iterable[str]) -> dict[str, str]:
    """Pairs written as `NAME=OTHER`, several in one text separated by commas or white space; a later one wins.

    >>> parse_image_map(["postgres:16-alpine=fbench/postgres:1, python:3.12=registry.example/py@sha256:0f"])
    {'postgres:16-alpine': 'fbench/postgres:1', 'python:3.12': 'registry.example/py@sha256:0f'}

    Raises:
        UsageError: a pair is none.
    """
    pairs = {}
    for text in texts:
        for pair in re.split(r"[,\s]+", text):
            if not pair:
                continue
            name, _, other = pair.partition("=")
            if not name or not other or "=" in other:
                msg = f"{pair!r} is no pair of images: write NAME=OTHER, as in postgres:16-alpine=fbench/postgres:1"
                raise UsageError(msg)
            pairs[name] = other
    return pairs


def resolve_manifest(manifest: TaskManifest, options: RunOptions) -> TaskManifest:
    """The manifest with the options on top: what the run will do, and what the snapshot shows."""
    budget = _over(
        manifest.budget,
        Budget,
        {
            "tokens": options.max_tokens,
            "tool_calls": options.max_tool_calls,
            "wall_time_s": options.max_wall_time,
            "cost_usd": options.max_cost,
        },
    )
    agent = _over(manifest.agent, Agent, {"max_turns": options.max_turns})
    model = _over(
        manifest.model,
        ModelSettings,
        {
            "temperature": options.temperature,
            "top_p": options.top_p,
            "seed": options.seed,
            "max_output_tokens": options.max_output_tokens,
        },
    )
    if options.reasoning_effort is not None:
        effort = None if options.reasoning_effort == DEFAULT_EFFORT else options.reasoning_effort
        model = model.model_copy(update={"reasoning_effort": effort})
    return manifest.model_copy(update={"budget": budget, "agent": agent, "model": model})


def limits_of(manifest: TaskManifest) -> BudgetLimits:
    """The caps of a resolved manifest."""
    budget = manifest.budget
    return BudgetLimits(
        tokens=budget.tokens,
        tool_calls=budget.tool_calls,
        wall_time_s=budget.wall_time_s,
        cost_usd=budget.cost_usd,
        turns=manifest.agent.max_turns,
    )


def model_wait_s(options: RunOptions) -> float | None:
    """Seconds of patience for one call; None is patience without end."""
    return None if options.max_model_wait == "none" else options.max_model_wait


def _over(model: Any, kind: type[BaseModel], given: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any manifest model
    """`model` with each given value replacing its field; "none" becomes None."""
    changes = {key: None if value == "none" else value for key, value in given.items() if value is not None}
    return kind.model_validate({**dict(model), **changes}) if changes else model
