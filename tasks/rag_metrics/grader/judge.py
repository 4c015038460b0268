"""Ask the workspace's rag_eval.py about cases it has never seen. The current folder is the workspace.

    python -I -B "$FBENCH_GRADER/judge.py" GROUP [SEED]

prints one JSON object with `share_right`, the share of the numbers asked for that are right to 1e-9. GROUP is `distinct`,
`corners`, `large`, or `tied_` and a metric. Right answers exist in this process only, which runs no code of the workspace
and makes its memory unreadable before it starts any: see probe.py.
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

import generate  # noqa: E402 - the grader's folder is not in the path of an isolated interpreter
import reference  # noqa: E402

PROBE_TIMEOUT_S = 50.0
MAX_SOURCE_BYTES = 1_000_000
MAX_ANSWER_BYTES = 8_000_000
TOLERANCE = 1e-9
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


def ask(source, cases):
    """What `evaluate` answers, one JSON value a case; the files between the processes have no names."""
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as answered, tempfile.TemporaryFile() as log:
        asked.write(json.dumps({"source": source, "cases": cases}).encode())
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
            raise Unusable(f"rag_eval.py did not answer within {PROBE_TIMEOUT_S:g} s") from None
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
    if not isinstance(answers, list) or len(answers) != len(cases):
        raise Unusable(f"rag_eval.py ended without answering. It said: {said or 'nothing'}")
    return answers


def numbers(expected, metric):
    """(path, right value) of each number asked for; with a metric only its own, of queries."""
    for query, values in expected["queries"].items():
        for name, value in values.items():
            if metric is None or name.startswith(f"{metric}@"):
                yield ("queries", query, name), value
    if metric is None:
        for name, value in expected["mean"].items():
            yield ("mean", name), value


def at(answer, path):
    for key in path:
        answer = answer.get(key) if isinstance(answer, dict) else None
    return answer


def is_close(given, right):
    return type(given) in (int, float) and abs(given - right) <= TOLERANCE


def has_right_shape(given, expected):
    """Whether the queries, metrics and skipped queries are those that should be there."""
    try:
        return (
            given.keys() == expected.keys()
            and given["skipped"] == expected["skipped"]
            and given["mean"].keys() == expected["mean"].keys()
            and {query: set(values) for query, values in given["queries"].items()}
            == {query: set(values) for query, values in expected["queries"].items()}
        )
    except (AttributeError, TypeError):
        return False


def depends_on_order(case):
    """The queries of a case where one order of the tied gives other numbers than another order."""
    two = []
    for sign in (1, -1):
        run = {query: [[passage, [score, sign * place]] for place, (passage, score) in enumerate(sorted(results))]
               for query, results in case["run"].items()}
        two.append(reference.evaluate(case["qrels"], run, case["ks"])["queries"])
    return two


def judge(source, group, seed):
    name, _, metric = group.partition("_")
    cases = generate.draw(name, seed)
    answers = ask(source, cases)
    right = total = 0
    wrong = []
    for case, answer in zip(cases, answers):
        expected = reference.evaluate(**case)
        given = answer.get("value") if isinstance(answer, dict) else None
        judged = list(numbers(expected, metric or None))
        if metric:
            one, other = depends_on_order(case)
            judged = [(path, value) for path, value in judged
                      if abs(one[path[1]][path[2]] - other[path[1]][path[2]]) > 1e-6]
        else:
            total += 1
            if has_right_shape(given, expected):
                right += 1
            elif len(wrong) < 3:
                wrong.append({"keys of": case["qrels"], "expected skipped": expected["skipped"], "got": str(given)[:300]})
        total += len(judged)
        for path, value in judged:
            if is_close(at(given, path), value):
                right += 1
            elif len(wrong) < 3:
                error = answer.get("error") if isinstance(answer, dict) else None
                wrong.append({"number": path, "expected": value, "got": str(at(given, path))[:100], "error": error})
    return {"share_right": right / total, "numbers": total, "wrong": wrong}


def main(argv):
    hide_memory()
    group, seed = argv[0], argv[1] if len(argv) > 1 else secrets.token_hex(16)
    try:
        found = judge(read_source("rag_eval.py"), group, seed)
    except Unusable as problem:
        found = {"share_right": 0.0, "problem": str(problem)}
    print(json.dumps({"seed": seed, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
