"""The text editor, the diff tool and the schemas the model is told."""

# ruff: noqa: PTH208 - names as the system gives them are what is compared

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from pydantic import ValidationError

from fbench.engine.confine import ConfinedFolder
from fbench.engine.errors import ToolRefused
from fbench.engine.seams import Sandbox, ToolContext
from fbench.engine.tools import SUBMIT, tool_schema
from fbench.engine.tools.bash import BashTool
from fbench.engine.tools.git_diff import GitDiffArguments, GitDiffTool
from fbench.engine.tools.python import PythonTool
from fbench.engine.tools.text_editor import TextEditorArguments, TextEditorTool


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "baseline").mkdir()
    return tmp_path / "workspace"


@pytest.fixture
def make_context(root: Path) -> Callable[[int], ToolContext]:
    def make(keep_bytes: int) -> ToolContext:
        return ToolContext(
            sandbox=cast("Sandbox", None),  # neither tool runs a command
            workspace=ConfinedFolder(root, "/workspace"),
            baseline=root.parent / "baseline",
            remaining_s=lambda: None,
            keep_bytes=keep_bytes,
            emit_output=lambda _data: None,
            notes={},
        )

    return make


class Editor:
    def __init__(self, context: ToolContext) -> None:
        self.context = context

    async def __call__(self, command: str, path: str, **arguments: Any) -> str:
        checked = TextEditorArguments.model_validate({"command": command, "path": path, **arguments})
        return (await TextEditorTool().run(checked, self.context)).output


@pytest.fixture
def edit(make_context: Callable[[int], ToolContext]) -> Editor:
    return Editor(make_context(20_000))


async def test_a_file_is_made_seen_changed_and_undone(edit: Editor, root: Path) -> None:
    assert await edit("create", "src/a.py", file_text="one\ntwo\nthree\n") == "created 'src/a.py', 3 lines"
    assert await edit("view", "/workspace/src/a.py") == "     1\tone\n     2\ttwo\n     3\tthree"
    said = await edit("str_replace", "src/a.py", old_str="two\n", new_str="2\n2b\n")
    assert "     2\t2\n     3\t2b\n     4\tthree" in said
    await edit("insert", "src/a.py", insert_line=0, new_str="zero")
    await edit("insert", "src/a.py", insert_line=5, new_str="end")
    assert (root / "src/a.py").read_text() == "zero\none\n2\n2b\nthree\nend\n"
    for wanted in ("zero\none\n2\n2b\nthree\n", "one\n2\n2b\nthree\n", "one\ntwo\nthree\n"):
        await edit("undo_edit", "src/../src/a.py")
        assert (root / "src/a.py").read_text() == wanted
    assert "undid the creation" in await edit("undo_edit", "src/a.py")
    assert not (root / "src/a.py").exists()
    with pytest.raises(ToolRefused, match=r"no edit of 'src/a\.py' to undo"):
        await edit("undo_edit", "src/a.py")


async def test_undo_of_an_overwritten_file_gives_the_old_one_back_and_says_what_else_goes(
    edit: Editor, root: Path
) -> None:
    (root / "f").write_bytes(b"\xff\0old")
    assert "replaced the whole content" in await edit("create", "f", file_text="new")
    (root / "f").write_text("by bash")
    assert "changed by something else" in await edit("undo_edit", "f")
    assert (root / "f").read_bytes() == b"\xff\0old"


async def test_str_replace_needs_exactly_one_match(edit: Editor, root: Path) -> None:
    (root / "f").write_text("a\nb\na\nlong line of text\n    indented = 1\n")
    with pytest.raises(ToolRefused, match=r"occurs 2 times in 'f' \(at lines 1, 3\), so nothing was changed"):
        await edit("str_replace", "f", old_str="a\n", new_str="x")
    with pytest.raises(ToolRefused, match=r"(?s)does not occur.*nearest lines are:\n     4\tlong line of text"):
        await edit("str_replace", "f", old_str="long line of test", new_str="x")
    with pytest.raises(ToolRefused, match=r"(?s)Lines 5-5 differ from it in white space only.*\n     5\t    indented"):
        await edit("str_replace", "f", old_str="\tindented = 1\n", new_str="x")
    with pytest.raises(ToolRefused, match="No line is like"):
        await edit("str_replace", "f", old_str="%%%%%%", new_str="x")
    with pytest.raises(ToolRefused, match="old_str is empty"):
        await edit("str_replace", "f", old_str="", new_str="x")
    await edit("str_replace", "f", old_str="b\n")
    assert (root / "f").read_text().startswith("a\na\n")


