"""Two texts compared line by line: unified hunks, in bounded time.

Common lines at both ends are set aside, the rest goes through Myers' O(ND) algorithm (Algorithmica 1, 1986) while
there is effort left; beyond, the rest is replaced as one block.
"""

from dataclasses import dataclass
from typing import NamedTuple

CONTEXT_LINES = 3
NO_NEWLINE = b"\\ No newline at end of file\n"
MAX_LINES = 400_000
"""Longer stretches that differ are replaced as one block."""
MAX_EDITS = 3000
"""Edits searched for in one pair of texts; what is kept meanwhile grows with its square."""


@dataclass(slots=True)
class Effort:
    """Steps left, shared by the texts of one diff; the default is some seconds of one core."""

    steps: int = 10_000_000

    @property
    def was_enough(self) -> bool:
        """Whether no text was replaced whole for want of it."""
        return self.steps >= 0


class Change(NamedTuple):
    """Lines `old_start:old_end` become `new_start:new_end`."""

    old_start: int
    old_end: int
    new_start: int
    new_end: int


def unified_hunks(old: bytes, new: bytes, effort: Effort) -> list[bytes]:
    """The hunks as lines of a patch, headers included; empty when the texts are the same."""
    start, old_end, new_end = _window(old, new)
    above = old.count(b"\n", 0, start)
    old, new = old[start:old_end], new[start:new_end]
    if old == new:
        return []
    if max(old.count(b"\n"), new.count(b"\n")) > MAX_LINES:
        return _replace_all(old, new, above)
    return _hunks(_split(old), _split(new), above, effort)


def find_changes(old: list[bytes], new: list[bytes], effort: Effort) -> list[Change]:
    """What has to change, in order; neighbouring changes are one."""
    start = 0
    shortest = min(len(old), len(new))
    while start < shortest and old[start] == new[start]:
        start += 1
    tail = 0
    while tail < shortest - start and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    old_end, new_end = len(old) - tail, len(new) - tail
    if start == old_end and start == new_end:
        return []
    if start in {old_end, new_end}:
        return [Change(start, old_end, start, new_end)]
    numbers: dict[bytes, int] = {}
    middle_old = [numbers.setdefault(line, len(numbers)) for line in old[start:old_end]]
    middle_new = [numbers.setdefault(line, len(numbers)) for line in new[start:new_end]]
    matches = _match(middle_old, middle_new, effort)
    if matches is None:
        return [Change(start, old_end, start, new_end)]
    changes: list[Change] = []
    x = y = 0
    for match_x, match_y in [*matches, (len(middle_old), len(middle_new))]:
        if match_x > x or match_y > y:
            changes.append(Change(start + x, start + match_x, start + y, start + match_y))
        x, y = match_x + 1, match_y + 1
    return changes


def _window(old: bytes, new: bytes) -> tuple[int, int, int]:
    """Where the texts differ: start (of both) and ends, on whole lines and with their context around."""
    shortest = min(len(old), len(new))
    start = old.rfind(b"\n", 0, _common_start(old, new, shortest)) + 1
    tail = _common_end(old, new, shortest - start)
    old_end, new_end = len(old) - tail, len(new) - tail
    for _ in range(CONTEXT_LINES):
        start = old.rfind(b"\n", 0, max(0, start - 1)) + 1
    # The first line end in the common tail may belong to a line that differs, so it is no context.
    position = old_end
    for _ in range(CONTEXT_LINES + 1):
        position = old.find(b"\n", position) + 1 or len(old)
    return start, position, new_end + position - old_end


