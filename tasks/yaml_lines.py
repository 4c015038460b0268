"""A YAML document as plain data, with the line of every value and what its author wrote there.

Only what JSON knows is read, besides dates, which come as such so that a message can say what happened to them. Texts
of the syntax's own traps (`1:30` is 90, `0755` is 493, a key `on` is a boolean) are reported, not guessed at.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml
from yaml.constructor import SafeConstructor

MAX_DEPTH = 40
MAX_VALUES = 100_000
MAX_NUMBER_CHARS = 300

Path = tuple[str | int, ...]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_UNPRINTABLE = re.compile("[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_OCTAL = re.compile(r"[-+]?0[0-7_]+")
_TEXT_TAGS = {f"{_TAG}str", f"{_TAG}value", f"{_TAG}merge"}
_TRAP_HINT = "in quotes it is a text; a number is written without ':' and leading zeros"


class Place(NamedTuple):
    """Where a value stands: its 1-based line, and its text as written when it is an unquoted scalar."""

    line: int
    written: str | None


class Finding(NamedTuple):
    """Something wrong at a path of the document."""

    line: int
    path: Path
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Document:
    """The data, the place of every path in it, and what is wrong with the YAML itself."""

    data: Any
    places: Mapping[Path, Place]
    findings: tuple[Finding, ...]

    def line_of(self, path: Path) -> int:
        """The line of the path, or that of its nearest parent."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places[path].line if path in self.places else 1


