"""`max_words`: a text of the workspace has at most so many words. The pattern for a type of check of your own.

- {id: short, type: max_words, path: summary.md, limit: 200, twice_is_zero: true}
"""

from typing import Annotated, ClassVar

from pydantic import Field

from fbench.engine.errors import ToolRefused
from fbench.engine.results import Tier
from fbench.engine.seams import CheckContext, CheckOutcome
from fbench.tasks.checks import OutsideCheck
from fbench.tasks.values import InsidePath

MAX_BYTES = 1024**2


class MaxWordsArguments(OutsideCheck):
    """The keys of the check beside id, type, weight, gating and timeout_s. Unknown keys and wrong values are problems
    of the task, told with file and line."""

    path: InsidePath
    limit: Annotated[int, Field(gt=0)]
    twice_is_zero: bool = False


class MaxWords:
    """Satisfies the Protocol `fbench.engine.seams.Check`."""

    tier: ClassVar[Tier] = "deterministic"
    arguments: ClassVar[type[OutsideCheck]] = MaxWordsArguments

    async def evaluate(self, check: MaxWordsArguments, context: CheckContext) -> CheckOutcome:
        """Count the words. `failed` is a verdict on the work; what could not be evaluated is `error`."""
        if not context.workspace.is_regular_file(check.path):
            return CheckOutcome("failed", 0.0, f"{check.path!r} is no regular file of the final workspace")
        try:
            text = context.workspace.read_bytes(check.path, MAX_BYTES).decode("utf-8", errors="replace")
        except ToolRefused as error:
            return CheckOutcome("error", 0.0, str(error))
        words = len(text.split())
        evidence = {"path": check.path, "limit": check.limit, "words": words}
        detail = f"{words} words, wanted at most {check.limit}"
        if words <= check.limit:
            return CheckOutcome("passed", 1.0, detail, evidence)
        credit = max(0.0, 2 - words / check.limit) if check.twice_is_zero else 0.0
        return CheckOutcome("failed", credit, detail, evidence)
