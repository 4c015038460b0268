"""Measure calibrated scores. The current folder is the workspace; one JSON object is printed.

    python -I -B "$FBENCH_GRADER/judge.py" visible         # out/ for data/
    python -I -B "$FBENCH_GRADER/judge.py" fresh [SEED]    # calibrate.py, for a lender nobody has seen

- `error_removed`: the share of the mean distance between score and true chance that is gone; `worst_segment` is the least
  of that over the segments. Scores that are handed back are 0, and worse ones are below.
- `ranking`: over pairs of applications of a segment, the share in the order of their scores; a tie where there was none
  counts half, so that one answer for all is 0.5.
- `order`: of neighbouring scores of a segment, the share that still differ in the right direction.
- `decisions`: the share of applications on the same side of the new cutoff as of the old one.

True chances are in no file: only this process has them, and other processes of the same user cannot read its memory.
"""

import csv
import io
import json
import math
import secrets
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402 - the grader's folder is not in the path of an isolated interpreter
from child import Unusable, hide_memory, read_file, run_script  # noqa: E402

NOTHING = {"error_removed": 0.0, "worst_segment": 0.0, "ranking": 0.0, "order": 0.0, "decisions": 0.0}


def table(data, key, value):
    """Numbers from 0 to 1 by key; None where there are two, or where it is none."""
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Unusable(f"the output is no CSV in UTF-8: {error}") from None
    if not rows or not {key, value} <= set(rows[0]):
        raise Unusable(f"the output has no rows, or lacks a column of {key}, {value}")
    found = {}
    for row in rows:
        name = (row[key] or "").strip()
        try:
            number = float(row[value] or "nan")
        except ValueError:
            number = math.nan
        found[name] = number if name not in found and 0.0 <= number <= 1.0 else None
    return found


def measure(folder, asked, cutoffs):
    given = table(read_file(folder / "probabilities.csv", folder), "application", "probability")
    bars = table(read_file(folder / "cutoffs.csv", folder), "segment", "cutoff")
    removed, order, ranking, decided, errors = [], [0, 0], [], 0, [0.0, 0.0]
    for segment, cutoff in cutoffs.items():
        rows = [(float(row[2]), given.get(row[0]), row[3]) for row in asked if row[1] == segment]
        # Whoever has no probability is as far off as can be, and on the wrong side.
        now = sum(1.0 if p is None else abs(p - chance) for _, p, chance in rows)
        before = sum(abs(score - chance) for score, _, chance in rows)
        errors[0] += now
        errors[1] += before
        removed.append(1.0 - now / before)
        bar = bars.get(segment)
        decided += sum(None not in (p, bar) and (p >= bar) == (score >= cutoff) for score, p, _ in rows)
        held = sorted((score, -1.0 if p is None else p) for score, p, _ in rows)
        neighbours = [(a, b) for a, b in zip(held, held[1:]) if a[0] < b[0]]
        order[0] += sum(a[1] < b[1] for a, b in neighbours)
        order[1] += len(neighbours)
        # Equal scores need equal probabilities, too.
        order[0] -= sum(a[0] == b[0] and a[1] != b[1] for a, b in zip(held, held[1:]))
        thin = held[::4]
        pairs = [(a[1], b[1]) for at, a in enumerate(thin) for b in thin[at + 1 :] if a[0] < b[0]]
        ranking.append(sum(1.0 if a < b else 0.5 * (a == b) for a, b in pairs) / len(pairs))
    return {
        "error_removed": 1.0 - errors[0] / errors[1],
        "worst_segment": min(removed),
        "ranking": min(ranking),
        "order": max(0.0, order[0] / order[1]),
        "decisions": decided / len(asked),
    }


def judge_fresh(seed):
    known, asked, cutoffs = generate.generate(seed)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name).resolve()
        folder = scratch / "data"
        folder.mkdir()
        generate.write_all(folder, known, asked, cutoffs)
        place = run_script("calibrate.py", {"--input": folder, "--output": True}, scratch)
        if place.is_symlink():
            raise Unusable("the folder of the output is a link")
        return measure(place, asked, cutoffs)


def main(argv):
    hide_memory()
    facts = {}
    try:
        if argv[0] == "visible":
            _, asked, cutoffs = generate.generate("visible")
            found = measure(Path.cwd().resolve() / "out", asked, cutoffs)
        else:
            facts["seed"] = argv[1] if len(argv) > 1 else secrets.token_hex(16)
            found = judge_fresh(facts["seed"])
    except Unusable as problem:
        found = {**NOTHING, "problem": str(problem)}
    print(json.dumps({**facts, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
