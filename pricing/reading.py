"""Read a price file: YAML whose numbers stay exact decimals and whose keys know their line."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml

from fbench.pricing.errors import PricingError

MAX_FILE_BYTES = 16 * 1024 * 1024
"""Far above any price list; a wrong path (a data set, a device) is told instead of read."""

_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|(?=\.))(?:\.[0-9]*)?(?:[eE][-+]?[0-9]{1,3})?")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

KeyPath = tuple[str | int, ...]


class Document(NamedTuple):
    """A read file: its value, and the 1-based line of each key path in it."""

    value: Any
    lines: dict[KeyPath, int]

    def line_of(self, path: KeyPath) -> int:
        """The line of the innermost key on `path` that stands in the file."""
        for length in range(len(path), 0, -1):
            if (line := self.lines.get(path[:length])) is not None:
                return line
        return 1


def parse_number(text: str) -> Decimal | None:
    """The decimal a plain number stands for, exactly; None when it is no plain number.

    >>> parse_number("0.075")
    Decimal('0.075')
    >>> parse_number("1:30") is None
    True
    """
    if _NUMBER.fullmatch(text) is None or not any(character.isdigit() for character in text):
        return None
    return Decimal(text.replace("_", ""))


def read_yaml(path: Path) -> Document:
    """The file's content, numbers as Decimal.

    Raises:
        PricingError: it cannot be read, is no YAML, names a key twice or refers to itself.
    """
    try:
        if not path.is_file():
            what = "is no regular file" if path.exists() else "does not exist"
            msg = f"the price file {path} {what}; name an existing YAML file by --prices or FBENCH_PRICES"
            raise PricingError(msg)
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        msg = f"the price file {path} cannot be read ({error.strerror or error}); make it readable or name another one"
        raise PricingError(msg) from error
    if len(data) > MAX_FILE_BYTES:
        msg = f"the price file {path} is longer than {MAX_FILE_BYTES} bytes; is it a price file at all?"
        raise PricingError(msg)
    return parse_yaml(data, str(path))


def parse_yaml(data: bytes, name: str) -> Document:
    """As `read_yaml`, of bytes; `name` is how errors call the file."""
    try:
        root = yaml.compose(data.decode(), Loader=_LOADER)
    except UnicodeDecodeError as error:
        msg = f"{name}: is no UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        raise PricingError(msg) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        msg = f"{name}{where}: is no valid YAML: {problem}"
        raise PricingError(msg) from error
    except RecursionError as error:
        msg = f"{name}: is nested too deeply for a price file"
        raise PricingError(msg) from error
    lines: dict[KeyPath, int] = {}
    value = None if root is None else _Values(name, lines).build(root, ())
    return Document(value, lines)


class _Values:
    """Turns YAML's nodes into values; keeps the nodes it is inside of, since an alias may name its own parent."""

    def __init__(self, name: str, lines: dict[KeyPath, int]) -> None:
        self._name = name
        self._lines = lines
        self._open: set[int] = set()

    def build(self, node: yaml.Node, path: KeyPath) -> object:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._open or len(self._open) > 20:  # noqa: PLR2004 - a price file is 4 deep
            self._fail(node, "refers to itself, or is nested too deeply for a price file")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            items = []
            for index, child in enumerate(node.value):
                self._lines[(*path, index)] = child.start_mark.line + 1
                items.append(self.build(child, (*path, index)))
            return items
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        result: dict[str, object] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._fail(key_node, "has a key that is no text")
            key = str(key_node.value)
            if key in result:
                self._fail(key_node, f"names {key!r} a second time (first on line {self._lines[*path, key]})")
            self._lines[*path, key] = key_node.start_mark.line + 1
            result[key] = self.build(value_node, (*path, key))
        return result

    def _scalar(self, node: yaml.ScalarNode) -> object:
        text = str(node.value)
        if node.tag in {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}:
            number = parse_number(text)
            if number is None:
                self._fail(node, f"has {text!r} where a plain number like 0.075 is wanted")
            return number
        return None if node.tag == "tag:yaml.org,2002:null" else text

    def _fail(self, node: yaml.Node, problem: str) -> NoReturn:
        msg = f"{self._name}:{node.start_mark.line + 1}: {problem}"
        raise PricingError(msg)
