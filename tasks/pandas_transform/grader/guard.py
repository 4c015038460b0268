"""Runs transform.py where it can read its input but not the grader.

Started by judge.py as `python -I -B -c <this text> GRADER SCRIPT ARGUMENT...` in the workspace. Two things keep the script
out. The kernel refuses the grader's files to this process and all that it starts, where it has Landlock (Linux 5.13). And
an audit hook, which Python cannot take away again, ends the process when it opens a file of the grader (told by inode, so
that links and other spellings of the path do not matter), anything in /proc or a folder, when it starts a program, loads
native code from elsewhere, makes a link or looks for the hook. It ends the process, since an exception would hand its frame
to the script; all it uses is bound before the script runs, so that patched builtins do not reach it. The hook says what was
tried, and is alone on other kernels; an interpreter of the script's own does not have it.
"""

import contextlib
import ctypes
import os
import runpy
import struct
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


READ_FILE, REFER = 1 << 2, 1 << 13
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every architecture that Python runs on
PR_SET_NO_NEW_PRIVS = 38


def beside(place):
    """The paths that together hold every file but those in `place`: what lies beside it and beside each folder above."""
    place = os.path.realpath(place)
    while place != os.path.dirname(place):
        above = os.path.dirname(place)
        with os.scandir(above) as entries:
            yield from (entry.path for entry in entries if entry.path != place and not entry.is_symlink())
        place = above


def close(folder):
    """Have the kernel refuse to read files in the folder, from now on, in this process and its children; nor may they look
    into processes outside. False where it does not know how."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        return False
    rights = READ_FILE | (REFER if version >= 2 else 0)  # without REFER nothing could be moved to another folder
    attributes = struct.pack("=Q", rights)
    rules = libc.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    try:
        for path in list(beside(folder)):
            with contextlib.suppress(OSError):  # gone meanwhile
                inside = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
                granted = rights if os.path.isdir(path) else READ_FILE
                libc.syscall(ADD_RULE, rules, 1, struct.pack("=Qi", granted, inside), ctypes.c_uint32(0))
                os.close(inside)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        return libc.syscall(RESTRICT_SELF, rules, ctypes.c_uint32(0)) == 0
    finally:
        os.close(rules)


def main():
    grader, script, *arguments = sys.argv[1:]
    denied = files_of(grader)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a folder above that cannot be listed
            close(grader)
    with contextlib.suppress(ImportError):
        # Loads its native code now, before that is refused.
        import pandas  # noqa: F401
    sys.argv = [script, *arguments]
    prefixes = (sys.prefix + "/", sys.base_prefix + "/", *filter(None, sys.path))
    sys.path.insert(0, os.getcwd())
    proc = os.stat("/proc").st_dev if os.path.isdir("/proc/self") else None
    sys.addaudithook(make_hook(denied, proc, prefixes))
    runpy.run_path(script, run_name="__main__")


main()
