"""What programs may rely on: names leave or change their meaning only with a line in the changelog."""

import inspect
import typing
from pathlib import Path

import fbench.engine
from fbench.engine import Engine, RunOptions, RunResult

NAMES = {
    "BudgetBreached", "CheckFinished", "CheckResult", "Engine", "Event", "FbenchError", "ModelAnswered", "ModelAwaited",
    "ModelRetried", "OutputDropped", "PhaseStarted", "Purse", "RejudgeOptions", "RunError", "RunFinished", "RunOptions",
    "RunResult", "RunStarted", "RunStream", "SuiteOptions", "ToolFinished", "ToolOutput", "ToolStarted", "TurnStarted",
    "UsageError", "Verdict", "Warned",
}  # fmt: skip
PARTS = ["environ", "models", "tools", "sandboxes", "agents", "checks"]
METHODS = {
    "run": ["options", "watch", "purse"],
    "stream": ["options", "purse", "on_leave"],
    "rejudge": ["options", "watch", "purse"],
    "run_suite": ["options", "watch"],
}
OPTIONS = {
    "task", "model", "sandbox", "runs_dir", "base_url", "api_key", "config", "judge_model", "judge_base_url",
    "judge_api_key", "no_judge_cache", "max_tokens", "max_tool_calls", "max_wall_time", "max_cost", "max_turns",
    "max_model_wait", "temperature", "top_p", "seed", "reasoning_effort", "max_output_tokens", "prices", "record",
    "replay", "image_map", "attempt", "suite_run_id",
}  # fmt: skip


def test_each_public_name_is_there_and_no_other() -> None:
    assert set(fbench.engine.__all__) == NAMES
    assert [name for name in sorted(NAMES) if getattr(fbench.engine, name) is None] == []


def test_every_event_is_public() -> None:
    from fbench.engine.events import Event

    assert {event.__name__ for event in typing.get_args(Event)} <= NAMES


def test_methods_of_the_engine_take_what_they_took() -> None:
    public = {name: method for name, method in vars(Engine).items() if not name.startswith("_")}
    assert {name: list(inspect.signature(method).parameters)[1:] for name, method in public.items()} == METHODS
    assert list(inspect.signature(Engine).parameters) == PARTS


def test_the_options_and_the_result_have_the_names_they_had() -> None:
    assert set(RunOptions.model_fields) == OPTIONS
    assert {"run_id", "status", "score", "passed", "checks", "cost_usd", "judge_cost_usd"} <= set(
        RunResult.model_fields
    )


def test_the_folders_are_typed_for_their_users() -> None:
    assert (Path(fbench.engine.__file__).parent / "py.typed").is_file()
