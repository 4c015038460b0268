"""Measure expected claims. The current folder is the workspace; one JSON object is printed.

    python -I -B "$FBENCH_GRADER/judge.py" visible         # out/expected.csv for data/input.csv
    python -I -B "$FBENCH_GRADER/judge.py" fresh [SEED]    # predict.py, trained and asked on a portfolio nobody has seen

`deviance` is the mean Poisson deviance of the claims that came, `d2` one minus its ratio to that of the best single rate
per day for everybody: 0 for whoever has learned nothing. `skill` is `d2` as a share of what the true expected counts
reach, `level` the smaller of predicted total by true expected total and its inverse.
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

FRESH_SIZES = (4000, 2000)
PREDICTION = "expected_claims"
LEAST, MOST = 1e-6, 1e6


def predictions(data, asked):
    """Expected claims by policy: one finite number that is not negative for each of those asked, or none is taken."""
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Unusable(f"the predictions are no CSV in UTF-8: {error}") from None
    if not rows or not {"policy_id", PREDICTION} <= set(rows[0]):
        raise Unusable(f"the predictions have no rows, or lack a column of policy_id, {PREDICTION}")
    found = {}
    for row in rows:
        policy = (row["policy_id"] or "").strip()
        if policy in found:
            raise Unusable(f"policy {policy[:40]!r} has two lines")
        try:
            found[policy] = float(row[PREDICTION] or "nan")
        except ValueError:
            found[policy] = math.nan
        if not 0.0 <= found[policy] < math.inf:
            raise Unusable(f"what is expected of policy {policy[:40]!r} is no number of 0 or more")
    missing = [policy for policy in asked if policy not in found]
    if missing:
        raise Unusable(f"{len(missing)} policies have no line, {missing[0]!r} among them")
    return found


def deviance(pairs):
    """The mean over (claims, expected claims); an expectation below LEAST counts as LEAST."""
    total = 0.0
    for claims, expected in pairs:
        mean = min(max(expected, LEAST), MOST)
        total += 2.0 * ((claims * math.log(claims / mean) if claims else 0.0) - claims + mean)
    return total / len(pairs)


def measure(given, coming):
    """The numbers for a list of (policy, days, claims, true expected claims)."""
    rate = sum(claims for _, _, claims, _ in coming) / sum(days for _, days, _, _ in coming)
    one_rate = deviance([(claims, rate * days) for _, days, claims, _ in coming])
    truth = deviance([(claims, expected) for _, _, claims, expected in coming])
    reached = deviance([(claims, given[policy]) for policy, _, claims, _ in coming])
    predicted, expected = sum(given[policy] for policy, *_ in coming), sum(true for *_, true in coming)
    return {
        "deviance": reached,
        "d2": 1.0 - reached / one_rate,
        "skill": (one_rate - reached) / (one_rate - truth),
        "level": min(predicted / expected, expected / predicted) if predicted > 0 else 0.0,
    }


def judge_visible():
    with open(HERE / "input_claims.csv", encoding="utf-8", newline="") as stream:
        answers = {row["policy_id"]: row for row in csv.DictReader(stream)}
    coming = [
        (policy, int(row["days_insured"]), int(row[generate.LABEL]), float(row["expected"]))
        for policy, row in answers.items()
    ]
    return measure(predictions(read_file("out/expected.csv", Path.cwd().resolve() / "out"), answers), coming)


def judge_fresh(seed):
    known, coming = generate.generate(seed, FRESH_SIZES)
    place_of_days = generate.COLUMNS.index("days_insured")
    rows = [(row[0], int(row[place_of_days]), claims, expected) for row, claims, expected in coming]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name).resolve()
        generate.write_train(scratch / "train.csv", known)
        generate.write_input(scratch / "input.csv", coming)
        place = run_script(
            "predict.py",
            {"--train": scratch / "train.csv", "--input": scratch / "input.csv", "--output": True},
            scratch,
        )
        return measure(predictions(read_file(place, place.parent), [row[0] for row in rows]), rows)


def main(argv):
    hide_memory()
    facts = {}
    try:
        if argv[0] == "visible":
            found = judge_visible()
        else:
            facts["seed"] = argv[1] if len(argv) > 1 else secrets.token_hex(16)
            found = judge_fresh(facts["seed"])
    except Unusable as problem:
        found = {"d2": 0.0, "skill": 0.0, "level": 0.0, "problem": str(problem)}
    print(json.dumps({**facts, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
