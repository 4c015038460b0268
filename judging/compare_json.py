"""JSON documents compared as trees, without recursion: a document may be nested as deeply as the parser reads."""

from collections.abc import Iterator
from decimal import Decimal
from typing import TypeAlias

from fbench.judging.closeness import Closeness, show_number
from fbench.judging.differences import Comparison, ReferenceRefused, fold, most_rows, off_by, quote
from fbench.judging.exact_json import JsonRefused, JsonValue, parse_json, type_name
from fbench.judging.matching import Row, match_rows
from fbench.tasks.manifest import Tolerance

_Step: TypeAlias = "tuple[str, JsonValue, JsonValue] | str"  # a place with both values, or a difference in words


def compare_json(expected: bytes, got: bytes, tolerance: Tolerance) -> Comparison:
    """What differs between two documents, each place named by its path (`$.a[2].b`).

    Types must be equal: a boolean is no number, but `1` is `1.0`. The order of an object's keys does not count.
    `NaN` and the infinities, which Python writes though JSON has none, equal themselves; with `nan_is_empty` NaN is
    null. An object with a key twice
    is ambiguous and equals nothing.
    """
    try:
        ours = parse_json(expected)
    except JsonRefused as error:
        raise ReferenceRefused(str(error)) from None
    try:
        theirs = parse_json(got)
    except JsonRefused as error:
        return Comparison.refused(f"the output is {error}")
    closeness = Closeness.of(tolerance)
    if tolerance.ignore_row_order and isinstance(ours, list) and isinstance(theirs, list):
        if len(theirs) > most_rows(len(ours)):
            return Comparison.refused(f"$: expected {len(ours)} elements, got {len(theirs)}")
        return Comparison.of(_unordered(ours, theirs, tolerance, closeness), f"{len(ours)} elements in any order")
    return Comparison.of(_differences(ours, theirs, tolerance, closeness), _size(ours))


def _size(value: JsonValue) -> str:
    if isinstance(value, list):
        return f"an array of {len(value)} elements"
    return f"an object of {len(value)} keys" if isinstance(value, dict) else f"a {type_name(value)}"


def _differences(expected: JsonValue, got: JsonValue, tolerance: Tolerance, closeness: Closeness) -> Iterator[str]:
    """All differences in the reference's order, depth first."""
    stack: list[_Step] = [("$", expected, got)]
    while stack:
        entry = stack.pop()
        if isinstance(entry, str):
            yield entry
            continue
        path, ours, theirs = entry
        if isinstance(ours, dict) and isinstance(theirs, dict):
            below = _below_object(path, ours, theirs)
        elif isinstance(ours, list) and isinstance(theirs, list):
            below = _below_array(path, ours, theirs)
        else:
            below = [text] if (text := _leaf(path, ours, theirs, tolerance, closeness)) else []
        stack.extend(reversed(below))


def _below_object(path: str, ours: dict[str, JsonValue], theirs: dict[str, JsonValue]) -> list[_Step]:
    below: list[_Step] = []
    for key, value in ours.items():
        place = _shorten(f"{path}.{key}" if key.isidentifier() else f"{path}[{quote(key)}]")
        if key in theirs:
            below.append((place, value, theirs[key]))
        else:
            below.append(f"{place}: missing, expected {show(value)}")
    below.extend(f"{path}: the key {quote(key)} is not in the reference" for key in theirs if key not in ours)
    return below


def _below_array(path: str, ours: list[JsonValue], theirs: list[JsonValue]) -> list[_Step]:
    below: list[_Step] = []
    if len(ours) != len(theirs):
        below.append(f"{path}: expected {len(ours)} elements, got {len(theirs)}")
    pairs = zip(ours, theirs, strict=False)
    below.extend((_shorten(f"{path}[{at}]"), one, other) for at, (one, other) in enumerate(pairs))
    return below


def _without_nan(value: JsonValue, tolerance: Tolerance) -> JsonValue:
    return None if tolerance.nan_is_empty and isinstance(value, Decimal) and value.is_nan() else value


def _leaf(path: str, expected: JsonValue, got: JsonValue, tolerance: Tolerance, closeness: Closeness) -> str | None:
    expected, got = _without_nan(expected, tolerance), _without_nan(got, tolerance)
    if isinstance(expected, Decimal) and isinstance(got, Decimal):
        if closeness.holds(expected, got):
            return None
        return f"{path}: expected {show_number(expected)}, got {show_number(got)}{off_by(expected, got)}"
    if type(expected) is not type(got):
        return f"{path}: expected {_with_type(expected)}, got {_with_type(got)}"
    if isinstance(expected, str) and isinstance(got, str):
        is_equal = fold(expected, tolerance) == fold(got, tolerance)
    else:
        is_equal = expected == got
    return None if is_equal else f"{path}: expected {show(expected)}, got {show(got)}"


def _with_type(value: JsonValue) -> str:
    return "null" if value is None else f"the {type_name(value)} {show(value)}"


def show(value: JsonValue) -> str:
    """The value for a sentence: a leaf as JSON writes it, an array or object by its size."""
    if isinstance(value, list | dict):
        return f"{{{len(value)} keys}}" if isinstance(value, dict) else f"[{len(value)} elements]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return show_number(value) if isinstance(value, Decimal) else quote(value)


def _shorten(path: str) -> str:
    """A path for a sentence; it must not grow with the depth, or deep documents would cost their depth squared."""
    return path if len(path) <= 200 else f"$...{path[-150:]}"  # noqa: PLR2004 - some lines of a terminal


def _unordered(
    ours: list[JsonValue], theirs: list[JsonValue], tolerance: Tolerance, closeness: Closeness
) -> Iterator[str]:
    unmatched = match_rows([_row(value, tolerance) for value in ours], [_row(v, tolerance) for v in theirs], closeness)
    if len(ours) != len(theirs):
        yield f"$: expected {len(ours)} elements, got {len(theirs)}"
    if len(unmatched.missing) == len(unmatched.extra) == 1:
        expected, got = ours[unmatched.missing[0]], theirs[unmatched.extra[0]]
        for text in _differences(expected, got, tolerance, closeness):
            yield f"$[{unmatched.extra[0]}]{text.removeprefix('$')}"
        return
    for index in unmatched.missing:
        yield f"element {index} of the reference has no match: {show(ours[index])}"
    for index in unmatched.extra:
        yield f"element {index} of the output is not in the reference: {show(theirs[index])}"


def _row(value: JsonValue, tolerance: Tolerance) -> Row:
    """The tree as one flat run of marks: equal for two trees exactly when they differ in finite numbers only."""
    shape: list[str] = []
    numbers: list[Decimal] = []
    stack: list[JsonValue | tuple[str]] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, tuple):
            shape.append(item[0])
            continue
        item = _without_nan(item, tolerance)
        if isinstance(item, dict):
            stack.append(("}",))
            for key in sorted(item, reverse=True):
                stack += (item[key], ("k" + key,))
            stack.append(("{",))
        elif isinstance(item, list):
            stack += (("]",), *reversed(item), ("[",))
        elif isinstance(item, Decimal) and item.is_finite():
            shape.append("#")
            numbers.append(item)
        else:
            shape.append("s" + fold(item, tolerance) if isinstance(item, str) else "v" + str(item))
    return Row(tuple(shape), tuple(numbers))
