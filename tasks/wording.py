"""Plain sentences for what is wrong with one value: what was expected, what was found, what to write instead."""

import datetime as dt
import re
from decimal import Decimal
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from fbench.tasks.values import shorten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

_NUMBER = re.compile(r"[-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?")
_MAX_PLAIN_DIGITS = 15
_MAX_QUOTED = 40
_BOOLEANS = {"true", "yes", "on", "y", "t", "1"}, {"false", "no", "off", "n", "f", "0"}


class Saying(NamedTuple):
    """What is wrong, and what to do."""

    message: str
    hint: str = ""


def say(error: "ErrorDetails", written: str | None) -> Saying:
    """The error of one value in plain words; `written` is the value's text in the file when it stands unquoted."""
    kind, value = error["type"], _plain(error["input"])
    context: Mapping[str, Any] = error.get("ctx") or {}
    if kind in {"value_error", "assertion_error"}:
        return Saying(str(context.get("error", error["msg"])))
    if kind == "literal_error":
        return Saying(*_not_allowed(value, re.findall(r"'((?:[^'\\]|\\.)*)'", str(context.get("expected", "")))))
    if (expected := _EXPECTED.get(kind)) is not None:
        found = describe(value, written)
        return Saying(f"must be {expected}, found {found}", _hint(expected, value, written))
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return Saying(f"{shorten(value)} is out of range: must be {words} {float(context[name]):.15g}")
    if kind in _SENTENCES:
        return Saying(_SENTENCES[kind].format(found=describe(value, written)))
    return Saying(f"{error['msg'][:1].lower()}{error['msg'][1:]}, found {describe(value, written)}")


def unknown_key(key: str, valid: "Sequence[str]", elsewhere: "Sequence[str]" = ()) -> Saying:
    """What to say of a key that is not known where it stands; `elsewhere` are the places where it is."""
    listed = f"valid keys here: {', '.join(valid)}"
    if close := nearest(key, valid):
        return Saying("unknown key", f"did you mean {close!r}? {listed}")
    if elsewhere:
        return Saying("unknown key", f"it belongs to {' or '.join(elsewhere)}; {listed}")
    return Saying("unknown key", listed)


def unknown_type(value: object, allowed: "Sequence[str]", written: str | None) -> Saying:
    """What to say of a check whose `type` is none."""
    if not isinstance(value, str):
        return Saying(
            f"must be the type of a check, found {describe(value, written)}", f"allowed: {', '.join(allowed)}"
        )
    return Saying(*_not_allowed(value, allowed))


def wrong_shape(expected: str, value: object, written: str | None) -> Saying:
    """What to say of a value that is no mapping or no list, as `expected` names it."""
    return Saying(f"must be {expected}, found {describe(value, written)}", _hint(expected, value, written))


def nearest(word: str, known: "Sequence[str]") -> str | None:
    """The one of `known` that was probably meant."""
    if swapped := [name for name in known if sorted(name) == sorted(word)]:
        return swapped[0]
    close = get_close_matches(word.strip().lower().replace("-", "_"), known, n=1, cutoff=0.6)
    return close[0] if close else None


def describe(value: object, written: str | None) -> str:
    """The value in a few words, as its author would recognise it."""
    if value is None:
        return written or "nothing"
    if isinstance(value, bool):
        name = "true" if value else "false"
        return f"the boolean {name}" if written in {None, name} else f"the boolean {name} (as YAML reads {written})"
    if isinstance(value, int | float):
        return f"the number {shorten(written or repr(value)).strip(chr(39))}"
    if isinstance(value, dt.date):
        return f"a date (as YAML reads {written or value})"
    if isinstance(value, str):
        return f"the text {shorten(value)}"
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) else shorten(value)


_TEXT, _WHOLE, _ANY_NUMBER, _BOOLEAN = "a text", "a whole number", "a number", "true or false"
_LIST, _MAPPING = "a list", "a mapping"
_EXPECTED = {
    "string_type": _TEXT,
    "int_type": _WHOLE,
    "int_from_float": _WHOLE,
    "int_parsing": _WHOLE,
    "float_type": _ANY_NUMBER,
    "float_parsing": _ANY_NUMBER,
    "decimal_type": _ANY_NUMBER,
    "decimal_parsing": _ANY_NUMBER,
    "is_instance_of": _ANY_NUMBER,
    "bool_type": _BOOLEAN,
    "tuple_type": _LIST,
    "list_type": _LIST,
    "dict_type": _MAPPING,
    "mapping_type": _MAPPING,
    "model_type": _MAPPING,
}
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
_SENTENCES = {
    "finite_number": "must be a finite number, found {found}",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "string_unicode": "holds characters that are no valid text",
}


def _not_allowed(value: object, allowed: "Sequence[str]") -> tuple[str, str]:
    close = nearest(value, allowed) if isinstance(value, str) else None
    listed = f"allowed: {', '.join(allowed)}"
    return f"{shorten(value)} is not allowed", f"did you mean {close!r}? {listed}" if close else listed


def _plain(value: object) -> object:
    """The number as its author wrote it: money comes as Decimal."""
    if not isinstance(value, Decimal):
        return value
    return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)


def _hint(expected: str, value: object, written: str | None) -> str:
    if expected == _TEXT:
        return _hint_for_text(value, written)
    if expected in {_WHOLE, _ANY_NUMBER}:
        return _hint_for_number(value, written, is_whole=expected == _WHOLE)
    if expected == _BOOLEAN:
        word = str(value).strip().lower()
        if word in _BOOLEANS[0]:
            return "write true, without quotes"
        return "write false, without quotes" if word in _BOOLEANS[1] else ""
    if value is None:
        return "write it out, or leave the key out"
    if expected == _LIST and not isinstance(value, dict):
        return f"write [{written or value}]" if len(written or str(value)) <= _MAX_QUOTED else ""
    return ""


def _hint_for_text(value: object, written: str | None) -> str:
    if value is None:
        return "write a text, or leave the key out"
    if isinstance(value, bool | int | float | dt.date) and len(written or "") <= _MAX_QUOTED:
        return f'put it in quotes: "{written or value}"'
    return ""


def _hint_for_number(value: object, written: str | None, *, is_whole: bool) -> str:
    if value is None:
        return "write a number, or leave the key out"
    if isinstance(value, float):
        return f"write {value:.0f}" if value.is_integer() and abs(value) < 10**_MAX_PLAIN_DIGITS else ""
    if not isinstance(value, str):
        return ""
    bare = value.strip().replace("_", "").replace(",", "")
    if not _NUMBER.fullmatch(bare):
        return "write the plain number, without a unit" if bare[:1].isdigit() else ""
    number = float(bare)
    if abs(number) >= 10**_MAX_PLAIN_DIGITS:
        return "write the number out"
    if not number.is_integer():
        return "" if is_whole else f"write {number}"
    if written is None:
        return f"write {number:.0f}, without quotes"
    return f"write {number:.0f}" + (
        " (YAML reads an exponent only after a decimal point)" if "e" in bare.lower() else ""
    )
