"""fbench's engine: run one model against one task, and get a verdict that can be trusted.

>>> from fbench.engine import Engine, RunOptions

Names are loaded when they are first used, so that importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fbench.engine.engine import Engine
    from fbench.engine.errors import FbenchError, RunError, UsageError
    from fbench.engine.events import (
        BudgetBreached,
        CheckFinished,
        Event,
        ModelAnswered,
        ModelAwaited,
        ModelRetried,
        OutputDropped,
        PhaseStarted,
        RunFinished,
        RunStarted,
        ToolFinished,
        ToolOutput,
        ToolStarted,
        TurnStarted,
        Warned,
    )
    from fbench.engine.options import RunOptions
    from fbench.engine.purse import Purse
    from fbench.engine.rejudge import RejudgeOptions
    from fbench.engine.results import CheckResult, RunResult, Verdict
    from fbench.engine.streaming import RunStream
    from fbench.engine.suite_options import SuiteOptions

__all__ = [
    "BudgetBreached",
    "CheckFinished",
    "CheckResult",
    "Engine",
    "Event",
    "FbenchError",
    "ModelAnswered",
    "ModelAwaited",
    "ModelRetried",
    "OutputDropped",
    "PhaseStarted",
    "Purse",
    "RejudgeOptions",
    "RunError",
    "RunFinished",
    "RunOptions",
    "RunResult",
    "RunStarted",
    "RunStream",
    "SuiteOptions",
    "ToolFinished",
    "ToolOutput",
    "ToolStarted",
    "TurnStarted",
    "UsageError",
    "Verdict",
    "Warned",
]

_HOMES = {
    "BudgetBreached": "events",
    "CheckFinished": "events",
    "CheckResult": "results",
    "Engine": "engine",
    "Event": "events",
    "FbenchError": "errors",
    "ModelAnswered": "events",
    "ModelAwaited": "events",
    "ModelRetried": "events",
    "OutputDropped": "events",
    "PhaseStarted": "events",
    "Purse": "purse",
    "RejudgeOptions": "rejudge",
    "RunError": "errors",
    "RunFinished": "events",
    "RunOptions": "options",
    "RunResult": "results",
    "RunStarted": "events",
    "RunStream": "streaming",
    "SuiteOptions": "suite_options",
    "ToolFinished": "events",
    "ToolOutput": "events",
    "ToolStarted": "events",
    "TurnStarted": "events",
    "UsageError": "errors",
    "Verdict": "results",
    "Warned": "events",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a lazy module attribute
    if name in _HOMES:
        return getattr(import_module(f"fbench.engine.{_HOMES[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
