"""A suite's manifest: which tasks, with which models, and the settings they share."""

import difflib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from fbench.engine.errors import UnknownNameError, UsageError
from fbench.engine.sandbox_kinds import AskedSandbox
from fbench.tasks.checks import BrokenRule, Frozen
from fbench.tasks.diagnosis import diagnose
from fbench.tasks.errors import Problem
from fbench.tasks.loading import dotted
from fbench.tasks.values import Money, Name, matching, not_blank
from fbench.tasks.yaml_lines import Document, UnreadableYaml, read_yaml

MAX_MANIFEST_BYTES = 1_000_000
EVERY_BUILT_IN = "all"

_SLUG = "at most 100 lower-case letters, digits and '_'"
_Ref = Annotated[str, AfterValidator(not_blank)]
_Count = Annotated[int, Field(gt=0)]
_Texts = Annotated[tuple[_Ref, ...], Field(strict=False)]


class SuiteError(UsageError):
    """A suite's manifest breaks rules; every problem stands on a line of its own."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, problems)))


class Filter(Frozen):
    """Which of the tasks stay: those that answer to every key given. `tags` wants one of them at least; `services`
    is whether a task needs any, or an open network."""

    difficulty: Annotated[tuple[Literal["easy", "medium", "hard"], ...], Field(strict=False)] = ()
    domain: _Texts = ()
    tags: _Texts = ()
    services: bool | None = None


class RunBudget(Frozen):
    """Caps of one run over those of its task; None leaves the task's."""

    tokens: Annotated[int, Field(ge=0)] | None = None
    tool_calls: Annotated[int, Field(ge=0)] | None = None
    wall_time_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    cost_usd: Money | None = None
    turns: _Count | None = None


class SuiteBudget(RunBudget):
    """Caps of each run, and one on what all runs spend together."""

    suite_cost_usd: Money | None = None


class AskedOfModels(Frozen):
    """What is asked of the models over what the task asks; None leaves the task's."""

    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    reasoning_effort: Name | None = None
    max_output_tokens: _Count | None = None


class Override(Frozen):
    """What differs for one task."""

    attempts: _Count | None = None
    sandbox: AskedSandbox | None = None
    budget: RunBudget = RunBudget()
    model: AskedOfModels = AskedOfModels()


class SuiteManifest(Frozen):
    """A whole suite file. `tasks` are ids, patterns of ids, `all`, or paths and patterns of paths (they hold a `/`)
    relative to the file."""

    id: Annotated[str, matching(r"[a-z0-9_]{1,100}", _SLUG)]
    title: str = ""
    description: str = ""
    tasks: Annotated[tuple[_Ref, ...], Field(strict=False, min_length=1)]
    exclude: _Texts = ()
    filter: Filter = Filter()
    models: _Texts = ()
    sandbox: AskedSandbox | None = None
    concurrency: _Count | None = None
    attempts: _Count | None = None
    budget: SuiteBudget = SuiteBudget()
    model: AskedOfModels = AskedOfModels()
    overrides: Mapping[Annotated[str, matching(r"[a-z0-9_]{1,100}", _SLUG)], Override] = Field(default_factory=dict)

    @classmethod
    def rules(cls, values: Mapping[str, Any]) -> Iterator[BrokenRule]:
        models = values.get("models", ())
        for position, model in enumerate(models):
            if model in models[:position]:
                yield BrokenRule(("models", position), f"the model {model!r} is listed twice")


@dataclass(frozen=True, slots=True)
class LoadedSuite:
    """A manifest that obeys its rules, where it stands, and the lines of its keys."""

    manifest: SuiteManifest
    path: Path
    digest: str
    document: Document

    def problem(self, at: tuple[str | int, ...], message: str, hint: str = "") -> Problem:
        """A problem at a key of the file."""
        return Problem(str(self.path), self.document.line_of(at), dotted(at), message, hint)


def builtin_suites() -> list[Path]:
    """The files of the suites that come with fbench, sorted by name."""
    root = files("fbench.suites")
    if not isinstance(root, Path):
        msg = "fbench is installed in an archive, where its suites cannot be used; install it into a folder"
        raise UsageError(msg)
    return sorted(root.glob("*.yaml"))


def find_suite(ref: str) -> Path:
    """The file of a suite: a path, or a built-in suite's name.

    Raises:
        UnknownNameError: nothing answers to it.
    """
    path = Path(ref)
    if ref.strip() and "\0" not in ref and path.is_file():
        return path
    known = {found.stem: found for found in builtin_suites()}
    if ref in known:
        return known[ref]
    near = difflib.get_close_matches(ref.strip().lower().replace("-", "_"), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"built-in suites: {', '.join(known)}"
    msg = f"no suite {ref!r}: neither a file nor the name of a built-in suite; {hint} (`fbench suite list` shows all)"
    raise UnknownNameError(msg)


def load_suite(path: Path) -> LoadedSuite:
    """The suite in a file.

    Raises:
        SuiteError: it cannot be read or breaks rules; every problem is listed with its line.
    """
    shown = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError([Problem(shown, None, "", f"cannot be read as a text in UTF-8: {error}")]) from error
    if len(data) > MAX_MANIFEST_BYTES:
        raise SuiteError([Problem(shown, None, "", f"is larger than {MAX_MANIFEST_BYTES} bytes")])
    try:
        document = read_yaml(text)
    except UnreadableYaml as error:
        raise SuiteError([Problem(shown, error.line, "", error.message, error.hint)]) from error
    findings = sorted(diagnose(document, SuiteManifest).findings, key=lambda finding: finding.line)
    if findings:
        raise SuiteError([Problem(shown, item.line, dotted(item.path), item.message, item.hint) for item in findings])
    manifest = SuiteManifest.model_validate(document.data)
    return LoadedSuite(manifest, path, f"sha256:{hashlib.sha256(data).hexdigest()}", document)
