"""`pytest`: tests of the grader, run so that the work they judge decides nothing but its own answers.

A plain call of pytest on the grader's tests (`python -m pytest -q /grader/tests`) in a `command_exit_zero` is run the
same way: by itself it would put the workspace first in `sys.path`, and end with 0 for tests that were skipped, or for
code that leaves with `os._exit(0)`.

Which tests must pass is read here, from the grader's sources; `pytest_inside` tells what became of them.
"""

import ast
import json
import re
import secrets
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from fbench.engine.execs import ExecResult
from fbench.engine.results import Tier
from fbench.engine.seams import CheckContext, CheckOutcome
from fbench.judging.evidence import command_evidence, tail
from fbench.judging.gather import CannotEvaluate, in_thread, run_command
from fbench.judging.scoring import ALMOST_ONE
from fbench.tasks import manifest
from fbench.tasks.checks import CheckBase

MAX_FACTS_BYTES = 32 * 1024**2
MAX_SHOWN = 50
CONFIGURATIONS = ("pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")

_CALL = re.compile(r"\s*(?:(?P<python>python3?)(?P<flags>(?: +-[BEIPsu]+)*) +-m +)?pytest(?= |$)")
# No shell syntax but quotes and the grader's variable: what is left means the same to any program that takes it.
_WORDS = re.compile(r"(?:[\w\s./:,=+@%\"'-]|\$FBENCH_GRADER\b|\$\{FBENCH_GRADER\})*")
_GRADER = re.compile(r"(?:/grader|\$FBENCH_GRADER|\$\{FBENCH_GRADER\})(?=/|$)")
# Options that leave every test in. A call with others, such as `-k`, is left as its author wrote it.
_OPTIONS = re.compile(
    r"-[qvxsl]+|-r\w+|--(?:quiet|verbose|exitfirst|noconftest|no-header|no-summary|disable-warnings|strict-markers"
    r"|(?:tb|color|rootdir|confcutdir|import-mode|timeout|durations)=.*)"
)
_PAIRS = frozenset({"-p", "-W", "-o"})


@dataclass(frozen=True, slots=True)
class PytestCall:
    """A call of pytest: its Python, the rest of its command line as bash reads it, the tests it names as paths in the
    task (`grader/tests`, `grader/tests/test_a.py::test_one`), and what it imports of the workspace."""

    python: str
    arguments: str
    tests: tuple[str, ...]
    pythonpath: tuple[str, ...]


@dataclass(slots=True)
class Report:
    """What `pytest_inside` told. `names` is by node id, `troubles` too: empty for a test that passed."""

    is_ready: bool = False
    names: dict[str, str] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    traps: int = 0
    sprung: list[bool] = field(default_factory=list)
    ended: int | None = None


class PytestCheck:
    """Passes when every test passed; else the share of tests that did. Skipped, deselected and xfailed ones did not."""

    tier: ClassVar[Tier] = "deterministic"
    arguments: ClassVar[type[CheckBase]] = manifest.PytestCheck

    async def evaluate(self, check: manifest.PytestCheck, context: CheckContext) -> CheckOutcome:
        """Run the tests in a grading sandbox of their own."""
        return await run_tests(_call_for(check, context.task_folder), context, check.timeout_s)


def read_call(command: str) -> PytestCall | None:
    """The command as a call of pytest on tests of the grader, and on nothing else; None when it is something else.

    >>> read_call('python -m pytest -q "$FBENCH_GRADER/tests"').tests
    ('grader/tests',)
    >>> read_call("cd src && python -m pytest") is None
    True
    """
    call = _CALL.match(command)
    if call is None or not _WORDS.fullmatch(command):
        return None
    try:
        words = shlex.split(command[call.end() :])
    except ValueError:
        return None
    tests: list[str] = []
    while words:
        word = words.pop(0)
        if word in _PAIRS and words:
            words.pop(0)
        elif place := _GRADER.match(word):
            tests.append("grader" + word[place.end() :])
        elif not _OPTIONS.fullmatch(word):
            return None
    if not tests or any(".." in test.split("/") for test in tests):
        return None
    is_isolated = call["python"] is None or bool(set("IP") & set(call["flags"]))
    python = call["python"] or "python3"
    return PytestCall(python, command[call.end() :], tuple(tests), () if is_isolated else (".",))


async def run_tests(call: PytestCall, context: CheckContext, timeout_s: float) -> CheckOutcome:
    """The outcome of a call, with the share of tests that passed as its score."""
    try:
        expected = await in_thread(lambda: find_tests(context.task_folder, call.tests))
        token = secrets.token_hex(16)
        result = await run_command(
            context,
            f'exec {call.python} -I -B -c "$1" -p no:cacheprovider --continue-on-collection-errors {call.arguments}',
            arguments=("fbench", _program()),
            stdin=json.dumps({"token": token, "pythonpath": call.pythonpath}).encode(),
            timeout_s=timeout_s,
            keep_bytes=MAX_FACTS_BYTES,
            merge_stderr=False,
        )
    except CannotEvaluate as problem:
        return problem.outcome()
    return await in_thread(lambda: _judge(call, expected, read_report(result.stdout_bytes, token), result))


