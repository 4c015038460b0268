"""Ask the workspace's feed.py about cases it has never seen. The current folder is the workspace.

    python -I -B "$FBENCH_GRADER/judge.py" GROUP [SEED]

prints one JSON object with `share_right`, the share of cases that are right. GROUP is one of cases.GROUPS. The verdict is
reached in this process, which runs no code of the workspace: the module runs in a child that is told steps and gives back
batches (probe.py); what is right of them is in cases.py.
"""

import ctypes
import json
import os
import secrets
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import cases  # noqa: E402 - the grader's folder is not in the path of an isolated interpreter

PROBE_TIMEOUT_S = 40.0
MAX_SOURCE_BYTES = 1_000_000
MAX_ANSWER_BYTES = 8_000_000
PR_SET_DUMPABLE = 4


class Unusable(Exception):
    """The module cannot be asked."""


def hide_memory():
    """From here on /proc/PID of this process belongs to root: neither its memory nor its descriptors can be opened."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def read_source(name):
    """The text of a regular file of the workspace; a link is none, so that nothing of the grader comes in."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Unusable(f"there is no file {name}: {error.strerror}") from None
    with open(descriptor, "rb") as stream:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            raise Unusable(f"{name} is no regular file of its own")
        data = stream.read(MAX_SOURCE_BYTES + 1)
    if len(data) > MAX_SOURCE_BYTES:
        raise Unusable(f"{name} is larger than {MAX_SOURCE_BYTES} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unusable(f"{name} is not UTF-8: {error}") from None


def ask(source, asked_cases):
    """What the steps of each case give, a list a case; the files between the processes have no names."""
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as answered, tempfile.TemporaryFile() as log:
        asked.write(json.dumps({"source": source, "cases": asked_cases}).encode())
        asked.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-c", (HERE / "probe.py").read_text(encoding="utf-8"),
             str(answered.fileno())],
            stdin=asked, stdout=log, stderr=log, env={}, cwd="/",
            pass_fds=(answered.fileno(),), start_new_session=True,
        )
        try:
            process.wait(PROBE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Unusable(f"feed.py did not answer within {PROBE_TIMEOUT_S:g} s") from None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            process.wait()
        answered.seek(0)
        data = answered.read(MAX_ANSWER_BYTES + 1)
        log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
        said = log.read().decode(errors="replace").strip()
    try:
        answers = json.loads(data)
    except (ValueError, RecursionError):
        answers = None
    if not isinstance(answers, list) or len(answers) != len(asked_cases):
        raise Unusable(f"feed.py ended without answering. It said: {said or 'nothing'}")
    return answers


def judge(source, group, seed):
    drawn = cases.draw(group, seed)
    answers = ask(source, [steps for steps, _ in drawn])
    wrong = []
    for (steps, is_right), said in zip(drawn, answers):
        try:
            right = isinstance(said, list) and len(said) <= len(steps) and is_right(said) is True
        except (TypeError, KeyError, IndexError, AttributeError, ValueError):  # the answer has another shape
            right = False
        if not right:
            wrong.append({"steps": steps, "got": str(said)[:600]})
    return {"share_right": 1.0 - len(wrong) / len(drawn), "cases": len(drawn), "wrong": wrong[:2]}


def main(argv):
    hide_memory()
    group, seed = argv[0], argv[1] if len(argv) > 1 else secrets.token_hex(16)
    try:
        found = judge(read_source("feed.py"), group, seed)
    except Unusable as problem:
        found = {"share_right": 0.0, "problem": str(problem)}
    print(json.dumps({"seed": seed, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
