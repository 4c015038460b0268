"""Diffs made by our own code, checked against git."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fbench.engine.records.diff import DiffStopped, diff_trees, quote_path
from fbench.engine.records.lines import Effort, unified_hunks

Tree = dict[str, tuple[str, bytes]]
"""Path to mode and content; a link's content is its target."""


@pytest.fixture
def before(tmp_path: Path) -> Path:
    (tmp_path / "before").mkdir()
    return tmp_path / "before"


@pytest.fixture
def after(tmp_path: Path) -> Path:
    (tmp_path / "after").mkdir()
    return tmp_path / "after"


def write_tree(root: Path, tree: Tree) -> None:
    for path, (mode, content) in tree.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if mode == "120000":
            place.symlink_to(os.fsdecode(content))
        else:
            place.write_bytes(content)
            place.chmod(int(mode[3:], 8))


def read_tree(root: Path) -> Tree:
    tree: Tree = {}
    for folder, folders, files in os.walk(root):
        for name in [*files, *folders]:
            place = Path(folder) / name
            path = str(place.relative_to(root))
            if place.is_symlink():
                tree[path] = ("120000", os.fsencode(place.readlink()))
            elif place.is_file():
                tree[path] = ("100755" if place.stat().st_mode & 0o100 else "100644", place.read_bytes())
    return tree


def git_apply(root: Path, patch: bytes) -> None:
    done = subprocess.run(
        ["git", "apply", "--whitespace=nowarn", "-"],
        input=patch,
        cwd=root,
        capture_output=True,
        check=False,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(root.parent), "GIT_CONFIG_NOSYSTEM": "1"},
    )
    assert done.returncode == 0, (done.stderr, patch)


def test_equal_trees_have_an_empty_diff(before: Path, after: Path) -> None:
    tree: Tree = {"a": ("100644", b"x\n"), "l": ("120000", b"a"), "b/c": ("100755", b"\0")}
    write_tree(before, tree)
    write_tree(after, tree)
    assert diff_trees(before, after) == b""


def test_the_text_is_that_of_git(before: Path, after: Path) -> None:
    lines = [b"line %d\n" % number for number in range(40)]
    write_tree(before, {"a b.txt": ("100644", b"".join(lines)), "gone": ("100755", b"1\n2")})
    changed = [*lines]
    changed[5] = b"five\n"
    del changed[30]
    write_tree(after, {"a b.txt": ("100755", b"".join(changed)), "new\t": ("100644", b"n\n")})
    ours = diff_trees(before, after)
    command = ["git", "diff", "--no-index", "--no-renames", "--no-prefix", "--unified=3", "before", "after"]
    theirs = subprocess.run(command, cwd=before.parent, capture_output=True, check=False).stdout
    hunks = [line for line in theirs.splitlines() if not line.startswith((b"diff", b"index", b"---", b"+++"))]
    wanted = [line.split(b" @@ ")[0] + b" @@" if b" @@ " in line else line for line in hunks]
    assert [line for line in ours.splitlines() if not line.startswith((b"diff", b"---", b"+++"))] == wanted
    assert b"--- a/a b.txt\t\n+++ b/a b.txt\t\n" in ours
    assert b'diff --git "a/new\\t" "b/new\\t"\nnew file mode 100644\n--- /dev/null\n+++ "b/new\\t"\n' in ours
    assert b"\\ No newline at end of file\n" in ours


NAME = st.sampled_from(["a", "b", "a.txt", "a b", 'q"\\', "\xe9", "\udcff", "new\nline", "-x", " lead", "a\tb"])
PATH = st.lists(NAME, min_size=1, max_size=3).map("/".join)
LINE = st.sampled_from([b"a\n", b"b\n", b"\n", b"c\r\n", b"\xff\xfe\n", b"--- a/x\n", b"+++ b\n", b"@@ -1 +1 @@\n"])
TEXT = st.builds(lambda lines, end: b"".join(lines) + end, st.lists(LINE, max_size=30), st.sampled_from([b"", b"e"]))
# No link leads to itself: `git apply` gives up at such a one where a folder takes its place.
ENTRY = st.one_of(
    st.tuples(st.sampled_from(["100644", "100755"]), TEXT),
    st.tuples(st.just("120000"), st.sampled_from([b"nowhere", b"../x", b"/etc/passwd", b"a b\n\xff"])),
)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    found = draw(st.dictionaries(PATH, ENTRY, max_size=6))
    return {path: entry for path, entry in found.items() if not any(other.startswith(path + "/") for other in found)}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(old=trees(), new=trees())