def _common_start(old: bytes, new: bytes, limit: int) -> int:
    """How many bytes are the same at the start, `limit` at most."""
    low, step = 0, 65536
    while low < limit and old[low : min(limit, low + step)] == new[low : min(limit, low + step)]:
        low = min(limit, low + step)
    high = min(limit, low + step)
    while low < high:
        middle = (low + high + 1) // 2
        if old[low:middle] == new[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_end(old: bytes, new: bytes, limit: int) -> int:
    return _common_start(old[len(old) - limit :][::-1], new[len(new) - limit :][::-1], limit)


def _replace_all(old: bytes, new: bytes, above: int) -> list[bytes]:
    """One hunk that takes all of `old` out and puts all of `new` in, without an object for each line."""
    output = []
    counts = []
    for sign, text in ((b"-", old), (b"+", new)):
        is_open = bool(text) and not text.endswith(b"\n")
        counts.append(text.count(b"\n") + is_open)
        if text:
            body = text if is_open else text[:-1]
            output.append(sign + body.replace(b"\n", b"\n" + sign) + b"\n")
        if is_open:
            output.append(NO_NEWLINE)
    ranges = [_range(above, above + count) for count in counts]
    return [b"@@ -%s +%s @@\n" % (ranges[0], ranges[1]), *output]


def _hunks(old_lines: list[bytes], new_lines: list[bytes], above: int, effort: Effort) -> list[bytes]:
    output: list[bytes] = []
    for group in _group(find_changes(old_lines, new_lines, effort)):
        first, last = group[0], group[-1]
        old_from = max(0, first.old_start - CONTEXT_LINES)
        new_from = first.new_start - (first.old_start - old_from)
        old_to = min(len(old_lines), last.old_end + CONTEXT_LINES)
        new_to = last.new_end + (old_to - last.old_end)
        ranges = _range(above + old_from, above + old_to), _range(above + new_from, above + new_to)
        output.append(b"@@ -%s +%s @@\n" % ranges)
        position = old_from
        for change in group:
            output.extend(_prefixed(b" ", old_lines[position : change.old_start]))
            output.extend(_prefixed(b"-", old_lines[change.old_start : change.old_end]))
            output.extend(_prefixed(b"+", new_lines[change.new_start : change.new_end]))
            position = change.old_end
        output.extend(_prefixed(b" ", old_lines[position:old_to]))
    return output


def _match(old: list[int], new: list[int], effort: Effort) -> list[tuple[int, int]] | None:
    """Pairs of positions that stay, of a shortest edit; None when finding it takes too long."""
    goal = len(old) - len(new)
    reach = {1: 0}
    trace: list[dict[int, int]] = []
    for edits in range(min(len(old) + len(new), MAX_EDITS) + 1):
        row: dict[int, int] = {}
        for diagonal in range(-edits, edits + 1, 2):
            down = diagonal == -edits or (diagonal != edits and reach[diagonal - 1] < reach[diagonal + 1])
            x = reach[diagonal + 1] if down else reach[diagonal - 1] + 1
            y = begin = x - diagonal
            while x < len(old) and y < len(new) and old[x] == new[y]:
                x += 1
                y += 1
            effort.steps -= 1 + y - begin
            row[diagonal] = x
            if diagonal == goal and x >= len(old):
                return _trace_back(trace, edits, goal, len(old))
            if effort.steps < 0:
                return None
        trace.append(row)
        reach = row
    return None


def _trace_back(trace: list[dict[int, int]], edits: int, diagonal: int, x: int) -> list[tuple[int, int]]:
    matches: list[tuple[int, int]] = []
    for step in range(edits, 0, -1):
        reach = trace[step - 1]
        down = diagonal == -step or (diagonal != step and reach[diagonal - 1] < reach[diagonal + 1])
        previous = diagonal + 1 if down else diagonal - 1
        begin = reach[previous] if down else reach[previous] + 1
        matches.extend((at, at - diagonal) for at in range(x - 1, begin - 1, -1))
        diagonal, x = previous, reach[previous]
    matches.extend((at, at) for at in range(x - 1, -1, -1))
    return matches[::-1]


def _group(changes: list[Change]) -> list[list[Change]]:
    """Changes whose context would touch belong to one hunk."""
    groups: list[list[Change]] = []
    for change in changes:
        if groups and change.old_start - groups[-1][-1].old_end <= 2 * CONTEXT_LINES:
            groups[-1].append(change)
        else:
            groups.append([change])
    return groups


def _split(text: bytes) -> list[bytes]:
    lines = text.split(b"\n")
    last = lines.pop()
    whole = [line + b"\n" for line in lines]
    return [*whole, last] if last else whole


def _range(start: int, end: int) -> bytes:
    count = end - start
    if count == 1:
        return b"%d" % (start + 1)
    return b"%d,%d" % (start + 1 if count else start, count)


def _prefixed(sign: bytes, lines: list[bytes]) -> list[bytes]:
    return [sign + line if line.endswith(b"\n") else sign + line + b"\n" + NO_NEWLINE for line in lines]
