"""What can be held against a task before it has run: graders that the agent can speak through, material that leaks.

Commands are read as a shell would split them, and no further: what is found is a reason to look, not a fault.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from fbench.tasks.folder_rules import UnusableFile, read_text
from fbench.tasks.leaks import find_leaks
from fbench.tasks.manifest import Check, CommandExitZero, FilePresent, ReferenceOutput
from fbench.tasks.metric_checks import MetricCheck

if TYPE_CHECKING:
    from fbench.tasks.loading import LoadedTask

MAX_SCRIPT_BYTES = 1_000_000

_PYTHON = re.compile(r"python[0-9.]*")
_SHELLS = frozenset({"bash", "sh", "dash", "source", "."})
_PYTESTS = frozenset({"pytest", "py.test"})
_PRINTERS = frozenset({"cat", "head", "tail", "jq"})
_PREFIXES = frozenset({"!", "{", "time", "exec", "env", "command", "if", "then", "while", "do"})
_GRADER = re.compile(r"(?:\$FBENCH_GRADER|\$\{FBENCH_GRADER\}|/grader)/(.+)")
_FILE = re.compile(r"\w\.\w")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*")
_LOADS_WORKSPACE = re.compile(
    r"^[^#]*(?:sys\.path|run_path|spec_from_file_location|SourceFileLoader).*"
    r"""(?:FBENCH_WORKSPACE|getcwd|\.cwd\(|workspace|["']\.["'])"""
)


class _PythonCall(NamedTuple):
    """What `python ARGUMENTS` runs: `mode` is `-m`, `-c` or, for a script, empty."""

    mode: str
    target: str
    is_isolated: bool


def review_task(task: "LoadedTask") -> tuple[str, ...]:
    """Sentences for the author, each naming the check or the file to look at."""
    found = [
        f"grader.checks {check.id!r}: {doubt}"
        for check in task.manifest.grader.checks
        for doubt in _doubts_of_check(check, task.folder)
    ]
    if all(_looks_only(check) for check in task.manifest.grader.checks):
        found.append("no check runs anything: whoever knows the answers can write them down by hand")
    return (*dict.fromkeys(found), *find_leaks(task.folder, task.prompt))


def _doubts_of_check(check: Check, folder: Path) -> Iterator[str]:
    if isinstance(check, MetricCheck) and check.path is not None:
        yield f"the number is read from {check.path}, which the agent writes: it states its own result. Measure it"
    command = getattr(check, "command", None)
    if command is None:
        return
    simple = _simple_commands(command)
    states_verdict = isinstance(check, CommandExitZero | MetricCheck)
    # What a relative path means after `cd` cannot be told; that pytest runs can.
    moves = any(words[0] == "cd" for words in simple)
    for words in simple:
        if not moves or _runs_pytest(words):
            yield from _doubts_of_command(words, folder, states_verdict=states_verdict)


def _doubts_of_command(words: Sequence[str], folder: Path, *, states_verdict: bool) -> Iterator[str]:
    program, arguments = PurePosixPath(words[0]).name, words[1:]
    if _PYTHON.fullmatch(program):
        call = _read_python(arguments)
        if call is not None:
            yield from _doubts_of_python(program, call, folder, states_verdict=states_verdict)
    elif program in _PYTESTS:
        yield _pytest_doubt(program)
    elif states_verdict and program in _PRINTERS:
        if files := [word for word in arguments if _is_of_workspace(word) and _FILE.search(word)]:
            yield f"`{program}` prints {files[-1]}, which the agent writes: it states its own result. Measure it"
    elif states_verdict and program in _SHELLS and arguments and _is_of_workspace(arguments[0]):
        yield _own_program_doubt(arguments[0])
    elif states_verdict and (program == "make" or (_is_of_workspace(words[0]) and "/" in words[0])):
        yield _own_program_doubt(words[0])


def _doubts_of_python(program: str, call: _PythonCall, folder: Path, *, states_verdict: bool) -> Iterator[str]:
    if call.mode == "-m" and call.target in _PYTESTS:
        yield _pytest_doubt(f"{program} -m {call.target}")
    elif call.mode and not call.is_isolated:
        shown = f"{program} {call.mode}" + (f" {call.target}" if call.mode == "-m" else "")
        yield f"`{shown}` imports from the workspace first, where the agent can put any module: say `{program} -I`"
    elif not call.mode and (inside := _GRADER.fullmatch(call.target)):
        for line in _loading_lines(folder / "grader" / inside[1]):
            yield (
                f"grader/{inside[1]}:{line} loads the workspace's code into the grader's own process, where it can "
                "decide the verdict: run it in a child and compare what comes back"
            )
    elif states_verdict and not call.mode and _is_of_workspace(call.target):
        yield _own_program_doubt(call.target)


def _runs_pytest(words: Sequence[str]) -> bool:
    program = PurePosixPath(words[0]).name
    call = _read_python(words[1:]) if _PYTHON.fullmatch(program) else None
    return program in _PYTESTS or (call is not None and call.mode == "-m" and call.target in _PYTESTS)


def _pytest_doubt(shown: str) -> str:
    return (
        f"`{shown}` runs in one process with what it tests, where a module or conftest.py of the workspace can decide "
        "the outcome: have a check beside it that compares behaviour from outside"
    )


def _own_program_doubt(file: str) -> str:
    return f"{file} is the agent's own program, and its exit code or print is the verdict: compare what it does instead"


def _loading_lines(script: Path) -> list[int]:
    """The lines of a grader's script that put the workspace where Python imports from."""
    try:
        text = read_text(script, MAX_SCRIPT_BYTES)
    except UnusableFile:
        return []
    return [number for number, line in enumerate(text.splitlines(), start=1) if _LOADS_WORKSPACE.match(line)]


def _looks_only(check: Check) -> bool:
    """Whether a check looks at files and runs nothing."""
    return isinstance(check, FilePresent) or (
        isinstance(check, MetricCheck | ReferenceOutput) and check.command is None
    )


def _is_of_workspace(word: str) -> bool:
    """Whether a word is a path below the workdir; one with a variable in it may lead anywhere."""
    return bool(word) and word[0] not in "/$-<>~" and "$" not in word


def _simple_commands(command: str) -> list[list[str]]:
    """The words of each simple command of a shell text, without what stands before the program's name."""
    lexer = shlex.shlex(command.replace("\n", " ; "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    commands: list[list[str]] = [[]]
    try:
        for word in lexer:
            if set(word) <= set(";|&()"):
                commands.append([])
            elif commands[-1] or not (word in _PREFIXES or _ASSIGNMENT.fullmatch(word)):
                commands[-1].append(word)
    except ValueError:  # quotes that do not end: bash will refuse it too
        return []
    return [words for words in map(_without_timeout, commands) if words]


def _without_timeout(words: list[str]) -> list[str]:
    """`timeout -k 1 5 python x.py` runs python."""
    if words[:1] != ["timeout"]:
        return words
    rest = words[1:]
    while rest and (rest[0].startswith("-") or rest[0][0].isdigit()):
        rest = rest[1:]
    return rest


def _read_python(arguments: Sequence[str]) -> _PythonCall | None:
    """What a python command line runs; None when it is only asked for its version, or reads stdin."""
    is_isolated = False
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            return None if word == "-" else _PythonCall("", word, is_isolated)
        if word.startswith("--"):
            continue
        for place, letter in enumerate(word[1:], start=1):
            value = word[place + 1 :]
            if letter in "IP":
                is_isolated = True
            elif letter in "mc":
                target = value or (rest[0] if rest else "")
                return _PythonCall(f"-{letter}", target, is_isolated)
            elif letter in "XW":
                if not value and rest:
                    rest.pop(0)
                break
    return None