def test_git_makes_the_new_tree_of_the_old_one_with_our_diff(old: Tree, new: Tree) -> None:
    with tempfile.TemporaryDirectory() as base:
        before, after = Path(base) / "before", Path(base) / "after"
        before.mkdir()
        after.mkdir()
        write_tree(before, old)
        write_tree(after, new)
        patch = diff_trees(before, after)
        if patch:
            git_apply(before, patch)
        assert read_tree(before) == new


@settings(max_examples=300, deadline=None)
@given(old=st.lists(LINE, max_size=60), new=st.lists(LINE, max_size=60), steps=st.sampled_from([0, 20, 10**6]))
def test_hunks_rebuild_the_new_text_whatever_the_effort(old: list[bytes], new: list[bytes], steps: int) -> None:
    hunks = unified_hunks(b"".join(old), b"".join(new), Effort(steps))
    result: list[bytes] = []
    position = 0
    for line in hunks:
        if line.startswith(b"@@"):
            start, _, count = line.split(b" ")[1][1:].partition(b",")
            begin = int(start) - (count != b"0")
            result += old[position:begin]
            position = begin
        elif line[:1] == b"+":
            result.append(line[1:])
        else:
            assert old[position] == line[1:]
            position += 1
            if line[:1] == b" ":
                result.append(line[1:])
    assert result + old[position:] == new


def test_binary_and_large_files_are_named_by_size_and_hash(before: Path, after: Path) -> None:
    big = b"x\n" * (6 * 1024 * 1024)
    write_tree(before, {"bin": ("100644", b"a\0"), "t": ("100644", b"1\n")})
    write_tree(after, {"bin": ("100755", b"ab\0"), "big": ("100644", big), "t": ("100644", b"2\n")})
    patch = diff_trees(before, after)
    sums = {data: hashlib.sha256(data).hexdigest() for data in (b"a\0", b"ab\0", big)}
    assert (
        f"Binary files a/bin and b/bin differ (before: mode 100644 2 bytes sha256 {sums[b'a' + bytes(1)]}, "
        f"after: mode 100755 3 bytes sha256 {sums[b'ab' + bytes(1)]})\n"
    ).encode() in patch
    assert (
        f"Binary files /dev/null and b/big differ (before: absent, after: mode 100644 {len(big)} bytes sha256 "
        f"{sums[big]})\n"
    ).encode() in patch
    git_apply(before, patch)
    assert (before / "t").read_bytes() == b"2\n"


def test_a_sparse_file_of_any_stated_size_is_quick(before: Path, after: Path) -> None:
    for root, end in ((before, b"1"), (after, b"2")):
        for name in ("same", "other"):
            with (root / name).open("wb") as file:
                file.truncate(2**40)
                file.seek(2**39)
                file.write(b"1" if name == "same" else end)
    started = time.monotonic()
    patch = diff_trees(before, after)
    assert time.monotonic() - started < 5
    assert patch.count(b"Binary files") == 1
    assert b"1099511627776 bytes" in patch


def test_special_entries_are_listed_by_kind(before: Path, after: Path) -> None:
    os.mkfifo(after / "pipe")
    (before / "pipe").write_bytes(b"x\n")
    patch = diff_trees(before, after)
    assert b"Special entry b/pipe (FIFO)\n" in patch
    assert b"deleted file mode 100644" in patch


def test_caches_and_git_are_left_out(before: Path, after: Path) -> None:
    for path in (".git/config", "a/__pycache__/x.py", "m.pyc", ".pytest_cache/v", "d/.git"):
        write_tree(after, {path: ("100644", b"x\n")})
    write_tree(after, {"d/.gitignore": ("100644", b"x\n")})
    assert diff_trees(before, after).count(b"diff --git") == 1


def test_a_subpath_selects_a_file_or_a_folder(before: Path, after: Path) -> None:
    write_tree(after, dict.fromkeys(("a", "d/a", "d/e/f", "dd/a", "z"), ("100644", b"x\n")))
    assert diff_trees(before, after, subpath="d").count(b"diff --git") == 2
    assert diff_trees(before, after, subpath="./d/e/f").count(b"diff --git") == 1
    assert diff_trees(before, after, subpath="a").count(b"diff --git") == 1
    assert diff_trees(before, after, subpath="nothing") == b""
    assert diff_trees(before, after, subpath=".").count(b"diff --git") == 5
    for wrong in ("../x", "/etc"):
        with pytest.raises(ValueError, match="no path inside"):
            diff_trees(before, after, subpath=wrong)


def test_links_are_compared_and_never_followed(before: Path, after: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "f").write_bytes(b"secret\n")
    (before / "d").mkdir()
    (before / "d/f").write_bytes(b"x\n")
    (after / "d").symlink_to(secret)
    patch = diff_trees(before, after)
    assert b"secret\n" not in patch.replace(os.fsencode(secret), b"").replace(b"+\n", b"")
    assert b"new file mode 120000" in patch
    git_apply(before, patch)
    assert (before / "d").readlink() == secret


