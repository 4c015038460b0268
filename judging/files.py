"""`file_present`: a regular file stands in the final workspace."""

from typing import ClassVar

from fbench.engine.results import Tier
from fbench.engine.seams import CheckContext, CheckOutcome
from fbench.judging.gather import in_thread, is_present
from fbench.tasks import manifest
from fbench.tasks.checks import CheckBase


class FilePresent:
    """Passes for a regular file, after links that stay inside the workspace; a link that leads out counts as absent."""

    tier: ClassVar[Tier] = "deterministic"
    arguments: ClassVar[type[CheckBase]] = manifest.FilePresent

    async def evaluate(self, check: manifest.FilePresent, context: CheckContext) -> CheckOutcome:
        """Look for the file; nothing is read and nothing run."""
        found = await in_thread(lambda: is_present(context, check.path), kind="is_present")
        output = {"path": check.path, "present": found}
        if found:
            return CheckOutcome("passed", 1.0, f"{check.path!r} is there", output)
        return CheckOutcome("failed", 0.0, f"{check.path!r} is no regular file of the final workspace", output)
