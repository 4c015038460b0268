"""Count what scorer.py of the workspace (the current folder) buys; one JSON object is printed.

    python -I -B "$FBENCH_GRADER/judge.py" KIND [SEED]     # one of generate.KINDS: other forests, other rows

`saving` is the share of the shipped scorer's cost that is not spent, and 0 when one class is another than the forest's.
Forest and rows are drawn anew for each check. This process keeps the values, gives them one by one over a pipe (see
probe.py) and counts what it gave; no code of the workspace runs in it, and its memory is not to be read.
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
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402 - the grader's folder is not in the path of an isolated interpreter

TIMEOUT_S = 120.0  # the solution takes 2 s of CPU; a busy machine may take long over it
MAX_SOURCE_BYTES = 1_000_000
MAX_LINE_BYTES = 100_000
MAX_TIMES_THE_COST = 30
PR_SET_DUMPABLE = 4


class Unusable(Exception):
    """The scorer cannot be asked, or did not answer."""


def hide_memory():
    """From here on /proc/PID of this process belongs to root: neither its memory nor its descriptors can be opened."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def read_source():
    try:
        descriptor = os.open("scorer.py", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Unusable(f"there is no file scorer.py: {error.strerror}") from None
    with open(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unusable("scorer.py is no regular file")
        data = stream.read(MAX_SOURCE_BYTES + 1)
    if len(data) > MAX_SOURCE_BYTES:
        raise Unusable(f"scorer.py is larger than {MAX_SOURCE_BYTES} bytes")
    return data.decode("utf-8", "replace")


class Store:
    """Gives values and counts their prices."""

    def __init__(self, forest, rows, most):
        self.prices, self.rows, self.most = forest["prices"], rows, most
        self.cost = 0

    def give(self, row_id, name):
        if not isinstance(row_id, str) or row_id not in self.rows or not isinstance(name, str) or name not in self.prices:
            raise Unusable(f"a value was asked for that there is not: {str(row_id)[:40]!r}, {str(name)[:40]!r}")
        self.cost += self.prices[name]
        if self.cost > self.most:
            raise Unusable(f"more than {MAX_TIMES_THE_COST} times the shipped scorer's cost was spent")
        return self.rows[row_id][name]


def converse(process, first, store):
    """The classes that the process answers in the end, after having asked the store."""
    def say(value):
        process.stdin.write(json.dumps(value).encode() + b"\n")
        process.stdin.flush()

    try:
        say(first)
        while line := process.stdout.readline(MAX_LINE_BYTES):
            said = json.loads(line)
            if not isinstance(said, dict):
                raise Unusable("the scorer said what is no question and no answer")
            if "classes" in said:
                return said["classes"]
            say(store.give(said.get("row"), said.get("name")))
    except (ValueError, RecursionError, OSError):
        pass
    return None


def ask(source, forest, row_ids, store):
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", (HERE / "probe.py").read_text(encoding="utf-8")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=scratch, start_new_session=True,
            env={"HOME": scratch, "TMPDIR": scratch, "TZ": "UTC", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0",
                 "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )

        def end():
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass

        timer = threading.Timer(TIMEOUT_S, end)
        timer.start()
        try:
            answer = converse(process, {"source": source, "forest": forest, "row_ids": row_ids}, store)
        finally:
            is_late = not timer.is_alive()
            timer.cancel()
            end()
            process.wait()
            process.stdout.close()
            try:
                process.stdin.close()
            except OSError:
                pass
        log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
        said = log.read().decode(errors="replace").strip()
    if answer is None:
        why = f"did not answer within {TIMEOUT_S:g} s" if is_late else "ended without an answer"
        raise Unusable(f"the scorer {why}. It said: {said or 'nothing'}")
    return answer


def judge(kind, seed):
    forest, rows, row_ids = generate.generate(seed, kind)
    right = {row_id: generate.classify(forest, row) for row_id, row in rows.items()}
    shipped = sum(forest["prices"][name] for row_id in row_ids for name in right[row_id][1])
    store = Store(forest, rows, MAX_TIMES_THE_COST * shipped)
    answer = ask(read_source(), forest, row_ids, store)
    if not isinstance(answer, list) or len(answer) != len(row_ids):
        raise Unusable("the scorer gave another number of classes than it was asked for")
    wrong = sum(type(given) is not int or given != right[row_id][0] for given, row_id in zip(answer, row_ids, strict=True))
    share = 0.0 if wrong else max(0.0, 1.0 - store.cost / shipped)
    return {"saving": share, "wrong": wrong, "rows": len(row_ids), "cost": store.cost, "shipped_cost": shipped}


def main(argv):
    hide_memory()
    seed = argv[1] if len(argv) > 1 else secrets.token_hex(16)
    try:
        found = judge(argv[0], seed)
    except Unusable as problem:
        found = {"saving": 0.0, "problem": str(problem)}
    print(json.dumps({"seed": seed, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
