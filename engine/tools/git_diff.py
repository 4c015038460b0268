"""The tool `git_diff`: what changed in the workspace since the start, by our own code, never the host's git."""

import threading
from functools import partial
from typing import Annotated, ClassVar

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field

from fbench.engine.records.diff import diff_trees
from fbench.engine.seams import ToolContext, ToolOutcome
from fbench.engine.tools.shell import bounded

MAX_DIFF_BYTES = 1024 * 1024
"""The diff is not made further than this; the model reads its head and tail."""


class GitDiffArguments(BaseModel):
    """What `git_diff` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[str | None, Field(description="Only this file or folder; left out: the whole workspace.")] = None


class GitDiffTool:
    """Shows what changed since the start."""

    name: ClassVar[str] = "git_diff"
    description: ClassVar[str] = "Show what changed in the workspace since the start, as a git diff."
    arguments: ClassVar[type[BaseModel]] = GitDiffArguments

    async def run(self, arguments: GitDiffArguments, context: ToolContext) -> ToolOutcome:
        """The diff, bounded. Raises ToolRefused for a path that leaves the workspace."""
        subpath = context.workspace.relative(arguments.path) if arguments.path else None
        stopped = threading.Event()
        work = partial(
            diff_trees,
            context.baseline,
            context.workspace.root,
            subpath=subpath,
            max_bytes=MAX_DIFF_BYTES,
            stop=stopped.is_set,
        )
        try:
            # A breach does not wait for the thread, which ends at the next file.
            patch = await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
        finally:
            stopped.set()
        if not patch:
            where = f" in {arguments.path!r}" if subpath else ""
            return ToolOutcome(f"[nothing changed{where} since the start]")
        return bounded(patch.decode("utf-8", "replace"), context)
