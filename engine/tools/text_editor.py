"""The tool `text_editor`: look at, make and change text files of the workspace, every path confined.

It works from the host on single files, so no shell is needed and quoting cannot go wrong.
"""

from typing import Annotated, ClassVar, Literal, assert_never

from pydantic import BaseModel, ConfigDict, Field

from fbench.engine.confine import ConfinedFolder, FolderEntry, PathMissing
from fbench.engine.errors import ToolRefused
from fbench.engine.seams import ToolContext, ToolOutcome
from fbench.engine.tools.editing import (
    hint_for_missing,
    insert_lines,
    matching_newlines,
    number_lines,
    show_lines,
    split_lines,
)
from fbench.engine.tools.shell import bounded

MAX_FILE_BYTES = 10 * 1024 * 1024
MAX_HISTORY = 100
"""Edits of a run that can be undone, the newest."""
MAX_HISTORY_BYTES = 64 * 1024 * 1024
CONTEXT_LINES = 4
LISTED_LEVELS = 2
CLOSED_FOLDERS = frozenset({".git", "node_modules", "__pycache__", ".venv"})
_HISTORY = "text_editor.history"


class TextEditorArguments(BaseModel):
    """What `text_editor` takes; which of them a command needs is checked when it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: Annotated[
        Literal["view", "create", "str_replace", "insert", "undo_edit"], Field(description="What to do.")
    ]
    path: Annotated[str, Field(description="The file (view: also a folder), relative to the workspace or absolute.")]
    file_text: Annotated[str | None, Field(description="create: the whole content; replaces a file that exists.")] = (
        None
    )
    old_str: Annotated[str | None, Field(description="str_replace: the text to replace; must occur exactly once.")] = (
        None
    )
    new_str: Annotated[
        str | None, Field(description="str_replace: what takes its place, empty to delete. insert: what to insert.")
    ] = None
    insert_line: Annotated[int | None, Field(ge=0, description="insert: after this line; 0 is the top.")] = None
    view_range: Annotated[
        list[int] | None,
        Field(min_length=2, max_length=2, description="view: first and last line, from 1; last -1 is the end."),
    ] = None


class _Edit:
    """One step that can be undone: what the file held before (None: it was not there) and after."""

    __slots__ = ("after", "before", "path")

    def __init__(self, path: str, before: bytes | None, after: bytes) -> None:
        self.path = path
        self.before = before
        self.after = after

    @property
    def size_bytes(self) -> int:
        return len(self.before or b"") + len(self.after)


class TextEditorTool:
    """Views and edits text files."""

    name: ClassVar[str] = "text_editor"
    description: ClassVar[str] = (
        "View and edit text files of the workspace. `view` shows a file with line numbers or lists a folder; `create` "
        "writes a whole file; `str_replace` replaces a text that occurs exactly once; `insert` puts lines after a "
        "line; `undo_edit` takes the last edit of a file back."
    )
    arguments: ClassVar[type[BaseModel]] = TextEditorArguments

    async def run(self, arguments: TextEditorArguments, context: ToolContext) -> ToolOutcome:
        """Run one command. Raises ToolRefused with what is wrong and what to do."""
        match arguments.command:
            case "view":
                return _view(arguments, context)
            case "create":
                text = _edit_create(arguments, context)
            case "str_replace":
                text = _edit_replace(arguments, context)
            case "insert":
                text = _edit_insert(arguments, context)
            case "undo_edit":
                text = _undo(arguments, context)
            case never:
                assert_never(never)
        return bounded(text, context)


def _view(arguments: TextEditorArguments, context: ToolContext) -> ToolOutcome:
    workspace, path = context.workspace, arguments.path
    if workspace.is_folder(path):
        if arguments.view_range is not None:
            msg = f"{path!r} is a folder; view_range goes with a file"
            raise ToolRefused(msg)
        return bounded(_list_folder(workspace, path), context)
    lines = split_lines(_read_text(workspace, path))
    first, last = _line_range(arguments.view_range, len(lines), path)
    if not lines:
        return ToolOutcome("[the file is empty]")
    shown, following = show_lines(lines, first, last, context.keep_bytes)
    if following > last:
        return ToolOutcome(shown)
    note = f"[lines {following}-{last} of {len(lines)} are not shown; use view_range [{following}, {last}]]"
    dropped = sum(len(line.encode()) for line in lines[following - 1 : last])
    return ToolOutcome(f"{shown}\n{note}", dropped_bytes=dropped)


def _edit_create(arguments: TextEditorArguments, context: ToolContext) -> str:
    text = _needed(arguments.file_text, "file_text", "create")
    try:
        before = context.workspace.read_bytes(arguments.path, MAX_FILE_BYTES)
    except PathMissing:
        before = None
    _write(arguments.path, before, text, context)
    lines = len(split_lines(text))
    verb = "created" if before is None else "replaced the whole content of"
    return f"{verb} {arguments.path!r}, {lines} line{'' if lines == 1 else 's'}"


def _edit_replace(arguments: TextEditorArguments, context: ToolContext) -> str:
    old = _needed(arguments.old_str, "old_str", "str_replace")
    new = arguments.new_str or ""
    if not old:
        msg = "old_str is empty; give the text to replace, or use `insert` to add lines"
        raise ToolRefused(msg)
    text = _read_text(context.workspace, arguments.path)
    new = matching_newlines(new, text)
    if old not in text:
        old = matching_newlines(old, text)
    count = text.count(old)
    if count == 0:
        msg = f"old_str does not occur in {arguments.path!r}, so nothing was changed. {hint_for_missing(old, text)}"
        raise ToolRefused(msg)
    if count > 1:
        numbers = _lines_of(text, old)
        shown = ", ".join(map(str, numbers[:20])) + (", ..." if len(numbers) > 20 else "")  # noqa: PLR2004 - one line
        msg = (
            f"old_str occurs {count} times in {arguments.path!r} (at lines {shown}), so nothing was changed. "
            "Take in more of the lines around the one you mean"
        )
        raise ToolRefused(msg)
    start = text.index(old)
    changed = text[:start] + new + text[start + len(old) :]
    _write(arguments.path, text.encode(), changed, context)
    return _snippet(arguments.path, changed, start, start + len(new))


def _edit_insert(arguments: TextEditorArguments, context: ToolContext) -> str:
    new = _needed(arguments.new_str, "new_str", "insert")
    line = arguments.insert_line
    if line is None:
        msg = "`insert` needs insert_line: the line after which the text goes, 0 for the top"
        raise ToolRefused(msg)
    text = _read_text(context.workspace, arguments.path)
    count = len(split_lines(text))
    if line > count:
        msg = f"insert_line {line} is beyond the end of {arguments.path!r}, which has {count} lines; use 0 to {count}"
        raise ToolRefused(msg)
    inserted = insert_lines(text, line, matching_newlines(new, text))
    _write(arguments.path, text.encode(), inserted.text, context)
    return _snippet(arguments.path, inserted.text, inserted.start, inserted.end)


def _undo(arguments: TextEditorArguments, context: ToolContext) -> str:
    workspace, path = context.workspace, arguments.path
    place = workspace.resolve(path)
    history = _history(context)
    edit = next((edit for edit in reversed(history) if edit.path == place), None)
    if edit is None:
        msg = f"there is no edit of {path!r} to undo; only edits by text_editor in this task can be undone"
        raise ToolRefused(msg)
    try:
        current = workspace.read_bytes(path, MAX_FILE_BYTES)
    except PathMissing:
        current = None
    if edit.before is not None:
        workspace.write_bytes(path, edit.before)
        done = f"undid the last edit of {path!r}"
    else:
        if current is not None:
            workspace.remove_file(path)
        done = f"undid the creation of {path!r}; the file is gone"
    history.remove(edit)
    if current != edit.after:
        done += ". It had been changed by something else since; that change is undone as well"
    return done


def _needed(value: str | None, name: str, command: str) -> str:
    if value is None:
        msg = f"`{command}` needs {name}"
        raise ToolRefused(msg)
    return value


def _read_text(workspace: ConfinedFolder, path: str) -> str:
    data = workspace.read_bytes(path, MAX_FILE_BYTES)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        msg = (
            f"{path!r} is no UTF-8 text (byte 0x{data[error.start]:02x} at offset {error.start}); "
            "use bash or python for it"
        )
        raise ToolRefused(msg) from None
    if "\0" in text:
        msg = f"{path!r} is a binary file (a NUL byte at offset {data.index(0)}); use bash or python for it"
        raise ToolRefused(msg)
    return text


def _write(path: str, before: bytes | None, text: str, context: ToolContext) -> None:
    try:
        after = text.encode()
    except UnicodeEncodeError as error:
        msg = f"the text holds a character that is no valid Unicode (at {error.start}); nothing was written"
        raise ToolRefused(msg) from None
    if len(after) > MAX_FILE_BYTES:
        msg = f"{path!r} would become larger than {MAX_FILE_BYTES} bytes; write such files with bash or python"
        raise ToolRefused(msg)
    place = context.workspace.write_bytes(path, after, create_parents=before is None)
    history = _history(context)
    history.append(_Edit(place, before, after))
    while len(history) > MAX_HISTORY or (
        len(history) > 1 and sum(edit.size_bytes for edit in history) > MAX_HISTORY_BYTES
    ):
        del history[0]


def _history(context: ToolContext) -> list[_Edit]:
    history: list[_Edit] = context.notes.setdefault(_HISTORY, [])
    return history


def _line_range(wanted: list[int] | None, count: int, path: str) -> tuple[int, int]:
    if wanted is None:
        return 1, count
    first, last = wanted
    if last == -1 or last > count:
        last = count
    if first < 1 or first > max(count, 1) or last < first:
        msg = (
            f"view_range {wanted} does not fit {path!r}, which has {count} lines; use [first, last] within 1 to {count}"
        )
        raise ToolRefused(msg)
    return first, last


def _lines_of(text: str, part: str) -> list[int]:
    numbers = []
    line, position = 1, 0
    start = text.find(part)
    while start >= 0:
        line += text.count("\n", position, start)
        numbers.append(line)
        position = start
        start = text.find(part, start + len(part))
    return numbers


def _snippet(path: str, text: str, start: int, end: int) -> str:
    """The lines that changed with some around them."""
    first = max(1, text.count("\n", 0, start) + 1 - CONTEXT_LINES)
    lines = split_lines(text)
    last = min(len(lines), text.count("\n", 0, end) + 1 + CONTEXT_LINES)
    return f"edited {path!r}; it now reads\n{number_lines(lines, first, last)}"


def _list_folder(workspace: ConfinedFolder, path: str) -> str:
    found = workspace.list_folder(path, LISTED_LEVELS, closed=CLOSED_FOLDERS.__contains__)
    if not found.entries:
        return "[the folder is empty]"
    lines = [_entry_line(entry) for entry in found.entries]
    if found.is_cut:
        lines.append("[there is more; view a folder below, or use bash]")
    return "\n".join(lines)


def _entry_line(entry: FolderEntry) -> str:
    name = _readable(entry.path)
    if entry.kind == "folder":
        return f"{name}/"
    if entry.kind == "link":
        return f"{name} -> {_readable(entry.link_target or '')}"
    return f"{name} ({entry.size_bytes} bytes)" if entry.kind == "file" else f"{name} ({entry.kind})"


def _readable(path: str) -> str:
    """The path on one line and with valid Unicode only."""
    shown = path.encode("utf-8", "backslashreplace").decode()
    return shown if shown.isprintable() else repr(shown)