def find_tests(task_folder: Path, tests: Sequence[str]) -> set[str]:
    """The tests that stand in the sources, as FILE::CLASS::FUNCTION, FILE as seen from the grader's folder.

    Read by the names pytest looks for unless it is configured otherwise. Raises CannotEvaluate: the task's fault.
    """
    found: set[str] = set()
    for test in tests:
        path, _, within = test.partition("::")
        place = task_folder / path
        prefix = within.partition("[")[0]
        sources = [place] if place.is_file() else sorted({*place.rglob("test_*.py"), *place.rglob("*_test.py")})
        for source in sources:
            name = source.relative_to(task_folder / "grader").as_posix()
            try:
                names = set(_names(ast.parse(source.read_bytes()).body))
            except (OSError, SyntaxError, ValueError) as error:
                reason = f"the task's test {name!r} cannot be read: {error}"
                raise CannotEvaluate(reason, {"tests": list(tests)}) from error
            found |= {f"{name}::{one}" for one in names if not prefix or f"{one}::".startswith(f"{prefix}::")}
    return found


def read_report(stdout: bytes, token: str) -> Report:
    """What the lines with the token say; other lines, and facts of another shape, are nobody's."""
    report = Report()
    for line in stdout.decode("utf-8", "replace").splitlines():
        mark, _, text = line.partition(" ")
        if mark == token:
            with suppress(ValueError, TypeError, RecursionError):
                _take(report, json.loads(text))
    return report


def _take(report: Report, fact: object) -> None:
    match fact:
        case {"ready": str()}:
            report.is_ready = True
        case {"collected": list(items)}:
            report.names |= dict(items)
        case {"test": str(node), "why": str(why)}:
            report.troubles[node] = report.troubles.get(node) or why
        case {"broken": str(node), "why": str(why)}:
            report.broken[node] = why
        case {"traps": int(number)}:
            report.traps += number
        case {"sprung": bool(has_failed)}:
            report.sprung.append(has_failed)
        case {"ended": int(code)}:
            report.ended = code
        case _:
            pass


def _judge(call: PytestCall, expected: set[str], report: Report, result: ExecResult) -> CheckOutcome:
    tests = [*report.names, *(node for node in report.troubles if node not in report.names)]
    failed = {node: report.troubles.get(node, "did not run") for node in tests if report.troubles.get(node, "?")}
    unseen = sorted(expected - set(report.names.values()))
    passed, total = len(tests) - len(failed), len(tests) + len(unseen)
    output: dict[str, Any] = {
        **command_evidence(f"pytest {call.arguments.strip()}", result),
        "stdout": "",  # it holds the report and its token
        "tests": total,
        "passed": passed,
        "failed": dict(list(failed.items())[:MAX_SHOWN]),
        "broken": dict(list(report.broken.items())[:MAX_SHOWN]),
        "never_ran": unseen[:MAX_SHOWN],
    }
    if not report.is_ready:
        said = tail(result.stderr) or result.reason or f"exit code {result.exit_code}"
        reason = f"{call.python} could not start pytest in the grading sandbox (add it to the image): {said}"
        return CheckOutcome("error", 0.0, reason, output)
    if not total and not report.broken:
        return CheckOutcome("error", 0.0, f"the task has no tests in {', '.join(call.tests)}", output)
    if report.sprung.count(True) != report.traps or not all(report.sprung):
        why = "a test that has to fail did not: the code under test tampers with pytest, or ended it"
        return CheckOutcome("failed", 0.0, f"{why} ({tail(result.stderr)})", output)
    share = f"{passed} of {total} tests passed"
    problem = _first_problem(failed, report, unseen, result)
    if problem is None:
        return CheckOutcome("passed", 1.0, share, output)
    return CheckOutcome("failed", min(passed / max(total, 1), ALMOST_ONE), f"{share}; {problem}", output)


def _first_problem(failed: dict[str, str], report: Report, unseen: Sequence[str], result: ExecResult) -> str | None:
    for node, why in [*report.broken.items(), *failed.items()]:
        return f"{node}: {tail(why)}"
    if unseen:
        return f"never ran: {', '.join(unseen[:5])}"
    if report.ended is None:
        return f"pytest ended before its time, with exit code {result.exit_code}"
    return f"pytest's own exit code is {report.ended}: {tail(result.stderr)}" if report.ended else None


def _call_for(check: manifest.PytestCheck, task_folder: Path) -> PytestCall:
    """The call for a check: the configuration is the grader's or none, never one that lies elsewhere."""
    tests = PurePosixPath(check.tests).relative_to("grader")
    places = [folder / name for folder in (tests, *tests.parents) for name in CONFIGURATIONS]
    found = next((place for place in places if (task_folder / "grader" / place).is_file()), None)
    configuration = "/dev/null" if found is None else _in_grader(found)
    arguments = f'-q -c {configuration} --rootdir "$FBENCH_GRADER" --confcutdir "$FBENCH_GRADER" {_in_grader(tests)}'
    return PytestCall("python3", arguments, (check.tests,), check.pythonpath)


def _in_grader(path: PurePosixPath) -> str:
    """The path for bash."""
    return f'"$FBENCH_GRADER"/{shlex.quote(str(path))}'


def _names(body: Sequence[ast.stmt], inside: str = "") -> Iterator[str]:
    """Names of tests among statements: functions `test*`, and those of classes `Test*` that pytest would make."""
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name.startswith("test"):
                if not any("fixture" in ast.unparse(decorator) for decorator in statement.decorator_list):
                    yield f"{inside}{name}"
            case ast.ClassDef(name=name) if name.startswith("Test"):
                own = {part.name for part in statement.body if isinstance(part, ast.FunctionDef)}
                if "__init__" not in own and "__test__" not in ast.unparse(statement):
                    yield from _names(statement.body, f"{inside}{name}::")
            case _:
                pass


@cache
def _program() -> str:
    return files("fbench.judging").joinpath("pytest_inside.py").read_text(encoding="utf-8")
