"""A rubric: a Markdown file that says what a judge looks at and by which criteria it scores.

Between two lines `---` at its start stand the settings as YAML; what follows is guidance for the judge, in prose. A
file without settings is one criterion, which all of it describes.
"""

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from fbench.engine.errors import UsageError
from fbench.tasks.manifest import LlmRubric, TaskManifest
from fbench.tasks.values import InsidePath, not_blank
from fbench.tasks.yaml_models import Faulty, read_model

MAX_RUBRIC_BYTES = 256 * 1024
WHOLE = "overall"
"""The one criterion of a rubric without settings."""

_FENCE = "---"
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Criterion(_Frozen):
    """One thing that is scored, from 0 to 1; `text` says what earns how much."""

    id: str
    text: str
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    @field_validator("id")
    @classmethod
    def _is_id(cls, value: str) -> str:
        if not _ID.fullmatch(value):
            msg = "must be at most 64 letters, digits, '_' and '-'"
            raise ValueError(msg)
        return value

    @field_validator("text")
    @classmethod
    def _says_something(cls, value: str) -> str:
        return not_blank(value)


class Settings(_Frozen):
    """What stands at a rubric's start.

    Attributes:
        artifacts: files of the final workspace that the judge sees, as globs.
        diff: whether it sees what the agent changed.
        transcript: whether it sees what the agent said and did.
        threshold: the score from which the check is `passed`; the score itself counts either way.
    """

    criteria: Annotated[tuple[Criterion, ...], Field(strict=False, min_length=1)]
    artifacts: Annotated[tuple[InsidePath, ...], Field(strict=False)] = ()
    diff: bool = True
    transcript: bool = False
    threshold: Annotated[float, Field(gt=0, le=1)] = 1.0

    @field_validator("criteria")
    @classmethod
    def _ids_differ(cls, value: tuple[Criterion, ...]) -> tuple[Criterion, ...]:
        ids = [criterion.id for criterion in value]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            msg = f"two criteria have the id {twice[0]!r}"
            raise ValueError(msg)
        return value


class Rubric(_Frozen):
    """A whole rubric."""

    settings: Settings
    guidance: str


def load_rubric(task_folder: Path, name: str) -> Rubric:
    """The rubric in a file of the task. Blocking.

    Raises:
        UsageError: it cannot be read, or is wrong; every problem is named with its line and key.
    """
    path = task_folder / name
    try:
        with path.open("rb") as file:
            data = file.read(MAX_RUBRIC_BYTES + 1)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"the rubric {path} cannot be read: {error}"
        raise UsageError(msg) from error
    if len(data) > MAX_RUBRIC_BYTES:
        msg = f"the rubric {path} is longer than {MAX_RUBRIC_BYTES} bytes, which no judge would read with care"
        raise UsageError(msg)
    return parse_rubric(text, str(path))


def parse_rubric(text: str, file: str) -> Rubric:
    """The rubric in `text`; `file` is named in problems. Raises UsageError as load_rubric does."""
    lines = text.splitlines()
    if not lines or lines[0].rstrip() != _FENCE:
        if not text.strip():
            msg = f"the rubric {file} is empty: describe what the judge should look at"
            raise UsageError(msg)
        return Rubric(settings=Settings(criteria=(Criterion(id=WHOLE, text=text.strip()),)), guidance="")
    end = next((at for at, line in enumerate(lines[1:], start=1) if line.rstrip() == _FENCE), None)
    if end is None:
        msg = f"{file}:1: the settings between the lines `---` have no end; close them with another `---`"
        raise UsageError(msg)
    try:
        settings = read_model(Settings, "\n".join(lines[1:end]) + "\n", file, lines_before=1)
    except Faulty as faulty:
        raise UsageError(str(faulty)) from None
    return Rubric(settings=settings, guidance="\n".join(lines[end + 1 :]).strip())


def check_rubrics(task_folder: Path, manifest: TaskManifest) -> None:
    """See before a run that each of its rubrics can be used. Raises UsageError."""
    for check in manifest.grader.checks:
        if isinstance(check, LlmRubric):
            load_rubric(task_folder, check.rubric)
