"""Implementations by name: dotted names of our own, entry points for those of other packages.

Nothing is imported before it is asked for. An outside package registers under `fbench.agents`, `fbench.tools`,
`fbench.sandboxes`, `fbench.models` or `fbench.checks`; a name of ours wins over an outside one, and between them stand
the parts that a program gave its engine (`own_parts`).
"""

import difflib
import importlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, Literal

from fbench.engine.errors import UnknownNameError
from fbench.engine.own_parts import own_parts

Group = Literal["agents", "tools", "sandboxes"]

BUILT_IN: Mapping[Group, Mapping[str, str]] = MappingProxyType(
    {
        "agents": MappingProxyType(
            {
                "native": "fbench.engine.agents.native:run_agent",
                "json_text": "fbench.engine.agents.json_text:run_agent",
            }
        ),
        "tools": MappingProxyType(
            {
                "bash": "fbench.engine.tools.bash:BashTool",
                "python": "fbench.engine.tools.python:PythonTool",
                "text_editor": "fbench.engine.tools.text_editor:TextEditorTool",
                "git_diff": "fbench.engine.tools.git_diff:GitDiffTool",
            }
        ),
        "sandboxes": MappingProxyType(
            {
                "local": "fbench.sandboxes.local:open_site",
                "bubblewrap": "fbench.sandboxes.bubblewrap:open_site",
                "docker": "fbench.sandboxes.docker:open_site",
                "compose": "fbench.sandboxes.compose:open_site",
            }
        ),
    }
)

_KINDS: Mapping[Group, str] = MappingProxyType({"agents": "tools.style", "tools": "tool", "sandboxes": "sandbox"})


PARTS: Mapping[str, str] = MappingProxyType(
    {
        "judge_workspace": "fbench.judging.judge:judge_workspace",
        "unsupported_checks": "fbench.judging.table:unsupported_checks",
        "check_rubrics": "fbench.judging.rubric_file:check_rubrics",
        "run_suite": "fbench.suites.embedding:run_suite",
        "choose_sandbox": "fbench.sandboxes.choose:choose_sandbox",
        "sweep_scratch": "fbench.sandboxes.sweep:sweep_scratch",
    }
)
"""What the engine needs of the folders that know it, one of each."""


def load(group: Group, name: str) -> Any:  # noqa: ANN401 - each group has its own Protocol; the caller names it
    """The implementation called `name`.

    Raises:
        UnknownNameError: nothing answers to the name; the text lists what does.
    """
    if dotted := BUILT_IN[group].get(name):
        return import_dotted(dotted)
    own = own_parts().of_group(group)
    if name in own:
        return own[name]
    outside = {point.name: point for point in entry_points(group=f"fbench.{group}")}
    if point := outside.get(name):
        return point.load()
    known = sorted({*BUILT_IN[group], *own, *outside})
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    msg = f"unknown {_KINDS[group]} {name!r}: known are {', '.join(known)}{hint}"
    raise UnknownNameError(msg)


def load_part(name: str) -> Any:  # noqa: ANN401 - see load
    """One of PARTS."""
    return import_dotted(PARTS[name])


@cache
def import_dotted(dotted: str) -> Any:  # noqa: ANN401 - see load
    """The object behind `package.module:name`."""
    module, _, attribute = dotted.partition(":")
    return getattr(importlib.import_module(module), attribute)
