"""How checks come by what they judge: a command's output, a file of the workspace, a reference of the task.

All of them raise `CannotEvaluate` when there is nothing to judge; the check turns it into an outcome of `error`.
"""

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import anyio

from fbench.engine import threads
from fbench.engine.errors import FbenchError, JudgingFailed, RunError, ToolRefused
from fbench.engine.execs import ExecResult, run_exec
from fbench.engine.seams import CheckContext, CheckOutcome, ExecRequest
from fbench.judging.evidence import command_evidence, tail

MAX_INPUT_BYTES = 10 * 1024**2
"""The most a check reads of an agent's file or a command's stdout; more is `error`."""

MAX_REFERENCE_BYTES = 100 * 1024**2

_T = TypeVar("_T")


class CannotEvaluate(FbenchError):
    """There is nothing that could be judged; `evidence` is what was seen all the same."""

    def __init__(self, reason: str, evidence: Mapping[str, Any]) -> None:
        super().__init__(reason)
        self.evidence = evidence

    def outcome(self) -> CheckOutcome:
        """The outcome `error`, with the reason."""
        return CheckOutcome("error", 0.0, str(self), self.evidence)


async def run_command(
    context: CheckContext,
    command: str,
    *,
    timeout_s: float,
    keep_bytes: int,
    merge_stderr: bool,
    arguments: tuple[str, ...] = (),
    stdin: bytes | None = None,
) -> ExecResult:
    """Run `bash -c command arguments` in the workdir of a grading sandbox of its own, which is closed again.

    Raises:
        CannotEvaluate: it timed out, bash could not be started, or the sandbox went away under it.
        JudgingFailed: no grading sandbox could be opened, or an isolated one was lost.
    """
    request = ExecRequest(("bash", "-c", command, *arguments), stdin=stdin, merge_stderr=merge_stderr)
    try:
        async with context.open_sandbox() as sandbox:
            result = await run_exec(sandbox, request, timeout_s=timeout_s, keep_bytes=keep_bytes)
    except JudgingFailed:
        raise
    except RunError as error:
        reason = f"the grading sandbox failed while the command ran: {error}"
        raise CannotEvaluate(reason, {"command": command, "error": str(error)}) from error
    evidence = command_evidence(command, result)
    if result.timed_out:
        said = tail(result.stderr or result.output)
        reason = f"the command did not end within its timeout_s of {timeout_s:g} s" + (f": {said}" if said else "")
        raise CannotEvaluate(reason, evidence)
    if result.exit_code in {126, 127} and result.reason and not result.out_of_memory:
        reason = f"bash could not be started in the grading sandbox: {result.reason}"
        raise CannotEvaluate(reason, evidence)
    return result


async def run_for_stdout(context: CheckContext, command: str, *, timeout_s: float) -> ExecResult:
    """The same, for a command whose stdout is judged: all of it, apart from stderr.

    Raises:
        CannotEvaluate: also when stdout is longer than `MAX_INPUT_BYTES`.
    """
    result = await run_command(
        context, command, timeout_s=timeout_s, keep_bytes=MAX_INPUT_BYTES + 1, merge_stderr=False
    )
    if len(result.stdout_bytes) > MAX_INPUT_BYTES:
        reason = f"the command wrote more than {MAX_INPUT_BYTES} bytes to stdout; print less, or compare a file"
        raise CannotEvaluate(reason, command_evidence(command, result))
    return result


def is_present(context: CheckContext, path: str) -> bool:
    """Whether a regular file stands there, after links that stay inside; what cannot be looked at is absent."""
    try:
        return context.workspace.is_regular_file(path)
    except ToolRefused:
        return False


async def read_workspace_file(context: CheckContext, path: str) -> bytes:
    """The bytes of a regular file of the final workspace.

    Raises:
        CannotEvaluate: it is absent, no regular file, leads out, is unreadable or longer than `MAX_INPUT_BYTES`.
    """
    if not await in_thread(lambda: is_present(context, path)):
        reason = f"{path!r} is no regular file of the final workspace"
        raise CannotEvaluate(reason, {"path": path, "present": False})
    try:
        return await in_thread(lambda: context.workspace.read_bytes(path, MAX_INPUT_BYTES))
    except (ToolRefused, OSError) as error:
        reason = f"{path!r} of the final workspace cannot be read: {error}"
        raise CannotEvaluate(reason, {"path": path, "present": True, "error": str(error)}) from error


async def read_reference(task_folder: Path, path: str) -> bytes:
    """The bytes of a file of the task.

    Raises:
        CannotEvaluate: it cannot be read, which is the task's fault.
    """
    try:
        return await in_thread(lambda: _read_bounded(task_folder / path))
    except OSError as error:
        reason = f"the task's reference {path!r} cannot be read: {error.strerror or error}; run `fbench validate`"
        raise CannotEvaluate(reason, {"reference": path, "error": str(error)}) from error


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_REFERENCE_BYTES + 1)
    if len(data) > MAX_REFERENCE_BYTES:
        msg = f"longer than {MAX_REFERENCE_BYTES} bytes"
        raise OSError(msg)
    return data


async def in_thread(
    function: Callable[[], _T], *, abandon_on_cancel: bool = False, kind: Hashable = None, is_little: bool = False
) -> _T:
    """Run blocking work beside the loop; a check has one such thread at a time, whatever else the process does. For
    the rest see `engine.threads`."""
    limiter = anyio.CapacityLimiter(1)
    return await threads.in_thread(
        function, limiter, abandon_on_cancel=abandon_on_cancel, kind=kind, is_little=is_little
    )
