"""Runs transform.py where it can read its input but not the grader.

Started by judge.py as `python -I -B -c <this text> GRADER SCRIPT ARGUMENT...` in the workspace. An audit hook, which
Python cannot take away again, ends the process when it opens a file of the grader (told by inode, so that links and
other spellings of the path do not matter), anything in /proc or a folder, when it starts a program, loads native code
from elsewhere, makes a link or looks for the hook. It ends the process, since an exception would hand its frame to the
script; all it uses is bound before the script runs, so that patched builtins do not reach it.
"""

import contextlib
import os
import runpy
import sys

REFUSED = frozenset(
    "os.exec os.fork os.forkpty os.posix_spawn os.spawn os.system pty.spawn subprocess.Popen os.link os.symlink "
    "ctypes.dlopen ctypes.dlsym ctypes.dlsym/handle gc.get_objects gc.get_referents gc.get_referrers "
    "sys._current_frames sys._current_exceptions".split()
)
OPENING = frozenset({"open", "os.listdir", "os.scandir"})


def inode(path):
    facts = os.stat(path)
    return facts.st_dev, facts.st_ino


def files_of(grader):
    """Inodes of the folder and of all that is in it."""
    found = {inode(grader)}
    for folder, folders, files in os.walk(grader):
        found.update(inode(os.path.join(folder, name)) for name in (*folders, *files))
    return frozenset(found)


def make_hook(
    denied,
    proc,
    prefixes,
    *,
    refused=REFUSED,
    opening=OPENING,
    stat=os.stat,
    write=os.write,
    leave=os._exit,
    failures=(OSError, ValueError, TypeError),
):
    """The hook; `proc` is the device of /proc, `prefixes` are the folders native code may come from."""

    def refuse(what):
        write(2, b"transform.py may not do this while it is judged: " + what.encode() + b"\n")
        leave(1)

    def hook(event, arguments):
        if event in refused:
            refuse(event)
        if event == "import":
            place = arguments[1]
            if place is not None and not place.startswith(prefixes):
                refuse("load native code of its own")
        if event in opening:
            path = arguments[0] if arguments[0] is not None else "."
            try:
                facts = stat(path)
            except failures:
                return
            if (facts.st_dev, facts.st_ino) in denied:
                refuse("read the grader")
            if facts.st_dev == proc:
                refuse("read /proc")
            if event == "open" and facts.st_mode & 0o170000 == 0o040000:
                refuse("open a folder by os.open")

    return hook


def main():
    grader, script, *arguments = sys.argv[1:]
    with contextlib.suppress(ImportError):
        # Loads its native code now, before that is refused.
        import pandas  # noqa: F401
    sys.argv = [script, *arguments]
    prefixes = (sys.prefix + "/", sys.base_prefix + "/", *filter(None, sys.path))
    sys.path.insert(0, os.getcwd())
    proc = os.stat("/proc").st_dev if os.path.isdir("/proc/self") else None
    sys.addaudithook(make_hook(files_of(grader), proc, prefixes))
    runpy.run_path(script, run_name="__main__")


main()
