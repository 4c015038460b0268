"""Run the workspace's analysis.py on simulated experiments whose truth only this process knows.

    python -I -B "$FBENCH_GRADER/judge.py" single|peeking|mismatch [COUNT [SEED]]

in the workspace prints one JSON object: over COUNT experiments the share whose interval holds the truth (at every look),
how often an effect is found and how often one that is not there, how wide the intervals are, how often a sample-ratio
mismatch is told rightly. Looks are asked about one after the other, so that none can know the next. The process makes its
memory unreadable before it starts any code of the workspace, and the seed is in no file.
"""

import ctypes
import json
import math
import os
import secrets
import select
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402 - the grader's folder is not in the path of an isolated interpreter

SCRIPT_TIMEOUT_S = 240.0
MAX_SOURCE_BYTES = 1_000_000
MAX_ANSWER_BYTES = 20_000
COUNTS = {"single": 240, "peeking": 160, "mismatch": 60}
CRITICAL, DOUBTFUL = 10.8276, (8.0, 14.0)  # chi-squared of p = 0.001; what is so near is not asked about
USELESS = 99.0
PR_SET_DUMPABLE = 4


class Unusable(Exception):
    """The module cannot be asked."""


def hide_memory():
    """From here on /proc/PID of this process belongs to root: neither its memory nor its descriptors can be opened."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def read_source(name):
    """The text of a regular file of the workspace; a link is none."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Unusable(f"there is no file {name}: {error.strerror}") from None
    with open(descriptor, "rb") as stream:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            raise Unusable(f"{name} is no regular file of its own")
        data = stream.read(MAX_SOURCE_BYTES + 1)
    try:
        return data[:MAX_SOURCE_BYTES].decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unusable(f"{name} is not UTF-8: {error}") from None


class Analyst:
    """The process that runs the module; it is asked line by line, all within SCRIPT_TIMEOUT_S."""

    def __init__(self, source, scratch):
        self.log = tempfile.TemporaryFile()
        questions_in, self.questions = os.pipe()
        self.answers, answers_out = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", (HERE / "probe.py").read_text(encoding="utf-8"), str(answers_out)],
            stdin=questions_in, stdout=self.log, stderr=self.log, pass_fds=(answers_out,), start_new_session=True,
            cwd=scratch, env={"PATH": os.environ.get("PATH", os.defpath), "HOME": scratch, "TMPDIR": scratch, "TZ": "UTC",
                              "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        os.close(questions_in)
        os.close(answers_out)
        os.set_blocking(self.questions, False)
        os.set_blocking(self.answers, False)
        self.deadline = time.monotonic() + SCRIPT_TIMEOUT_S
        self.waiting, self.received = memoryview(json.dumps(source).encode() + b"\n"), b""

    def ask(self, question):
        """What `analyse` gives, as a dict; empty when it failed or gave something else."""
        self.waiting = memoryview(bytes(self.waiting) + json.dumps(question).encode() + b"\n")
        while b"\n" not in self.received:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise Unusable(f"analysis.py did not end within {SCRIPT_TIMEOUT_S:g} s")
            readable, writable, _ = select.select([self.answers], [self.questions] if self.waiting else [], [], left)
            try:
                if writable:
                    self.waiting = self.waiting[os.write(self.questions, self.waiting):]
            except BrokenPipeError:
                self.waiting = memoryview(b"")
            if readable:
                data = os.read(self.answers, 65536)
                self.received += data
                if not data or len(self.received) > MAX_ANSWER_BYTES:
                    raise Unusable(f"analysis.py ended, or answered too much. It said: {self.said() or 'nothing'}")
        line, _, self.received = self.received.partition(b"\n")
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict) and "error" in answer:
            self.error = str(answer["error"])[:300]
        value = answer.get("value") if isinstance(answer, dict) else None
        return value if isinstance(value, dict) else {}

    error = None

    def said(self):
        self.log.seek(max(0, self.log.seek(0, os.SEEK_END) - 2000))
        return self.log.read().decode(errors="replace").strip()

    def close(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self.process.wait()
        os.close(self.questions)
        os.close(self.answers)
        self.log.close()


def is_number(value):
    return type(value) in (int, float) and math.isfinite(value)


def interval(answer):
    """(low, high), or None where there is none that means something."""
    low, high, effect = (answer.get(name) for name in ("low", "high", "effect"))
    if not all(map(is_number, (low, high, effect))) or not low <= effect <= high:
        return None
    return low, high


def judge_intervals(analyst, experiments):
    """The measures of the groups `single` and `peeking`."""
    held, widths, found, invented = [], [], [], []
    for looks, truth in experiments:
        # Chance alone makes a mismatch now and then; such an experiment has no interval.
        asked = [look for look in looks if generate.chi_squared(look) < DOUBTFUL[0]]
        given = [interval(analyst.ask(look)) for look in asked]
        held.append(all(one is not None and one[0] <= truth["effect"] <= one[1] for one in given))
        excludes = any(one is not None and not one[0] <= 0 <= one[1] for one in given)
        (found if truth["effect"] else invented).append(excludes)
        if given and given[-1] is not None:
            widths.append((given[-1][1] - given[-1][0]) / (2 * 1.96 * truth["possible_se"]))
    coverage = sum(held) / len(held)
    width = sum(widths) / len(widths) if widths else USELESS
    return {
        "coverage": coverage,
        "tells_apart": sum(found) / len(found) - sum(invented) / len(invented),
        # Narrow intervals that do not hold the truth, five standard errors from 95 % or more, are worth nothing.
        "width_where_valid": min(width, USELESS) if coverage >= 0.95 - 5 * math.sqrt(0.0475 / len(held)) else USELESS,
        "width": width,
        "found": sum(found) / len(found),
        "invented": sum(invented) / len(invented),
    }


def judge_mismatch(analyst, experiments):
    right = []
    for (look,), _ in experiments:
        statistic = generate.chi_squared(look)
        if not DOUBTFUL[0] < statistic < DOUBTFUL[1]:
            answer = analyst.ask(look)
            told = answer.get("sample_ratio_mismatch")
            silent = all(name in answer and answer[name] is None for name in ("effect", "low", "high"))
            right.append(told is True and silent if statistic > CRITICAL else told is False and interval(answer) is not None)
    return {"mismatch_right": sum(right) / len(right), "asked": len(right)}


NOTHING = {"coverage": 0.0, "tells_apart": 0.0, "width_where_valid": USELESS, "mismatch_right": 0.0}


def main(argv):
    hide_memory()
    group, count = argv[0], int(argv[1]) if len(argv) > 1 else COUNTS[argv[0]]
    seed = argv[2] if len(argv) > 2 else secrets.token_hex(16)
    try:
        source = read_source("analysis.py")
        experiments = generate.draw(group, seed, count)
        with tempfile.TemporaryDirectory() as scratch:
            analyst = Analyst(source, scratch)
            try:
                found = (judge_mismatch if group == "mismatch" else judge_intervals)(analyst, experiments)
                found["error"] = analyst.error
            finally:
                analyst.close()
    except Unusable as problem:
        found = {**NOTHING, "problem": str(problem)}
    print(json.dumps({"seed": seed, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