class UnreadableYaml(Exception):
    """The text is no document at all; `line` may be unknown."""

    def __init__(self, line: int | None, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.message = message
        self.hint = hint


def _nowhere(_path: Path) -> bool:
    return False


def read_yaml(text: str, is_verbatim: Callable[[Path], bool] = _nowhere) -> Document:
    """The one document in `text`.

    Args:
        text: the file's content.
        is_verbatim: tells of a path whose key and scalar are taken as the texts that were written (`3.10`, `on`).

    Raises:
        UnreadableYaml: it is no YAML, holds no or several documents, or is nested or multiplied beyond reason.
    """
    if bad := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        raise UnreadableYaml(line, f"the character {bad[0]!a} is not allowed in YAML", "remove it")
    try:
        _refuse_excess(text)
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise _unreadable(error, text) from error
    if root is None:
        hint = "`fbench describe --task hello_repo_fix` shows a whole task, docs/suites.md a whole suite"
        raise UnreadableYaml(None, "the file is empty", hint)
    builder = _Builder(is_verbatim)
    data = builder.build(root, (), _line(root))
    return Document(data, builder.places, tuple(builder.findings))


def _refuse_excess(text: str) -> None:
    """Bound depth and size before anything recursive sees the text."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _too_deep(_line(event))
        if count > MAX_VALUES:
            message = f"more than {MAX_VALUES} values"
            raise UnreadableYaml(_line(event), message, "keep data in files of their own")


def _too_deep(line: int | None) -> UnreadableYaml:
    return UnreadableYaml(line, f"nested deeper than {MAX_DEPTH} levels", "make it flatter")


def _line(thing: yaml.Node | yaml.Event) -> int:
    return thing.start_mark.line + 1 if thing.start_mark else 1


def _unreadable(error: yaml.YAMLError, text: str) -> UnreadableYaml:
    problem = getattr(error, "problem", None) or str(error)
    context = getattr(error, "context", None)
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = None
    if mark:
        # An end that comes too early is marked behind the last line.
        line = min(mark.line + 1, text.count("\n") + (not text.endswith("\n")))
    if "nesting depth" in problem:  # PyYAML's own bound, since 6.0.4, on what it reads ahead
        return _too_deep(line)
    hint = ""
    if "cannot start any token" in problem or "tab character" in problem:
        hint = "indent with spaces, not tabs, and put a text that begins with @ ` % or & in quotes"
    elif "mapping values are not allowed" in problem:
        hint = "put a text that holds ': ' in quotes, and check the indentation"
    elif "another document" in problem:
        hint = "a task.yaml holds one document: remove the line `---` and what follows"
    elif "alias" in problem:
        hint = "put a text that begins with * in quotes"
    message = f"no valid YAML: {problem}" + (f" ({context})" if context else "")
    return UnreadableYaml(line, message, hint)


class _Builder:
    """Plain data from a tree of nodes, in one pass; aliases are expanded, within MAX_VALUES."""

    def __init__(self, is_verbatim: Callable[[Path], bool]) -> None:
        self.places: dict[Path, Place] = {}
        self.findings: list[Finding] = []
        self._is_verbatim = is_verbatim
        self._constructor = SafeConstructor()
        self._open: list[yaml.Node] = []
        self._values = 0

    def build(self, node: yaml.Node, path: Path, line: int) -> Any:  # noqa: ANN401 - whatever the document says
        """The value of the node; `line` is where its author would look for it."""
        self._count(line)
        plain = node.value if isinstance(node, yaml.ScalarNode) and not node.style else None
        self.places[path] = Place(line, plain)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path, line)
        expected = f"{_TAG}{'map' if isinstance(node, yaml.MappingNode) else 'seq'}"
        if node.tag != expected:
            self._unknown_tag(node, path, line)
            return None
        self._enter(node, line)
        value: Any
        if isinstance(node, yaml.MappingNode):
            value = {}
            for key, key_node, value_node in self._pairs(node, path):
                value[key] = self.build(value_node, (*path, key), _line(key_node))
        else:
            value = [self.build(item, (*path, position), _line(item)) for position, item in enumerate(node.value)]
        self._open.pop()
        return value

    def _enter(self, node: yaml.Node, line: int) -> None:
        if any(node is outer for outer in self._open):
            raise UnreadableYaml(line, "an alias stands inside its own anchor", "write the value out")
        if len(self._open) >= MAX_DEPTH:
            raise UnreadableYaml(line, f"nested deeper than {MAX_DEPTH} levels through aliases", "write the value out")
        self._open.append(node)

    def _count(self, line: int) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            message = f"aliases multiply to more than {MAX_VALUES} values"
            raise UnreadableYaml(line, message, "write the values out")

    def _pairs(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """The entries, own ones before merged ones; a key given twice is reported and its first value stays."""
        own: dict[str, yaml.Node] = {}
        merges: list[yaml.Node] = []
        for key_node, value_node in node.value:
            line = _line(key_node)
            if key_node.tag == f"{_TAG}merge":
                if merges:
                    hint = "list the anchors in one: <<: [*a, *b]"
                    self.findings.append(Finding(line, (*path, "<<"), "merge key given twice", hint))
                merges.append(value_node)
                continue
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in own:
                message = f"key given twice, first on line {_line(own[key])}"
                self.findings.append(Finding(line, (*path, key), message, "keep one of the two"))
                continue
            own[key] = key_node
            yield key, key_node, value_node
        for value_node in merges:
            for key, key_node, merged_node in self._merged(value_node, path):
                if key not in own:
                    own[key] = key_node
                    yield key, key_node, merged_node

    def _merged(self, node: yaml.Node, path: Path) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in sources:
            line = _line(source)
            self._count(line)
            if not isinstance(source, yaml.MappingNode):
                hint = "write <<: *name, or <<: [*one, *two]"
                self.findings.append(Finding(line, (*path, "<<"), "only mappings can be merged", hint))
                continue
            self._enter(source, line)
            for entry in self._pairs(source, path):
                self._count(line)
                yield entry
            self._open.remove(source)

    def _key(self, node: yaml.Node, path: Path) -> str | None:
        line = _line(node)
        if not isinstance(node, yaml.ScalarNode):
            self.findings.append(Finding(line, path, "a list or mapping cannot be a key", "keys are texts"))
            return None
        key = str(node.value)
        if node.tag not in _TEXT_TAGS and not self._is_verbatim((*path, key)):
            kind = node.tag.removeprefix(_TAG)
            message = f"YAML reads the key {key!r} as {_KINDS.get(kind, kind)}, but keys are texts"
            self.findings.append(Finding(line, (*path, key), message, f'put it in quotes: "{key}"'))
        return key

    def _scalar(self, node: yaml.ScalarNode, path: Path, line: int) -> Any:  # noqa: ANN401 - see build
        text, kind = str(node.value), node.tag.removeprefix(_TAG)
        if node.tag in _TEXT_TAGS or (kind != "null" and not node.style and self._is_verbatim(path)):
            return text
        if kind not in _KINDS:
            self._unknown_tag(node, path, line)
            return text
        if kind == "null":
            return None
        if kind in {"int", "float"} and len(text) > MAX_NUMBER_CHARS:
            message = f"a number of {len(text)} characters"
            self.findings.append(Finding(line, path, message, "put it in quotes if it is a text"))
            return text
        try:
            value = getattr(self._constructor, f"construct_yaml_{kind}")(node)
        except (ValueError, KeyError, OverflowError, AttributeError, TypeError, yaml.YAMLError):
            message = f"{text[:60]!r} looks like {_KINDS[kind]} but is none"
            self.findings.append(Finding(line, path, message, "put it in quotes if it is a text"))
            return text
        if kind in {"int", "float"} and (_BASE_60.fullmatch(text) or (_OCTAL.fullmatch(text))):
            base = "base 60" if ":" in text else "octal"
            message = f"YAML reads {text} as the number {value} ({base})"
            self.findings.append(Finding(line, path, message, _TRAP_HINT))
        return value

    def _unknown_tag(self, node: yaml.Node, path: Path, line: int) -> None:
        message = f"the tag {node.tag.replace(_TAG, '!!')!r} is not supported"
        self.findings.append(Finding(line, path, message, "remove it: plain texts, numbers, lists and mappings only"))


_KINDS = {
    "null": "null",
    "bool": "a boolean",
    "int": "a number",
    "float": "a number",
    "timestamp": "a date",
}
