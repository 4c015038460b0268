"""What can be wrong with a task. Each class owns its exit code; texts name the file, the line and the remedy.

TaskError              the task cannot be used (exit code 2)
├── ManifestError      its folder or task.yaml breaks rules; lists all of them
└── UnknownTask        nothing answers to the name
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        file: the file to open, as the user named its folder.
        line: 1-based line in it; None when the problem is of the file or folder as a whole.
        key: dotted path such as `grader.checks[2].threshold`; empty when no key is to blame.
        message: what is wrong.
        hint: what to do about it; may be empty.
    """

    file: str
    line: int | None
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        text = f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"
        return f"{text}; {self.hint}" if self.hint else text


class TaskError(Exception):
    """A task cannot be used as it is."""

    exit_code: ClassVar[int] = 2


class ManifestError(TaskError):
    """A task breaks rules; `problems` holds every one found, in the order of lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type["ManifestError"], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


class UnknownTask(TaskError):
    """No task has this name; `near` holds ids that look like it."""

    def __init__(self, ref: str, known: Sequence[str]) -> None:
        self.ref = ref
        self.known = tuple(known)
        self.near = tuple(get_close_matches(ref.strip().lower().replace("-", "_"), known, n=3, cutoff=0.5))
        if self.near:
            advice = f"did you mean {' or '.join(map(repr, self.near))}?"
        elif known:
            advice = f"built-in tasks: {', '.join(known)}"
        else:
            advice = "no built-in task was found"
        text = f"unknown task {ref!r}: neither a folder with a task.yaml nor the id of a task; {advice}"
        super().__init__(f"{text} (`fbench list-tasks` shows all)")

    def __reduce__(self) -> tuple[type["UnknownTask"], tuple[str, tuple[str, ...]]]:
        return type(self), (self.ref, self.known)