async def test_line_ends_of_windows_are_kept(edit: Editor, root: Path) -> None:
    (root / "f").write_bytes(b"one\r\ntwo\r\nthree\r\n")
    assert "\r" not in await edit("view", "f")
    await edit("str_replace", "f", old_str="one\ntwo", new_str="1\n2")
    await edit("insert", "f", insert_line=2, new_str="mid\ndle")
    assert (root / "f").read_bytes() == b"1\r\n2\r\nmid\r\ndle\r\nthree\r\n"


async def test_a_missing_last_line_end_is_kept(edit: Editor, root: Path) -> None:
    (root / "f").write_bytes(b"one\ntwo")
    await edit("insert", "f", insert_line=2, new_str="three")
    assert (root / "f").read_bytes() == b"one\ntwo\nthree"
    (root / "empty").write_bytes(b"")
    await edit("insert", "empty", insert_line=0, new_str="x")
    assert (root / "empty").read_bytes() == b"x\n"
    with pytest.raises(ToolRefused, match="insert_line 4 is beyond the end of 'f', which has 3 lines; use 0 to 3"):
        await edit("insert", "f", insert_line=4, new_str="x")


async def test_what_is_no_text_is_refused(edit: Editor, root: Path) -> None:
    (root / "latin").write_bytes(b"caf\xe9")
    (root / "bin").write_bytes(b"a\0b")
    (root / "big").write_bytes(b"x" * (10 * 1024 * 1024 + 1))
    os.mkfifo(root / "fifo")
    for path, words in (("latin", "no UTF-8 text"), ("bin", "binary"), ("big", "larger than"), ("fifo", "is a FIFO")):
        with pytest.raises(ToolRefused, match=words):
            await edit("view", path)
    with pytest.raises(ToolRefused, match="no valid Unicode"):
        await edit("create", "new", file_text="\ud800")
    assert not (root / "new").exists()


@pytest.mark.parametrize(
    ("command", "missing"), [("create", "file_text"), ("str_replace", "old_str"), ("insert", "new_str")]
)
async def test_what_a_command_needs_is_named(edit: Editor, command: str, missing: str) -> None:
    with pytest.raises(ToolRefused, match=f"`{command}` needs {missing}"):
        await edit(command, "f")


async def test_a_view_is_limited_by_range_and_size(make_context: Callable[[int], ToolContext], root: Path) -> None:
    edit = Editor(make_context(1000))
    (root / "f").write_text("".join(f"line {number}\n" for number in range(1, 1001)) + "y" * 3000 + "\n")
    whole = await edit("view", "f")
    assert whole.startswith("     1\tline 1\n")
    assert "lines 68-1001 of 1001 are not shown; use view_range [68, 1001]]" in whole
    assert len(whole) < 1200
    assert await edit("view", "f", view_range=[999, 1000]) == "   999\tline 999\n  1000\tline 1000"
    assert "[... 1000 more characters]" in await edit("view", "f", view_range=[1001, -1])
    for wrong in ([0, 3], [5, 4], [2000, 2001]):
        with pytest.raises(ToolRefused, match="does not fit 'f', which has 1001 lines"):
            await edit("view", "f", view_range=wrong)
    (root / "empty").touch()
    assert await edit("view", "empty") == "[the file is empty]"


async def test_a_folder_is_listed_two_levels_deep(edit: Editor, root: Path) -> None:
    (root / "a/b/c").mkdir(parents=True)
    (root / "a/f").write_text("12")
    (root / ".git/objects").mkdir(parents=True)
    (root / "l").symlink_to("/etc/passwd")
    (root / "\udcff\n").touch()
    assert (await edit("view", ".")).splitlines() == [
        ".git/",
        "a/",
        "a/b/",
        "a/f (2 bytes)",
        "l -> /etc/passwd",
        "'\\\\udcff\\n' (0 bytes)",
    ]
    assert await edit("view", "a/b/c") == "[the folder is empty]"


@pytest.mark.parametrize("path", ["/etc/passwd", "../baseline/x", "link/x", "\0", ""])
async def test_no_command_reaches_outside(edit: Editor, root: Path, path: str) -> None:
    (root / "link").symlink_to("../baseline")
    (root.parent / "baseline/x").write_text("secret")
    commands: dict[str, dict[str, Any]] = {
        "view": {},
        "create": {"file_text": "x"},
        "str_replace": {"old_str": "secret", "new_str": "x"},
        "insert": {"insert_line": 0, "new_str": "x"},
        "undo_edit": {},
    }
    for command, arguments in commands.items():
        with pytest.raises(ToolRefused):
            await edit(command, path, **arguments)
    assert (root.parent / "baseline/x").read_text() == "secret"


