"""What a judge is shown of a run: the artifacts a rubric asks for, the diff, the transcript; bounded, as texts."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbench.engine.errors import ToolRefused
from fbench.engine.records.comparing import mask_durations
from fbench.engine.records.reading import read_transcript
from fbench.engine.seams import CheckContext
from fbench.judging.evidence import clean_text
from fbench.judging.gather import CannotEvaluate

if TYPE_CHECKING:
    from fbench.engine.confine import ConfinedFolder, FolderListing
    from fbench.judging.rubric_file import Settings

MAX_ARTIFACT_CHARS = 60_000
"""Of one artifact, about 15,000 tokens; the middle of a longer one is left out, and that is said."""
MAX_DIFF_CHARS = 100_000
MAX_TRANSCRIPT_CHARS = 100_000
MAX_TOTAL_CHARS = 300_000
"""Of all evidence, about 75,000 tokens: windows of judges begin at 128,000."""
MAX_ARTIFACTS = 100
MAX_MESSAGE_CHARS = 4000
"""Of one message in the transcript."""

_MAX_READ_BYTES = 10 * 1024**2
_DEPTH = 12
_SPOKEN = ("message", "tool_started", "tool_finished", "budget_breached")


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One piece of evidence; `text` is None where it is only named, as `note` says."""

    title: str
    text: str | None
    note: str = ""

    def identity(self) -> list[str | None]:
        """What verdicts depend on."""
        return [self.title, self.text, self.note]

    def facts(self) -> dict[str, Any]:
        """For the check's file: what was shown, not the text itself, which is in the run's folder."""
        return {
            "title": self.title,
            "chars": None if self.text is None else len(self.text),
            "sha256": None if self.text is None else hashlib.sha256(self.text.encode()).hexdigest(),
            "note": self.note,
        }


def gather_exhibits(settings: "Settings", context: CheckContext) -> list[Exhibit]:
    """All that the rubric asks for, in its order: artifacts, the diff, the transcript. Blocking.

    Raises:
        CannotEvaluate: the rubric asks for a diff or transcript of a run that has none.
    """
    exhibits: list[Exhibit] = []
    listing = context.workspace.list_folder(depth=_DEPTH) if any(map(_is_glob, settings.artifacts)) else None
    for pattern in settings.artifacts:
        exhibits += _artifacts(context.workspace, listing if _is_glob(pattern) else None, pattern, exhibits)
    if settings.diff:
        exhibits.append(_diff(context.materials.diff))
    if settings.transcript:
        exhibits.append(_transcript(context.materials.transcript))
    return list(_bounded(exhibits))


def matches(path: str, pattern: str) -> bool:
    """Whether a path fits a glob, in which `**` stands for any number of folders.

    >>> matches("a/b/c.py", "**/*.py"), matches("c.py", "**/*.py"), matches("a/b.py", "*.py")
    (True, True, False)
    """
    return _fits(path.split("/"), pattern.split("/"))


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _is_glob(pattern: str) -> bool:
    return any(sign in pattern for sign in "*?[")


def _artifacts(
    workspace: "ConfinedFolder", listing: "FolderListing | None", pattern: str, seen: Sequence[Exhibit]
) -> Iterator[Exhibit]:
    """The files that a pattern names: itself without a listing, else those of the listing that fit it."""
    if listing is None:
        names, is_cut = [pattern], False
    else:
        names = [entry.path for entry in listing.entries if entry.kind == "file" and matches(entry.path, pattern)]
        is_cut = listing.is_cut
        if not names:
            yield Exhibit(f"files {pattern}", None, "no file of the workspace has such a name")
    known = {exhibit.title for exhibit in seen}
    for name in names[:MAX_ARTIFACTS]:
        if (title := f"file {name}") not in known:
            yield _artifact(workspace, name, title)
    if is_cut or len(names) > MAX_ARTIFACTS:
        note = f"the workspace has more files than are looked at; of these at most {MAX_ARTIFACTS} are shown"
        yield Exhibit(f"more files {pattern}", None, note)


def _artifact(workspace: "ConfinedFolder", name: str, title: str) -> Exhibit:
    if not workspace.is_regular_file(name):
        return Exhibit(title, None, "is not there, or is no regular file")
    try:
        data = workspace.read_bytes(name, _MAX_READ_BYTES)
    except (ToolRefused, OSError) as error:
        return Exhibit(title, None, f"cannot be shown: {error}")
    if b"\0" in data:
        digest = hashlib.sha256(data).hexdigest()
        return Exhibit(title, None, f"is binary: {len(data)} bytes, SHA-256 {digest}")
    return Exhibit(title, clean_text(data.decode("utf-8", errors="replace"), MAX_ARTIFACT_CHARS))


def _diff(path: Path | None) -> Exhibit:
    title = "diff of the workspace against its start"
    if path is None or not path.exists():
        reason = "the rubric shows the diff, and this run has none: its workspace was not kept whole"
        raise CannotEvaluate(reason, {"error": reason})
    text = path.read_bytes().decode("utf-8", errors="replace")
    return Exhibit(title, clean_text(text, MAX_DIFF_CHARS)) if text else Exhibit(title, None, "nothing was changed")


def _transcript(path: Path | None) -> Exhibit:
    if path is None or not path.exists():
        reason = "the rubric shows the transcript, and this run has none"
        raise CannotEvaluate(reason, {"error": reason})
    spoken = (event for event in read_transcript(path) if event.get("type") in _SPOKEN)
    text = "\n\n".join(line for event in spoken if (line := _line(event)))
    return Exhibit("transcript of the agent", clean_text(mask_durations(text), MAX_TRANSCRIPT_CHARS))


def _line(event: dict[str, Any]) -> str:
    """An event as a judge reads it: without times, and without the system's and the task's own words."""
    turn = event.get("turn")
    if event["type"] == "message":
        role = event.get("role")
        content = clean_text(str(event.get("content") or ""), MAX_MESSAGE_CHARS)
        return f"[turn {turn}] {role}: {content}" if content and role in {"assistant", "user"} and turn else ""
    if event["type"] == "tool_started":
        arguments = clean_text(str(event.get("arguments")), MAX_MESSAGE_CHARS)
        return f"[turn {turn}] calls {event.get('name')}: {arguments}"
    if event["type"] == "tool_finished":
        output = clean_text(str(event.get("output")), MAX_MESSAGE_CHARS)
        return f"[turn {turn}] output, exit code {event.get('exit_code')}: {output}"
    return f"[the run was killed: {event.get('kill_reason')}]"


def _bounded(exhibits: Sequence[Exhibit]) -> Iterator[Exhibit]:
    left = MAX_TOTAL_CHARS
    for exhibit in exhibits:
        if exhibit.text is not None and len(exhibit.text) > left:
            yield Exhibit(exhibit.title, None, f"left out: evidence is bounded at {MAX_TOTAL_CHARS} characters")
            continue
        left -= len(exhibit.text or "")
        yield exhibit
