"""`command_exit_zero`: a command ends with exit code 0."""

from dataclasses import replace
from typing import ClassVar

from fbench.engine.results import Tier
from fbench.engine.seams import CheckContext, CheckOutcome
from fbench.judging.evidence import MAX_TEXT_CHARS, command_evidence, tail
from fbench.judging.gather import CannotEvaluate, run_command
from fbench.judging.pytest_check import read_call, run_tests
from fbench.tasks import manifest
from fbench.tasks.checks import CheckBase


class CommandExitZero:
    """Passes when the command exits with 0. Any other exit, a missing program included, is the verdict `failed`.

    A plain call of pytest on the grader's tests passes when every test did; see `pytest_check`.
    """

    tier: ClassVar[Tier] = "deterministic"
    arguments: ClassVar[type[CheckBase]] = manifest.CommandExitZero

    async def evaluate(self, check: manifest.CommandExitZero, context: CheckContext) -> CheckOutcome:
        """Run the command in a grading sandbox of its own."""
        if (call := read_call(check.command)) is not None:
            outcome = await run_tests(call, context, check.timeout_s)
            return replace(outcome, score=float(outcome.status == "passed"))
        try:
            result = await run_command(
                context, check.command, timeout_s=check.timeout_s, keep_bytes=MAX_TEXT_CHARS, merge_stderr=True
            )
        except CannotEvaluate as problem:
            return problem.outcome()
        output = command_evidence(check.command, result)
        if result.exit_code == 0:
            return CheckOutcome("passed", 1.0, "exit code 0", output)
        why = "out of memory" if result.out_of_memory else result.reason
        detail = f"exit code {result.exit_code}" + (f" ({why})" if why else "")
        said = tail(result.output)
        return CheckOutcome("failed", 0.0, f"{detail}: {said}" if said else detail, output)
