"""Runs a script of the workspace where it shares nothing with the judge, and reads what it left.

As in the grader of churn_leaks.
"""

import ctypes
import os
import resource
import secrets
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT_TIMEOUT_S = 120.0
MAX_OUTPUT_BYTES = 4_000_000
MAX_WRITTEN_BYTES = 50_000_000
PR_SET_DUMPABLE = 4


class Unusable(Exception):
    """There is nothing that could be compared."""


def hide_memory():
    """From here on /proc/PID of this process belongs to root: neither its memory nor its descriptors can be opened."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def read_file(path, inside):
    """The bytes of a regular file of the folder whose real path is `inside`: no link leads there, it is nobody else's."""
    try:
        if Path(path).parent.resolve() != inside:
            raise Unusable(f"{Path(path).name} is not in its folder")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Unusable(f"there is no file {Path(path).name}: {error.strerror}") from None
    with open(descriptor, "rb") as stream:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            raise Unusable(f"{Path(path).name} is no regular file of its own")
        data = stream.read(MAX_OUTPUT_BYTES + 1)
    if len(data) > MAX_OUTPUT_BYTES:
        raise Unusable(f"{Path(path).name} is larger than {MAX_OUTPUT_BYTES} bytes")
    return data


def limit_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_WRITTEN_BYTES, MAX_WRITTEN_BYTES))


def run_script(name, arguments, scratch):
    """Run it in the workspace; True values of `arguments` stand for a new place to write to, whose path is returned."""
    script = Path(name)
    if script.is_symlink() or not script.is_file():
        raise Unusable(f"{name} is no regular file")
    place = Path(tempfile.mkdtemp(dir=scratch)) / "deeper" / secrets.token_hex(6)
    words = [str(place if value is True else value) for option in arguments.items() for value in option]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-B", str(script), *words],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, preexec_fn=limit_files,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(scratch), "TMPDIR": str(scratch), "TZ": "UTC",
                 "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
        )
        try:
            code = process.wait(SCRIPT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Unusable(f"{name} did not end within {SCRIPT_TIMEOUT_S:g} s") from None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            process.wait()
        log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
        said = log.read().decode(errors="replace").strip()
    if code != 0:
        raise Unusable(f"{name} ended with exit code {code}. It said: {said or 'nothing'}")
    return place
