"""Small YAML files as frozen pydantic models, every problem named with its line, key and what to write instead."""

from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from fbench.tasks.errors import Problem
from fbench.tasks.loading import dotted
from fbench.tasks.wording import say, unknown_key
from fbench.tasks.yaml_lines import UnreadableYaml, read_yaml

Model = TypeVar("Model", bound=BaseModel)
KeyPath = tuple[str | int, ...]


class Faulty(Exception):
    """A file that is not as its model wants it; `problems` stand in the order of their lines."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: problem.line or 0)
        super().__init__("\n".join(map(str, self.problems)))


def read_model(kind: type[Model], text: str, file: str, *, lines_before: int = 0) -> Model:
    """What the YAML in `text` says. `file` is named in problems, whose lines count from `lines_before`.

    Raises:
        Faulty: it is no YAML, or does not fit.
    """
    try:
        document = read_yaml(text)
    except UnreadableYaml as error:
        raise Faulty([Problem(file, (error.line or 1) + lines_before, "", error.message, error.hint)]) from None
    problems = {
        Problem(file, finding.line + lines_before, dotted(finding.path), finding.message, finding.hint): None
        for finding in document.findings
    }
    try:
        value = kind.model_validate(document.data)
    except ValidationError as error:
        found = error.errors(include_url=False)
        for item in found:
            where: KeyPath = item["loc"]
            if item["type"] == "too_short" and any(len(other["loc"]) > len(where) for other in found):
                continue  # pydantic counts the items that are valid
            if item["type"] == "extra_forbidden":
                message, hint = unknown_key(str(where[-1]), valid_keys(kind, where))
            elif item["type"] == "missing":
                message, hint = "is missing", ""
            else:
                place = document.places.get(where)
                message, hint = say(item, place.written if place else None)
            problems[Problem(file, document.line_of(where) + lines_before, dotted(where), message, hint)] = None
    else:
        if not problems:
            return value
    raise Faulty(list(problems))


def valid_keys(kind: type[BaseModel], path: KeyPath) -> list[str]:
    """The keys that may stand where the last of `path` stands, in a file that is read as `kind`."""
    for part in path[:-1]:
        field = kind.model_fields.get(str(part))
        if field is not None and (inner := _model_in(field.annotation)) is not None:
            kind = inner
    return list(kind.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - a type form
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