def test_a_root_that_is_gone_is_an_empty_tree(before: Path, after: Path) -> None:
    write_tree(before, {"a": ("100644", b"x\n")})
    after.rmdir()
    assert b"deleted file mode" in diff_trees(before, after)
    after.symlink_to("/etc")
    assert diff_trees(before, after).count(b"diff --git") == 1


def test_the_diff_is_cut_with_a_note(before: Path, after: Path) -> None:
    write_tree(after, {f"f{number}": ("100644", b"x\n" * 100) for number in range(10)})
    patch = diff_trees(before, after, max_bytes=500)
    assert patch.endswith(b"# The diff was cut here; paths not compared: 8\n")
    assert len(patch) < 2000


def test_a_stop_ends_the_diff(before: Path, after: Path) -> None:
    write_tree(after, {"f": ("100644", b"x\n")})
    with pytest.raises(DiffStopped):
        diff_trees(before, after, stop=lambda: True)


def test_files_without_a_common_line_take_bounded_time(before: Path, after: Path) -> None:
    count = 100_000
    one = b"".join(b"%d\n" % (number * 7919 % 1000) for number in range(count))
    two = b"".join(b"%d\n" % (number * 104729 % 997) for number in range(count))
    write_tree(before, {"f": ("100644", one), "lf": ("100644", b"\n" * 9_000_000 + b"x\n"), "k": ("100644", b"")})
    write_tree(
        after, {"f": ("100644", two), "lf": ("100644", b"x\n" + b"\n" * 9_000_000), "k": ("100644", b"a\n" * 10**6)}
    )
    started = time.monotonic()
    patch = diff_trees(before, after)
    assert time.monotonic() - started < 20
    git_apply(before, patch)
    assert read_tree(before) == read_tree(after)


def test_one_changed_line_of_many_is_one_small_hunk(before: Path, after: Path) -> None:
    lines = [b"%d\n" % number for number in range(500_000)]
    write_tree(before, {"f": ("100644", b"".join(lines))})
    lines[250_000] = b"changed\n"
    write_tree(after, {"f": ("100644", b"".join(lines))})
    patch = diff_trees(before, after)
    assert b"@@ -249998,7 +249998,7 @@\n" in patch
    assert len(patch) < 300


def test_many_scattered_changes_stay_small(before: Path, after: Path) -> None:
    lines = [b"%d\n" % number for number in range(20_000)]
    write_tree(before, {"f": ("100644", b"".join(lines))})
    lines[::100] = [b"changed\n"] * 200
    write_tree(after, {"f": ("100644", b"".join(lines))})
    assert diff_trees(before, after).count(b"@@ -") == 200


def test_depth_beyond_any_path_length_is_named_once(before: Path, after: Path) -> None:
    here = os.open(after, os.O_RDONLY)
    for _ in range(400):
        os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=here))
        os.mkdir("n" * 100, dir_fd=here)
        below = os.open("n" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    patch = diff_trees(before, after)
    assert patch.count(b"too deep") == 1
    assert patch.count(b"diff --git") == 163
    shutil.rmtree(after)


@pytest.mark.parametrize(
    ("path", "quoted"),
    [
        (b"a b", b"a b"),
        (b'a"b', b'"a\\"b"'),
        (b"a\\b", b'"a\\\\b"'),
        (b"\xc3\xa9", b'"\\303\\251"'),
        (b"\x01\n\x7f", b'"\\001\\n\\177"'),
    ],
)
def test_names_are_quoted_as_git_does(path: bytes, quoted: bytes) -> None:
    assert quote_path(path) == quoted


AS_NOBODY = """
import os, stat, sys
from pathlib import Path
from fbench.engine.records.diff import diff_trees
base = Path(sys.argv[1])
os.setgid(65534)
os.setuid(65534)
(base / "before").mkdir()
(base / "after/d").mkdir(parents=True)
(base / "after/d/f").write_text("text\\n")
for name in ("after/d/f", "after/d", "after"):
    (base / name).chmod(0)
patch = diff_trees(base / "before", base / "after")
assert stat.S_IMODE((base / "after").stat().st_mode) == 0
(base / "after").chmod(0o700)
assert stat.S_IMODE((base / "after/d").stat().st_mode) == 0
print(patch.decode())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_what_its_owner_locked_is_compared_all_the_same() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        Path(base).chmod(0o777)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, base], capture_output=True, text=True, check=False, cwd="/"
        )
    assert "+++ b/d/f\n@@ -0,0 +1 @@\n+text\n" in done.stdout, done.stderr
