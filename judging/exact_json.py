"""JSON as it was written: every number a Decimal, nothing overflowed, doubled keys refused.

Python's own parser turns `1e999` into infinity, refuses integers of more than 4,300 digits and keeps the last of two
equal keys. A grader may do none of that: it would judge another document than the one the agent wrote.
"""

import json
from decimal import Decimal, InvalidOperation
from typing import NoReturn, TypeAlias, Union

JsonValue: TypeAlias = Union[bool, str, Decimal, list["JsonValue"], dict[str, "JsonValue"], None]  # noqa: UP007 - recursive: `|` does not take the quoted name

_UTF8_BOM = "\ufeff"


class JsonRefused(ValueError):
    """The text is no JSON document that could be judged; the message says why, without naming the file."""


def parse_json(data: bytes | str) -> JsonValue:
    """The document in `data`; a UTF-8 byte order mark is skipped.

    `NaN`, `Infinity` and `-Infinity`, which are no JSON but which Python and others write, become Decimals that are
    not finite: whoever needs a finite number asks for it.

    Raises:
        JsonRefused: not UTF-8, not JSON, a key twice in one object, nested too deeply, a number beyond all measure.
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        msg = f"not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}"
        raise JsonRefused(msg) from None
    try:
        document: JsonValue = json.loads(
            text.removeprefix(_UTF8_BOM),
            parse_int=Decimal,
            parse_float=Decimal,
            parse_constant=Decimal,
            object_pairs_hook=_object_without_doubles,
        )
    except json.JSONDecodeError as error:
        msg = f"no JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise JsonRefused(msg) from None
    except RecursionError:
        msg = "nested too deeply"
        raise JsonRefused(msg) from None
    except InvalidOperation:
        msg = "a number has an exponent beyond all measure"
        raise JsonRefused(msg) from None
    return document


def type_name(value: JsonValue) -> str:
    """What JSON calls the value: `null`, `boolean`, `string`, `number`, `array` or `object`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, Decimal):
        return "number"
    return "array" if isinstance(value, list) else "object"


def a_type(value: JsonValue) -> str:
    """The same with its article: `null`, `a number`, `an array`."""
    name = type_name(value)
    return name if value is None else f"{'an' if name in {'array', 'object'} else 'a'} {name}"


def _object_without_doubles(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    document = dict(pairs)
    if len(document) != len(pairs):
        _refuse_doubles(pairs)
    return document


def _refuse_doubles(pairs: list[tuple[str, JsonValue]]) -> NoReturn:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            msg = f"the key {key[:80]!r} stands twice in one object, so its value is ambiguous"
            raise JsonRefused(msg)
        seen.add(key)
    raise AssertionError(pairs)
