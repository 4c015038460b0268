"""Text and its lines, as the text editor shows and changes them. No file is touched here."""

import difflib
from typing import NamedTuple

MAX_LINE_CHARS = 2000
"""Longer lines are shown cut."""
SEARCHED_LINES = 5000
SEARCHED_CHARS = 200
_CLOSE_ENOUGH = 0.6


class Inserted(NamedTuple):
    """A text with lines put in, and where they lie."""

    text: str
    start: int
    end: int


def split_lines(text: str) -> list[str]:
    """The lines as an editor counts them, each without its line end."""
    if not text:
        return []
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def number_lines(lines: list[str], first: int, last: int) -> str:
    """Lines `first` to `last`, numbered from 1 as `cat -n` does."""
    return "\n".join(_numbered(number, lines[number - 1]) for number in range(first, last + 1))


def show_lines(lines: list[str], first: int, last: int, keep_bytes: int) -> tuple[str, int]:
    """As many numbered lines from `first` on as fit, and the number of the line that follows them."""
    shown: list[str] = []
    size = 0
    for number in range(first, last + 1):
        line = _numbered(number, lines[number - 1])
        size += len(line.encode()) + 1
        if shown and size > keep_bytes:
            return "\n".join(shown), number
        shown.append(line)
    return "\n".join(shown), last + 1


def matching_newlines(text: str, file_text: str) -> str:
    """The text with the line ends of a file that has CRLF throughout."""
    count = file_text.count("\n")
    if count == 0 or file_text.count("\r\n") != count:
        return text
    return text.replace("\r\n", "\n").replace("\n", "\r\n")


def insert_lines(text: str, after_line: int, new: str) -> Inserted:
    """Put `new` in as lines of its own after line `after_line`."""
    newline = "\r\n" if text.count("\r\n") == text.count("\n") > 0 else "\n"
    start = 0
    for _ in range(after_line):
        start = text.find("\n", start) + 1 or len(text)
    head, tail = text[:start], text[start:]
    if head and not head.endswith("\n"):
        # After a last line without a line end: the file stays one without.
        return Inserted(head + newline + new, len(head) + len(newline), len(head) + len(newline) + len(new))
    if not new.endswith("\n"):
        new += newline
    return Inserted(head + new + tail, start, start + len(new) - 1)


def hint_for_missing(old: str, text: str) -> str:
    """Where the text nearest to one that was not found is."""
    lines = split_lines(text)
    wanted = [line.strip() for line in split_lines(old)]
    while wanted and not wanted[0]:
        wanted.pop(0)
    if not wanted:
        return "View the file and copy the text as it stands"
    stripped = [line.strip() for line in lines[:SEARCHED_LINES]]
    for index in range(len(stripped) - len(wanted) + 1):
        if stripped[index : index + len(wanted)] == wanted:
            return (
                f"Lines {index + 1}-{index + len(wanted)} differ from it in white space only; copy them as they stand:"
                f"\n{number_lines(lines, index + 1, index + len(wanted))}"
            )
    near = _nearest(wanted[0], stripped)
    if near is None:
        return "No line is like its first one; view the file and copy the text as it stands"
    last = min(len(lines), near + len(wanted))
    return f"The nearest lines are:\n{number_lines(lines, near + 1, min(last, near + 10))}"


def _numbered(number: int, line: str) -> str:
    if len(line) > MAX_LINE_CHARS:
        line = f"{line[:MAX_LINE_CHARS]}[... {len(line) - MAX_LINE_CHARS} more characters]"
    return f"{number:6}\t{line}"


def _nearest(wanted: str, lines: list[str]) -> int | None:
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted[:SEARCHED_CHARS])
    best, found = _CLOSE_ENOUGH, None
    for index, line in enumerate(lines):
        matcher.set_seq1(line[:SEARCHED_CHARS])
        if matcher.real_quick_ratio() > best and matcher.quick_ratio() > best and (ratio := matcher.ratio()) > best:
            best, found = ratio, index
    return found
