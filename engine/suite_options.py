"""What a suite run was asked to be, from a program."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from fbench.engine.options import DEFAULT_RUNS_DIR, Lifted
from fbench.tasks.values import MAX_USD


class SuiteOptions(BaseModel):
    """One suite run; the names of `fbench suite run`. None means: as the suite says.

    `suite` is a file or a built-in suite's name. `run_options` are fields of RunOptions that hold for every run, such
    as `{"sandbox": "docker", "judge_model": "openai/gpt-4o"}`; what belongs to one run or to the suite is left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str | Path
    models: tuple[str, ...] = ()
    attempts: Annotated[int, Field(ge=1)] | None = None
    concurrency: Annotated[int, Field(ge=1)] | None = None
    max_suite_cost: Annotated[Decimal, Field(ge=0, le=MAX_USD, allow_inf_nan=False)] | Lifted | None = None
    retry_errors: Annotated[int, Field(ge=0)] = 0
    runs_dir: Path = DEFAULT_RUNS_DIR
    run_options: Mapping[str, Any] = Field(default_factory=dict)
