"""Programs of ours that run inside a grading sandbox and answer with one JSON object.

Such a program is the text of a module here. It runs as `python3 -I -c TEXT`, reads a job from standard input, and
imports nothing of the workspace.
"""

import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from fbench.engine.errors import JudgingFailed, RunError
from fbench.engine.execs import ExecResult, run_exec
from fbench.engine.seams import CheckContext, ExecRequest
from fbench.judging.evidence import tail
from fbench.judging.exact_json import JsonRefused, JsonValue, parse_json
from fbench.judging.gather import CannotEvaluate

STARTING_S = 15.0
"""What starting Python, importing and connecting may take on top of a check's `timeout_s`."""


class InsideProgram(NamedTuple):
    """A program and the words for it: `does` names what takes time and memory, `words` who does it; `hide` takes out
    of its words what must not be told."""

    module: str
    does: str
    words: str
    hide: Callable[[str], str] = str


async def ask_inside(
    context: CheckContext, program: InsideProgram, job: Mapping[str, Any], *, timeout_s: float, keep_bytes: int
) -> dict[str, JsonValue]:
    """The object that the program prints in a grading sandbox of its own; the job gets the key `workspace`.

    Raises:
        CannotEvaluate: it could not run, took too long, or answered with something else.
        JudgingFailed: no grading sandbox could be opened, or an isolated one was lost.
    """
    try:
        async with context.open_sandbox() as sandbox:
            stdin = json.dumps({**job, "workspace": sandbox.workspace}).encode()
            argv = ("python3", "-I", "-B", "-c", _text_of(program.module))
            request = ExecRequest(argv, stdin=stdin, cwd="/", merge_stderr=False)
            result = await run_exec(sandbox, request, timeout_s=timeout_s + STARTING_S, keep_bytes=keep_bytes)
    except JudgingFailed:
        raise
    except RunError as error:
        reason = f"the grading sandbox failed during {program.does}: {error}"
        raise CannotEvaluate(reason, {"error": str(error)}) from error
    return _read(program, result, timeout_s)


def _read(program: InsideProgram, result: ExecResult, timeout_s: float) -> dict[str, JsonValue]:
    said = program.hide(tail(result.stderr))
    evidence = {"exit_code": result.exit_code, "timed_out": result.timed_out, "stderr": said}
    if result.timed_out:
        reason = f"{program.does} did not end within its timeout_s of {timeout_s:g} s"
        raise CannotEvaluate(reason, evidence)
    if result.exit_code != 0:
        if result.out_of_memory:
            reason = f"{program.does} took more memory than the grading sandbox has (`environment.resources.memory`)"
            raise CannotEvaluate(reason, evidence)
        why = result.reason or said or "no words"
        reason = (
            f"{program.words} ended with exit code {result.exit_code}: {why}. The grading sandbox needs python3, "
            "3.9 or later"
        )
        raise CannotEvaluate(reason, evidence)
    try:
        answer = parse_json(result.stdout_bytes)
    except JsonRefused as error:
        reason = f"{program.words} printed {error}"
        raise CannotEvaluate(reason, evidence) from error
    if not isinstance(answer, dict):
        reason = f"{program.words} printed no object"
        raise CannotEvaluate(reason, evidence)
    return answer


@cache
def _text_of(module: str) -> str:
    return files("fbench.judging").joinpath(f"{module}.py").read_text(encoding="utf-8")
