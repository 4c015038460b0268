"""The images a Dockerfile starts from, and the same Dockerfile with some of them exchanged."""

import re
from collections.abc import Mapping
from typing import NamedTuple

_FROM = re.compile(r"^(\s*FROM\s+(?:--\S+\s+)*)(\S+)((?:\s+AS\s+(\S+))?\s*)$", re.IGNORECASE)
_COPY_FROM = re.compile(r"^(\s*(?:COPY|ADD)\s+(?:--\S+\s+)*?--from=)(\S+)(.*)$", re.IGNORECASE | re.DOTALL)
_ARG = re.compile(r"^\s*ARG\s+(\w+)(?:=(\"[^\"]*\"|'[^']*'|\S*))?\s*$", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+))")


class Dockerfile(NamedTuple):
    """A Dockerfile's text, and the outside images it needs, each once, in order."""

    text: str
    base_images: tuple[str, ...]


def read_dockerfile(text: str, *, args: Mapping[str, str], image_map: Mapping[str, str]) -> Dockerfile:
    """The Dockerfile with each outside image that `image_map` knows exchanged.

    Args:
        text: as it was written.
        args: build arguments; they win over the defaults of `ARG` lines.
        image_map: exact names of images, and the ones to use in their place.
    """
    known: dict[str, str] = {}
    stages: list[str] = []
    bases: list[str] = []
    lines = []

    def exchange(written: str) -> str:
        name = _fill(written, known)
        if name in image_map:
            written = name = image_map[name]
        if name and name not in bases:
            bases.append(name)
        return written

    for line in text.splitlines():
        changed = line
        if (found := _ARG.match(line)) and not bases and not stages:
            default = (found[2] or "").strip("\"'")
            known[found[1]] = args.get(found[1], _fill(default, known))
        elif found := _FROM.match(line):
            if found[2].lower() != "scratch" and found[2].lower() not in stages:
                changed = found[1] + exchange(found[2]) + found[3]
            stages.append((found[4] or "").lower())
        elif (found := _COPY_FROM.match(line)) and not found[2].isdecimal() and found[2].lower() not in stages:
            changed = found[1] + exchange(found[2]) + found[3]
        lines.append(changed)
    return Dockerfile("\n".join(lines) + "\n", tuple(bases))


def _fill(text: str, known: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: known.get(found[1] or found[3]) or found[2] or "", text)