async def test_a_link_that_appears_while_editing_never_leads_out(edit: Editor, root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "f").write_text("secret\n")
    (root / "d").mkdir()
    (root / "d/f").write_text("mine\n")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (root / "d").rename(root / "aside")
            (root / "d").symlink_to(outside)
            (root / "d").unlink()
            (root / "aside").rename(root / "d")

    thread = threading.Thread(target=swap)
    thread.start()
    edits = refused = 0
    try:
        enough, end = time.monotonic() + 1.0, time.monotonic() + 60.0
        while time.monotonic() < (enough if edits and refused else end):
            try:
                assert "secret" not in await edit("view", "d/f")
                await edit("str_replace", "d/f", old_str="mine", new_str="mine")
                edits += 1
            except ToolRefused:
                refused += 1
    finally:
        stop.set()
        thread.join()
    assert edits
    assert refused
    assert (outside / "f").read_text() == "secret\n"
    assert os.listdir(outside) == ["f"]


async def test_the_diff_is_of_the_workspace_against_its_start(
    make_context: Callable[[int], ToolContext], root: Path
) -> None:
    context = make_context(1000)
    assert (await GitDiffTool().run(GitDiffArguments(), context)).output == "[nothing changed since the start]"
    (root.parent / "baseline/gone").write_text("x\n")
    (root / "d").mkdir()
    (root / "d/new").write_text("y\n")
    whole = (await GitDiffTool().run(GitDiffArguments(), context)).output
    assert "diff --git a/gone b/gone\ndeleted file mode 100644" in whole
    assert "diff --git a/d/new b/d/new\nnew file mode 100644" in whole
    assert (await GitDiffTool().run(GitDiffArguments(path="/workspace/d"), context)).output.count("diff --git") == 1
    assert (await GitDiffTool().run(GitDiffArguments(path="gone"), context)).output.count("diff --git") == 1
    assert "nothing changed in 'no'" in (await GitDiffTool().run(GitDiffArguments(path="no"), context)).output
    for path in ("../baseline", "/etc"):
        with pytest.raises(ToolRefused, match="outside the workspace"):
            await GitDiffTool().run(GitDiffArguments(path=path), context)
    (root / "long").write_text("line\n" * 1000)
    outcome = await GitDiffTool().run(GitDiffArguments(), context)
    assert outcome.dropped_bytes > 3000
    assert "bytes left out ...]" in outcome.output


async def test_a_cancelled_diff_does_not_wait_for_its_thread(
    make_context: Callable[[int], ToolContext], root: Path
) -> None:
    for number in range(3):
        (root / f"f{number}").write_bytes(b"".join(b"%d\n" % (n * 7919 % 100_003) for n in range(300_000)))
        (root.parent / f"baseline/f{number}").write_bytes(
            b"".join(b"%d\n" % (n * 104_729 % 100_019) for n in range(300_000))
        )
    started = time.monotonic()
    with anyio.move_on_after(0.2) as scope:
        await GitDiffTool().run(GitDiffArguments(), make_context(1000))
    assert scope.cancelled_caught
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("tool", [BashTool(), PythonTool(), TextEditorTool(), GitDiffTool()])
def test_schemas_are_compact_and_describe_every_argument(tool: Any) -> None:
    schema = tool_schema(tool)
    text = json.dumps(schema.parameters)
    assert schema.name == tool.name
    assert schema.parameters["type"] == "object"
    assert schema.parameters["additionalProperties"] is False
    assert '"title"' not in text
    assert "null" not in text
    for found in schema.parameters["properties"].values():
        assert found["type"]
        assert found["description"]


def test_the_editor_names_its_commands_in_the_schema() -> None:
    found = tool_schema(TextEditorTool()).parameters
    assert found["properties"]["command"]["enum"] == ["view", "create", "str_replace", "insert", "undo_edit"]
    assert found["required"] == ["command", "path"]
    assert found["properties"]["view_range"]["items"] == {"type": "integer"}


def test_submit_takes_nothing() -> None:
    assert SUBMIT.name == "submit"
    assert SUBMIT.parameters["properties"] == {}


def test_arguments_that_are_not_known_are_refused() -> None:
    with pytest.raises(ValidationError):
        TextEditorArguments.model_validate({"command": "view", "path": "a", "mode": "x"})
    with pytest.raises(ValidationError):
        BashTool.arguments.model_validate({"command": "ls", "timeout_s": float("inf")})
