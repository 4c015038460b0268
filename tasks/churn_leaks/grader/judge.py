"""Measure the leaks that were named and the scores that were given. The current folder is the workspace; one JSON
object is printed.

    python -I -B "$FBENCH_GRADER/judge.py" leaks           # out/leaks.txt
    python -I -B "$FBENCH_GRADER/judge.py" visible         # out/scores.csv for data/scoring.csv
    python -I -B "$FBENCH_GRADER/judge.py" fresh [SEED]    # score.py, trained and asked on a company nobody has seen

`auc` is the chance that a customer who left has a higher score than one who stayed, ties counting half: the same score
for everybody is 0.5. A customer without a finite score, or with two, has the worst there is. `f1` is that of the named
leaks; a name that is no column counts as a wrong one.
"""

import csv
import io
import json
import math
import secrets
import sys
import tempfile
from bisect import bisect_left, bisect_right
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402 - the grader's folder is not in the path of an isolated interpreter
from child import Unusable, hide_memory, read_file, run_script  # noqa: E402

FRESH_SIZES = (2500, 2500)


def judge_leaks():
    data = read_file("out/leaks.txt", Path.cwd().resolve() / "out")
    named = {line.strip() for line in data.decode("utf-8-sig", "replace").splitlines() if line.strip()}
    right = len(named & set(generate.LEAKS))
    return {
        "f1": 2.0 * right / (len(named) + len(generate.LEAKS)),
        "missing": sorted(set(generate.LEAKS) - named),
        "wrong": sorted(named - set(generate.LEAKS))[:20],
    }


def scores(data):
    """Scores by customer; NaN where there are two."""
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Unusable(f"the scores are no CSV in UTF-8: {error}") from None
    if not rows or not {"customer_id", "score"} <= set(rows[0]):
        raise Unusable("the scores have no rows, or lack a column of customer_id, score")
    found = {}
    for row in rows:
        key = (row["customer_id"] or "").strip()
        try:
            found[key] = math.nan if key in found else float(row["score"] or "nan")
        except ValueError:
            found[key] = math.nan
    return found


def measure(given, labels):
    """The AUC for labels by customer."""
    worst = {"yes": -math.inf, "no": math.inf}
    by_label = {"yes": [], "no": []}
    for customer, label in labels.items():
        score = given.get(customer, math.nan)
        by_label[label].append(score if math.isfinite(score) else worst[label])
    stayed = sorted(by_label["no"])
    won = sum(bisect_left(stayed, score) + bisect_right(stayed, score) for score in by_label["yes"])
    return {"auc": won / 2 / len(stayed) / len(by_label["yes"])}


def judge_visible():
    with open(HERE / "scoring_labels.csv", encoding="utf-8", newline="") as stream:
        labels = {row["customer_id"]: row[generate.LABEL] for row in csv.DictReader(stream)}
    return measure(scores(read_file("out/scores.csv", Path.cwd().resolve() / "out")), labels)


def judge_fresh(seed):
    history, scoring = generate.generate(seed, FRESH_SIZES)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name).resolve()
        generate.write_history(scratch / "history.csv", history)
        generate.write_scoring(scratch / "scoring.csv", scoring)
        place = run_script(
            "score.py",
            {"--history": scratch / "history.csv", "--input": scratch / "scoring.csv", "--output": True},
            scratch,
        )
        return measure(scores(read_file(place, place.parent)), {row[0]: label for row, label in scoring})


def main(argv):
    hide_memory()
    facts = {}
    try:
        if argv[0] == "leaks":
            found = judge_leaks()
        elif argv[0] == "visible":
            found = judge_visible()
        else:
            facts["seed"] = argv[1] if len(argv) > 1 else secrets.token_hex(16)
            found = judge_fresh(facts["seed"])
    except Unusable as problem:
        found = {"auc": 0.0, "f1": 0.0, "problem": str(problem)}
    print(json.dumps({**facts, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
