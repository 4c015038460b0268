"""Run the workspace's transform.py on data it has never seen. The current folder is the workspace.

    python -I -B "$FBENCH_GRADER/judge.py" hidden          # prints its summary of grader/hidden
    python -I -B "$FBENCH_GRADER/judge.py" fresh [SEED]    # prints how much of its summary of fresh data is right

`fresh` prints one JSON object: `rows_right`, the share of rows with every value right, and `keys_right`, the share of
regions and months that are the right ones; both count rows that should not be there. The data is drawn anew each time,
and what is right exists in this process only, which runs no code of the workspace: see guard.py.
"""

import csv
import io
import json
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from decimal import Decimal
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402 - the grader's folder is not in the path of an isolated interpreter
import summarise  # noqa: E402

SCRIPT_TIMEOUT_S = 45.0
MAX_OUTPUT_BYTES = 1_000_000
FRESH_ORDERS = 300
CENT = Decimal("0.01")
COUNTS = ("orders", "customers")


class Unusable(Exception):
    """The script gave no summary that can be compared."""


def transform(exports, scratch):
    """The bytes transform.py writes for these exports; its output folder does not exist beforehand."""
    script = Path("transform.py")
    if script.is_symlink() or not script.is_file():
        raise Unusable("transform.py is no regular file")
    output = scratch / secrets.token_hex(6) / f"{secrets.token_hex(6)}.csv"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", (HERE / "guard.py").read_text(encoding="utf-8"),
             str(HERE), str(script), "--input", f"{exports}/", "--output", str(output)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(scratch), "TMPDIR": str(scratch), "TZ": "UTC",
                 "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        try:
            code = process.wait(SCRIPT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Unusable(f"transform.py did not end within {SCRIPT_TIMEOUT_S:g} s") from None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            process.wait()
        log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
        said = log.read().decode(errors="replace").strip()
    if code != 0:
        raise Unusable(f"transform.py ended with exit code {code}. It said: {said or 'nothing'}")
    return read_output(output)


def read_output(path):
    """What is in the file; a link is no file, so nothing of the grader can be passed off as output."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Unusable(f"transform.py left no file at --output: {error.strerror}") from None
    with open(descriptor, "rb") as stream:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            raise Unusable("transform.py left something else than a new regular file at --output")
        data = stream.read(MAX_OUTPUT_BYTES + 1)
    if len(data) > MAX_OUTPUT_BYTES:
        raise Unusable(f"the output is larger than {MAX_OUTPUT_BYTES} bytes")
    return data


def table(data):
    """Rows by region and month; a key that comes twice is kept with no row, since neither can be right."""
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Unusable(f"the output is no CSV in UTF-8: {error}") from None
    if not rows or not set(summarise.COLUMNS) <= set(rows[0]):
        raise Unusable(f"the output has no rows or lacks columns of {', '.join(summarise.COLUMNS)}")
    found = {}
    for row in rows:
        key = (row["region"] or "", row["month"] or "")
        found[key] = row if key not in found else {}
    return found


def is_right(given, right):
    for column in summarise.COLUMNS[2:]:
        allowed = 0 if column in COUNTS else CENT
        try:
            value = Decimal((given.get(column) or "").strip())
            if not value.is_finite() or abs(value - Decimal(right[column])) > allowed:
                return False
        except ArithmeticError:
            return False
    return True


def compare(given, right):
    """`keys_right`, `rows_right` and the first few rows that are wrong."""
    keys = given.keys() | right.keys()
    good = [key for key in given.keys() & right.keys() if is_right(given[key], right[key])]
    wrong = [
        {"expected": right.get(key), "got": {str(name): str(text)[:100] for name, text in given.get(key, {}).items()}}
        for key in sorted(keys - set(good))
    ]
    return {
        "keys_right": len(given.keys() & right.keys()) / len(keys),
        "rows_right": len(good) / len(keys),
        "wrong": wrong[:3],
    }


def judge_fresh(seed, scratch):
    exports = scratch / "exports"
    generate.generate(exports, seed, FRESH_ORDERS)
    rows = summarise.summarise(exports)
    right = {(row[0], row[1]): dict(zip(summarise.COLUMNS, row, strict=True)) for row in rows}
    try:
        return compare(table(transform(exports, scratch)), right)
    except Unusable as problem:
        return {"keys_right": 0.0, "rows_right": 0.0, "problem": str(problem)}


def main(argv):
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if argv[0] == "fresh":
            seed = argv[1] if len(argv) > 1 else secrets.token_hex(8)
            print(json.dumps({"seed": seed, **judge_fresh(seed, scratch)}))
            return 0
        exports = Path(shutil.copytree(HERE / "hidden", scratch / "exports"))
        try:
            sys.stdout.buffer.write(transform(exports, scratch))
        except Unusable as problem:
            print(problem, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
