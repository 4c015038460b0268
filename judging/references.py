"""`reference_output`: a command's stdout or a file against a reference of the task; see `comparison` for the rules."""

from typing import Any, ClassVar

from fbench.engine.results import Tier
from fbench.engine.seams import CheckContext, CheckOutcome
from fbench.judging.comparison import compare
from fbench.judging.differences import ReferenceRefused
from fbench.judging.evidence import command_evidence, tail
from fbench.judging.gather import (
    CannotEvaluate,
    in_thread,
    is_present,
    read_reference,
    read_workspace_file,
    run_for_stdout,
)
from fbench.judging.matching import TooAlike
from fbench.tasks import manifest
from fbench.tasks.checks import CheckBase


class ReferenceOutput:
    """Passes when what came equals the reference within the tolerance.

    A command that ends with another exit code than 0, or a file that is not there, is `failed`: that is what the
    agent's work does. A file that cannot be read, or too much output, is `error`.
    """

    tier: ClassVar[Tier] = "reference"
    arguments: ClassVar[type[CheckBase]] = manifest.ReferenceOutput

    async def evaluate(self, check: manifest.ReferenceOutput, context: CheckContext) -> CheckOutcome:
        """Get what is to be compared, and compare it in a thread."""
        try:
            expected = await read_reference(context.task_folder, check.reference)
            if check.path is not None:
                return await self._compare_file(check, check.path, context, expected)
            return await self._compare_stdout(check, context, expected)
        except CannotEvaluate as problem:
            return problem.outcome()

    async def _compare_file(
        self, check: manifest.ReferenceOutput, path: str, context: CheckContext, expected: bytes
    ) -> CheckOutcome:
        if not await in_thread(lambda: is_present(context, path)):
            output = {"path": path, "present": False, "reference": check.reference}
            return CheckOutcome("failed", 0.0, f"{path!r} is no regular file of the final workspace", output)
        got = await read_workspace_file(context, path)
        return await self._compare(check, expected, got, {"path": path, "bytes": len(got)})

    async def _compare_stdout(
        self, check: manifest.ReferenceOutput, context: CheckContext, expected: bytes
    ) -> CheckOutcome:
        assert check.command is not None  # the manifest wants one of the two
        result = await run_for_stdout(context, check.command, timeout_s=check.timeout_s)
        evidence = command_evidence(check.command, result)
        if result.exit_code != 0:
            why = " (out of memory)" if result.out_of_memory else ""
            said = tail(result.stderr or result.output)
            detail = f"the command ended with exit code {result.exit_code}{why}" + (f": {said}" if said else "")
            return CheckOutcome("failed", 0.0, detail, {**evidence, "reference": check.reference})
        return await self._compare(check, expected, result.stdout_bytes, evidence)

    async def _compare(
        self, check: manifest.ReferenceOutput, expected: bytes, got: bytes, evidence: dict[str, Any]
    ) -> CheckOutcome:
        output = {
            **evidence,
            "reference": check.reference,
            "format": check.format,
            "columns": check.columns,
            "tolerance": check.tolerance.model_dump(),
        }
        try:
            found = await in_thread(lambda: compare(check.format, expected, got, check.tolerance, check.columns))
        except ReferenceRefused as error:
            reason = f"the task's reference {check.reference!r} cannot be read as {check.format}: {error}"
            return CheckOutcome("error", 0.0, reason, output)
        except TooAlike:
            reason = "too many rows are nearly alike to be matched in any order; narrow the tolerance or sort the rows"
            return CheckOutcome("error", 0.0, reason, output)
        output |= {"compared": found.compared, "differences": list(found.differences), "difference_count": found.count}
        status: Any = "passed" if found.is_equal else "failed"
        return CheckOutcome(status, 1.0 if found.is_equal else 0.0, found.summary, output)
