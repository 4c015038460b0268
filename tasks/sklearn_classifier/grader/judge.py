"""Measure predictions. The current folder is the workspace; one JSON object is printed.

    python -I -B "$FBENCH_GRADER/judge.py" test            # out/predictions.csv for data/test.csv
    python -I -B "$FBENCH_GRADER/judge.py" fresh [SEED]    # predict.py, trained and asked on customers nobody has seen

`balanced_accuracy` is the mean of the shares of right answers among those who renewed and those who did not: always
giving the same answer is 0.5. A customer without an answer, or with two, counts as answered wrongly.

Fresh customers come from a world of their own, drawn by a seed that exists in this process only. Their labels are in no
file, and other processes of the same user cannot read this one's memory: see `hide_memory`.
"""

import csv
import ctypes
import io
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

SCRIPT_TIMEOUT_S = 60.0
MAX_OUTPUT_BYTES = 1_000_000
FRESH_SIZES = (2000, 1000)
PR_SET_DUMPABLE = 4


class Unusable(Exception):
    """There are no predictions that could be compared."""


def hide_memory():
    """From here on /proc/PID of this process belongs to root: neither its memory nor its descriptors can be opened."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def read_file(path, inside):
    """The bytes of a regular file of the folder whose real path is `inside`: no link leads there, it is nobody else's."""
    try:
        if Path(path).parent.resolve() != inside:
            raise Unusable(f"{path} is not in its folder")
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


def predictions(data):
    """Answers by customer; None where two lines disagree about who is meant."""
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Unusable(f"the predictions are no CSV in UTF-8: {error}") from None
    if not rows or not {"customer_id", generate.LABEL} <= set(rows[0]):
        raise Unusable(f"the predictions have no rows, or lack a column of customer_id, {generate.LABEL}")
    found = {}
    for row in rows:
        key = (row["customer_id"] or "").strip()
        found[key] = None if key in found else (row[generate.LABEL] or "").strip()
    return found


def measure(given, labels):
    """The numbers for labels by customer."""
    shares = {}
    for label in ("yes", "no"):
        asked = [customer for customer, right in labels.items() if right == label]
        shares[label] = sum(given.get(customer) == label for customer in asked) / len(asked)
    answered = sum(given.get(customer) in {"yes", "no"} for customer in labels)
    return {
        "balanced_accuracy": (shares["yes"] + shares["no"]) / 2,
        "right_among_yes": shares["yes"],
        "right_among_no": shares["no"],
        "answered": answered / len(labels),
    }


def run_script(folder, scratch):
    """The bytes predict.py writes; its own output goes nowhere but into an error's text."""
    script = Path("predict.py")
    if script.is_symlink() or not script.is_file():
        raise Unusable("predict.py is no regular file")
    place = Path(tempfile.mkdtemp(dir=scratch)) / "deeper"
    output = place / f"{secrets.token_hex(6)}.csv"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-B", str(script), "--train", str(folder / "train.csv"),
             "--input", str(folder / "input.csv"), "--output", str(output)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(scratch), "TMPDIR": str(scratch), "TZ": "UTC",
                 "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "0"},
        )
        try:
            code = process.wait(SCRIPT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Unusable(f"predict.py did not end within {SCRIPT_TIMEOUT_S:g} s") from None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            process.wait()
        log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
        said = log.read().decode(errors="replace").strip()
    if code != 0:
        raise Unusable(f"predict.py ended with exit code {code}. It said: {said or 'nothing'}")
    return read_file(output, place)


def judge_test():
    with open(HERE / "test_labels.csv", encoding="utf-8", newline="") as stream:
        labels = {row["customer_id"]: row[generate.LABEL] for row in csv.DictReader(stream)}
    return measure(predictions(read_file("out/predictions.csv", Path.cwd().resolve() / "out")), labels)


def judge_fresh(seed):
    train, test = generate.generate(seed, FRESH_SIZES)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name).resolve()
        folder = scratch / "data"
        folder.mkdir()
        generate.write_train(folder / "train.csv", train)
        generate.write_input(folder / "input.csv", test)
        return measure(predictions(run_script(folder, scratch)), {row[0]: label for row, label in test})


def main(argv):
    hide_memory()
    facts = {}
    try:
        if argv[0] == "test":
            found = judge_test()
        else:
            facts["seed"] = argv[1] if len(argv) > 1 else secrets.token_hex(16)
            found = judge_fresh(facts["seed"])
    except Unusable as problem:
        found = {"balanced_accuracy": 0.0, "problem": str(problem)}
    print(json.dumps({**facts, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
