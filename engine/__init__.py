"""fbench's engine: run one model against one task, and get a verdict that can be trusted.

>>> from fbench.engine import Engine, RunOptions

Names are loaded when they are first used, so that importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fbench.engine.engine import Engine
    from fbench.engine.errors import FbenchError, RunError, UsageError
    from fbench.engine.events import Event
    from fbench.engine.options import RunOptions
    from fbench.engine.results import CheckResult, RunResult, Verdict

__all__ = [
    "CheckResult",
    "Engine",
    "Event",
    "FbenchError",
    "RunError",
    "RunOptions",
    "RunResult",
    "UsageError",
    "Verdict",
]

_HOMES = {
    "CheckResult": "results",
    "Engine": "engine",
    "Event": "events",
    "FbenchError": "errors",
    "RunError": "errors",
    "RunOptions": "options",
    "RunResult": "results",
    "UsageError": "errors",
    "Verdict": "results",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a lazy module attribute
    if name in _HOMES:
        return getattr(import_module(f"fbench.engine.{_HOMES[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
