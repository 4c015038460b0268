"""Everything that is wrong with a manifest at once, and what of it could be resolved all the same.

Pydantic stops at the rules of a model when one of its keys is wrong. Here the models are walked key by key: each
value is checked by its field's own validator, each model's rules by the values that hold. What passes here passes
`TaskManifest.model_validate` and the other way round; a test holds the two together.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from fbench.tasks.checks import CheckBase, Frozen, OutsideCheck
from fbench.tasks.manifest import CHECK_MODELS, Grader, TaskManifest
from fbench.tasks.outside import TypeUnusable, is_outside_type, outside_model, outside_types
from fbench.tasks.wording import Saying, nearest, say, unknown_key, unknown_type, wrong_shape
from fbench.tasks.yaml_lines import Document, Finding, Path


@dataclass(slots=True)
class Diagnosis:
    """The findings, the values that hold (as Python values), and the same as they are written to a file."""

    findings: list[Finding] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    resolved: dict[str, Any] = field(default_factory=dict)


def diagnose(document: Document, model: type[Frozen] = TaskManifest) -> Diagnosis:
    """Walk the whole document as a manifest: that of a task, or another that is made of `Frozen` models, too."""
    walker = _Walker(document, model)
    diagnosis = Diagnosis()
    if isinstance(document.data, dict):
        diagnosis.values, diagnosis.resolved = walker.model(model, document.data, ())
    else:
        needed = [key for key, info in model.model_fields.items() if info.is_required()]
        words = f"a mapping of keys like `{needed[0]}:` and `{needed[-1]}:`"
        walker.find((), wrong_shape(words, document.data, None))
    diagnosis.findings = walker.findings
    return diagnosis


class _Absent:
    """Stands for a value that does not hold."""


_ABSENT = _Absent()


class _Walker:
    def __init__(self, document: Document, root: type[Frozen]) -> None:
        self.document = document
        self._root = root
        self.findings: list[Finding] = list(document.findings)
        self._faulty = {finding.path for finding in document.findings}

    def find(self, path: Path, saying: Saying) -> None:
        self.findings.append(Finding(self.document.line_of(path), path, saying.message, saying.hint))

    def model(
        self, model: type[Frozen], data: Mapping[str, Any], path: Path, *, known: Sequence[str] = ()
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The values of a model that hold, and the same as written; `known`: the keys that may stand there, when
        they are more than its own."""
        fields = model.model_fields
        valid = list(known or fields)
        unknown = [key for key in data if key not in valid]
        for key in unknown:
            self.find((*path, key), unknown_key(key, valid, [] if nearest(key, valid) else _homes(key, self._root)))
        misspelt = {nearest(key, valid) for key in unknown}
        values: dict[str, Any] = {}
        resolved: dict[str, Any] = {}
        filled = model.fill(data)
        for key, info in fields.items():
            if key in filled:
                value, shown = self._field(model, key, filled[key], (*path, key))
            elif not info.is_required():
                value, shown = self._default(model, key, (*path, key))
                if key in misspelt:  # what was meant is not known, so no rule can judge it
                    resolved[key] = shown
                    continue
            else:
                if key not in misspelt:
                    self.find((*path, key), Saying("is required, but missing", _what_to_add(model, key)))
                continue
            if value is not _ABSENT:
                values[key], resolved[key] = value, shown
        for rule in model.rules(values):
            self.find((*path, *rule.path), Saying(rule.message))
        return values, resolved

    def _default(self, model: type[Frozen], key: str, path: Path) -> tuple[Any, Any]:
        default = model.model_fields[key].get_default(call_default_factory=True)
        if isinstance(default, Frozen):
            return self.model(type(default), {}, path)
        return default, _adapter(model, key).dump_python(default, mode="json")

    def _field(self, model: type[Frozen], key: str, data: Any, path: Path) -> tuple[Any, Any]:  # noqa: ANN401 - a value
        annotation = _without_none(model.model_fields[key].annotation)
        if model is Grader and key == "checks":
            return self._checks(data, path)
        if isinstance(annotation, type) and issubclass(annotation, Frozen):
            if isinstance(data, dict):
                return self.model(annotation, data, path)
            if data is None and _is_optional(model.model_fields[key]):
                return None, None
            self.find(path, wrong_shape("a mapping", data, self._written(path)))
            return _ABSENT, None
        if get_origin(annotation) is not None and _maps_to_models(annotation):
            return self._models_by_name(annotation, data, path)
        return self._leaf(_adapter(model, key), data, path)

    def _models_by_name(self, annotation: Any, data: Any, path: Path) -> tuple[Any, Any]:  # noqa: ANN401 - a type form
        name_type, model = get_args(annotation)
        if not isinstance(data, dict):
            self.find(path, wrong_shape("a mapping", data, self._written(path)))
            return _ABSENT, None
        values: dict[str, Any] = {}
        resolved: dict[str, Any] = {}
        for name, content in data.items():
            inner = (*path, name)
            if self._leaf(_name_adapter(name_type), name, inner)[0] is _ABSENT:
                continue
            if isinstance(content, dict):
                values[name], resolved[name] = self.model(model, content, inner)
            else:
                self.find(inner, wrong_shape("a mapping", content, self._written(inner)))
        return values, resolved

    def _checks(self, data: Any, path: Path) -> tuple[Any, Any]:  # noqa: ANN401 - whatever the file holds
        if not isinstance(data, list):
            self.find(path, wrong_shape("a list", data, self._written(path)))
            return _ABSENT, None
        if not data:
            self.find(path, Saying("must not be empty", "a task needs a check that tells solved from not solved"))
        values: list[Any] = []
        resolved: list[Any] = []
        for position, check in enumerate(data):
            value, shown = self._check(check, (*path, position))
            values.append(value)
            resolved.append(shown)
        return values, resolved

    def _check(self, data: Any, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ANN401 - as above
        if not isinstance(data, dict):
            self.find(path, wrong_shape("a mapping", data, self._written(path)))
            return {}, {}
        given = data.get("type")
        model = CHECK_MODELS.get(given) if isinstance(given, str) else None
        if model is not None:
            return self.model(model, data, path)
        if isinstance(given, str) and is_outside_type(given):
            try:
                return self._outside(outside_model(given), data, path)
            except TypeUnusable as error:
                self.find((*path, "type"), Saying(str(error)))
                return {}, {}
        # Which of its keys go with the type is not known; those that no check has are wrong all the same.
        known = list(dict.fromkeys(key for check in CHECK_MODELS.values() for key in check.model_fields))
        types = [*CHECK_MODELS, *(name for name in outside_types() if name not in CHECK_MODELS)]
        if "type" in data:
            self.find((*path, "type"), unknown_type(given, types, self._written((*path, "type"))))
        elif "type" not in {nearest(key, known) for key in data if key not in known}:
            hint = f"add `type:`; allowed: {', '.join(types)}"
            self.find((*path, "type"), Saying("is required, but missing", hint))
        return self.model(CheckBase, data, path, known=known)

    def _outside(
        self, model: type[OutsideCheck], data: Mapping[str, Any], path: Path
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A check read by a package's model, by whatever validators it has: as a whole, and not key by key."""
        try:
            check = model.model_validate(data)
        except ValidationError as error:
            for details in error.errors():
                place = (*path, *details["loc"])
                if details["type"] == "extra_forbidden":
                    self.find(place, unknown_key(str(place[-1]), list(model.model_fields)))
                elif details["type"] == "missing":
                    self.find(place, Saying("is required, but missing", f"add `{place[-1]}:`"))
                else:
                    self.find(place, say(details, self._written(place)))
            return {}, {}
        return dict(check), check.model_dump(mode="json")

    def _leaf(self, adapter: TypeAdapter[Any], data: Any, path: Path) -> tuple[Any, Any]:  # noqa: ANN401 - as above
        try:
            value = adapter.validate_python(data)
        except ValidationError as error:
            for details in error.errors():
                inner = tuple(part for part in details["loc"] if part != "[key]")
                place = (*path, *inner)
                if place not in self._faulty:
                    self.find(place, say(details, self._written(place)))
            return _ABSENT, None
        return value, adapter.dump_python(value, mode="json")

    def _written(self, path: Path) -> str | None:
        place = self.document.places.get(path)
        return place.written if place else None


@cache
def _adapter(model: type[Frozen], key: str) -> TypeAdapter[Any]:
    info = model.model_fields[key]
    annotation: Any = info.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return TypeAdapter(annotation)
    annotated: Any = Annotated[annotation, info]  # made while running, so no type checker can follow
    return TypeAdapter(annotated, config=ConfigDict(strict=True))


@cache
def _name_adapter(name_type: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - a type form
    return TypeAdapter(name_type, config=ConfigDict(strict=True))


def _without_none(annotation: Any) -> Any:  # noqa: ANN401 - a type form
    if get_origin(annotation) in {Union, UnionType}:
        rest = [part for part in get_args(annotation) if part is not NoneType]
        return rest[0] if len(rest) == 1 else annotation
    return annotation


def _is_optional(info: FieldInfo) -> bool:
    return NoneType in get_args(info.annotation)


def _maps_to_models(annotation: Any) -> bool:  # noqa: ANN401 - a type form
    """Whether the type form is a mapping whose values are models."""
    arguments = get_args(annotation)
    return get_origin(annotation) is Mapping and isinstance(arguments[1], type) and issubclass(arguments[1], Frozen)


def _homes(key: str, root: type[Frozen]) -> list[str]:
    """The places of the manifest where the key is known, outermost first."""
    return [f"`{place}`" for place in dict.fromkeys(_places(root, "")) if place.split(".")[-1] == key][:3]


def _places(model: type[Frozen], prefix: str) -> Iterator[str]:
    for key, info in model.model_fields.items():
        place = f"{prefix}{key}"
        yield place
        annotation = _without_none(info.annotation)
        if key == "checks":
            for check in CHECK_MODELS.values():
                yield from _places(check, f"{place}[].")
        elif isinstance(annotation, type) and issubclass(annotation, Frozen):
            yield from _places(annotation, f"{place}.")
        elif get_origin(annotation) is not None and _maps_to_models(annotation):
            yield from _places(get_args(annotation)[1], f"{place}.<name>.")


def _what_to_add(model: type[Frozen], key: str) -> str:
    allowed = get_args(model.model_fields[key].annotation)
    if allowed and all(isinstance(word, str) for word in allowed):
        return f"add `{key}:`; allowed: {', '.join(allowed)}"
    return f"add `{key}:`"
