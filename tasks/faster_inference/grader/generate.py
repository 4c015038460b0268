"""Makes forests and rows for them, the same for the same seed.

    python generate.py visible WORKSPACE

writes forest.json, store.json and row_ids.json into the folder. Only `random()` is used, whose sequence Python promises to keep.
"""

import json
import random
import sys
from pathlib import Path

# kind: (share of values that are missing, what the votes of a tree add up to, classes, trees)
KINDS = {
    "plain": (0.0, 100, 3, 24),
    "gaps": (0.2, 100, 3, 24),
    "ties": (0.05, 2, 4, 21),
    "priced": (0.05, 100, 2, 24),
}
FEATURES, DEPTH, SAMPLE = 16, 5, 400
ROWS, REPEATED = 80, 10


class Maker:
    """One forest: trees that split at random, with the votes of the sample rows that reach each leaf."""

    def __init__(self, seed, kind):
        self.random = random.Random(f"{kind} {seed}").random
        self.gaps, self.votes, self.classes, self.trees = KINDS[kind]
        self.names = [f"f{number:02d}" for number in range(FEATURES)]
        spread = (1, 1, 2, 5, 10, 20) if kind == "priced" else (1, 2, 3, 4)
        self.prices = {name: spread[self.below(len(spread))] for name in self.names}
        # A few features matter much, most of them little.
        order = sorted(self.names, key=lambda _: self.random())
        self.weights = {name: 1.0 / (1 + place) for place, name in enumerate(order)}
        self.slopes = [{name: self.normal() * self.weights[name] for name in self.names} for _ in range(self.classes)]

    def below(self, count):
        return int(self.random() * count)

    def normal(self):
        return sum(self.random() for _ in range(12)) - 6.0

    def row(self):
        return {name: None if self.random() < self.gaps else round(self.normal(), 3) for name in self.names}

    def label(self, row):
        pulls = [
            sum(slope * (row[name] or 0.0) for name, slope in slopes.items()) + 0.3 * self.normal()
            for slopes in self.slopes
        ]
        return pulls.index(max(pulls))

    def feature(self):
        at = self.random() * sum(self.weights.values())
        for name in self.names:
            at -= self.weights[name]
            if at < 0:
                break
        return name

    def tree(self, rows, depth=DEPTH):
        """A node; `rows` are the (row, label) that reach it."""
        if depth == 0 or len(rows) < 12 or len({label for _, label in rows}) == 1:
            return {"votes": self.leaf([label for _, label in rows])}
        name = self.feature()
        values = sorted(row[name] for row, _ in rows if row[name] is not None)
        if len(values) < 6:
            return {"votes": self.leaf([label for _, label in rows])}
        threshold = values[len(values) // 4 + self.below(len(values) // 2)]
        missing = "left" if self.random() < 0.5 else "right"
        sides = {"left": [], "right": []}
        for row, label in rows:
            value = row[name]
            sides[missing if value is None else "left" if value <= threshold else "right"].append((row, label))
        node = {"feature": name, "threshold": threshold, "missing": missing}
        return node | {side: self.tree(part, depth - 1) for side, part in sides.items()}

    def leaf(self, labels):
        """Whole votes that add up to `self.votes`, by shares; what rounding leaves goes to the most frequent class."""
        shares = [labels.count(label) / max(1, len(labels)) for label in range(self.classes)]
        votes = [int(share * self.votes) for share in shares]
        votes[shares.index(max(shares))] += self.votes - sum(votes)
        return votes

    def forest(self):
        trees = []
        for _ in range(self.trees):
            sample = [self.row() for _ in range(SAMPLE)]
            trees.append(self.tree([(row, self.label(row)) for row in sample]))
        return {"classes": self.classes, "prices": self.prices, "trees": trees}


def generate(seed, kind, rows=ROWS):
    """(the forest, rows by id, the ids that are asked for: all, in any order, some of them twice)."""
    maker = Maker(seed, kind)
    forest = maker.forest()
    found = {f"r{number:04d}": maker.row() for number in range(rows)}
    asked = [*found, *list(found)[:REPEATED]]
    return forest, found, sorted(asked, key=lambda _: maker.random())


def classify(forest, row):
    """The class with the most votes, the lowest of those with as many; and the features that were looked at."""
    totals, seen = [0] * forest["classes"], set()
    for node in forest["trees"]:
        while "votes" not in node:
            seen.add(node["feature"])
            value = row[node["feature"]]
            node = node[node["missing"] if value is None else "left" if value <= node["threshold"] else "right"]
        totals = [total + votes for total, votes in zip(totals, node["votes"], strict=True)]
    return totals.index(max(totals)), seen


if __name__ == "__main__":
    forest, rows, row_ids = generate(sys.argv[1], "gaps")
    for name, value in (("forest.json", forest), ("store.json", rows), ("row_ids.json", row_ids)):
        Path(sys.argv[2], name).write_text(json.dumps(value, separators=(",", ":")) + "\n", encoding="utf-8")
