"""Rank documents nobody has seen by the workspace's search.py. The current folder is the workspace.

    python -I -B "$FBENCH_GRADER/judge.py" small|full [SEED]

prints one JSON object: `ndcg_of_reference`, `recall_of_reference` and `worst_sort_of_reference` are shares of what the BM25
of reference.py reaches on the same queries, `queries_without_replaced` is a share of the queries. What is relevant exists
in this process only, which runs no code of the workspace and makes its memory unreadable before it starts any: see
probe.py.
"""

import ctypes
import json
import math
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
SIZES = {"small": (160, 50), "full": (500, 150)}  # documents that are in date, queries
COUNT = 20
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


def ask(source, world):
    """What `search` answers, one JSON value a query; the files between the processes have no names."""
    task = {"source": source, "count": COUNT, "queries": list(world["queries"].values()),
            "documents": world["documents"], "aliases": world["aliases"]}
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as answered, tempfile.TemporaryFile() as log:
        asked.write(json.dumps(task).encode())
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
            raise Unusable(f"search.py did not answer within {PROBE_TIMEOUT_S:g} s") from None
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
    if not isinstance(answers, list) or len(answers) != len(world["queries"]):
        raise Unusable(f"search.py ended without answering. It said: {said or 'nothing'}")
    return answers


def ranking(answer):
    """The ids of an answer, each once; what is none of them is left out."""
    given = answer.get("value") if isinstance(answer, dict) else None
    names = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
    return list(dict.fromkeys(names))[:COUNT]


def ndcg(names, grades):
    def dcg(values):
        return sum((2**grade - 1) / math.log2(rank + 1) for rank, grade in enumerate(values[:10], 1))

    return dcg([grades.get(name, 0) for name in names]) / dcg(sorted(grades.values(), reverse=True))


def recall(names, grades):
    about = {name for name, grade in grades.items() if grade == 3}
    return len(about & set(names)) / len(about)


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def measure(found, world):
    """(nDCG, recall, {sort of query: nDCG}) of rankings by query."""
    ndcgs = {query: ndcg(names, world["qrels"][query]) for query, names in found.items()}
    sorts = {sort: mean(ndcgs[query] for query, kind in world["kinds"].items() if kind == sort) for sort in generate.KINDS}
    return mean(ndcgs.values()), mean(recall(names, world["qrels"][query]) for query, names in found.items()), sorts


def judge(source, size, seed):
    world = generate.generate(seed, *SIZES[size])
    answers = ask(source, world)
    given = {query: ranking(answer) for query, answer in zip(world["queries"], answers)}
    ruler = reference.Ranking(world["documents"], world["aliases"])
    right = {query: ruler.search(text, COUNT) for query, text in world["queries"].items()}
    replaced = {document["replaces"] for document in world["documents"]}
    (ndcg_given, recall_given, sorts_given), (ndcg_right, recall_right, sorts_right) = (
        measure(found, world) for found in (given, right)
    )
    # An answer of nothing holds nothing that was replaced; it is no answer.
    current = [bool(names) and replaced.isdisjoint(names) for names in given.values()]
    return {
        "ndcg_of_reference": ndcg_given / ndcg_right,
        "recall_of_reference": recall_given / recall_right,
        "worst_sort_of_reference": min(sorts_given[sort] / sorts_right[sort] for sort in generate.KINDS),
        "queries_without_replaced": mean(map(float, current)),
        "ndcg": ndcg_given,
        "recall": recall_given,
        "ndcg_by_sort": sorts_given,
        "errors": [answer["error"] for answer in answers if isinstance(answer, dict) and "error" in answer][:3],
    }


NOTHING = {"ndcg_of_reference": 0.0, "recall_of_reference": 0.0, "worst_sort_of_reference": 0.0, "queries_without_replaced": 0.0}


def main(argv):
    hide_memory()
    size, seed = argv[0], argv[1] if len(argv) > 1 else secrets.token_hex(16)
    try:
        found = judge(read_source("search.py"), size, seed)
    except Unusable as problem:
        found = {**NOTHING, "problem": str(problem)}
    print(json.dumps({"seed": seed, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
