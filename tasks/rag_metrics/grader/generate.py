"""Draws cases for `evaluate`, the same for the same group and seed.

    python generate.py FOLDER        # writes examples.json, the workspace's, into the folder

Only `random()` is used, whose sequence Python promises to keep.
"""

import json
import random
import sys
from pathlib import Path

SYLLABLES = ("ba", "do", "ker", "lin", "mar", "nov", "ost", "pra", "sund", "tor", "vel", "zan")
GROUPS = ("distinct", "corners", "tied", "large")


class Dice:
    """Choices made from `random()` alone."""

    def __init__(self, seed):
        self.random = random.Random(seed).random

    def below(self, count):
        return int(self.random() * count)

    def of(self, values):
        return values[self.below(len(values))]

    def chance(self, share):
        return self.random() < share

    def shuffled(self, values):
        values = list(values)
        for at in range(len(values) - 1, 0, -1):
            other = self.below(at + 1)
            values[at], values[other] = values[other], values[at]
        return values


def a_document(dice, number):
    name = dice.of(SYLLABLES) + dice.of(SYLLABLES)
    # Some ids hold a '#' of their own: only the last one sets the passage apart.
    return f"{name}#{number}#{dice.of('abc')}" if dice.chance(0.15) else f"{name}-{number}"


def passages(dice, document, score):
    """A document's results: the best passage has the score, others have less, and it may come twice."""
    if "#" not in document and dice.chance(0.15):
        return [[document, score]]
    best = dice.below(30)
    found = [[f"{document}#{best}", score]]
    for other in range(dice.of((0, 0, 1, 2, 4))):
        found.append([f"{document}#{best + 1 + other}", score - (1 + dice.below(8)) / 4])
    if dice.chance(0.1):
        found.append([f"{document}#{best}", score - 0.25])
    return found


def a_query(dice, scores, *, relevant, missing=1):
    """(grades, results) with one document for each score; up to `missing` relevant ones were not retrieved."""
    documents = [a_document(dice, number) for number in range(len(scores))]
    chosen = dice.shuffled(documents)
    grades = {document: 1 + dice.below(4) for document in chosen[:relevant]}
    grades |= {document: -dice.below(3) for document in chosen[relevant : relevant + dice.below(4)]}
    grades |= {a_document(dice, 900 + number): 1 + dice.below(3) for number in range(dice.below(missing + 1))}
    results = [found for document, score in zip(documents, scores) for found in passages(dice, document, score)]
    return dict(dice.shuffled(grades.items())), dice.shuffled(results)


def a_case(queries, ks):
    named = {f"q{number}": query for number, query in enumerate(queries)}
    return {
        "qrels": {name: grades for name, (grades, _) in named.items()},
        "run": {name: results for name, (_, results) in named.items()},
        "ks": ks,
    }


def distinct_scores(dice, count):
    return dice.shuffled(round(-3 + 0.37 * at, 2) for at in range(count))


def tied_scores(dice, count):
    """Scores of few values; a tie is written as an int in one place and as a float in another."""
    values = 1 + dice.below(max(2, count // 3))
    return [dice.of((int, float))(dice.below(values) - 1) for _ in range(count)]


def distinct(dice):
    for _ in range(12):
        queries = []
        for _ in range(4):
            count = 5 + dice.below(20)
            queries.append(a_query(dice, distinct_scores(dice, count), relevant=2 + dice.below(4)))
        yield a_case(queries, dice.shuffled((3, 5, 10)))


def tied(dice):
    for _ in range(15):
        queries = []
        for _ in range(4):
            count = 4 + dice.below(24)
            queries.append(a_query(dice, tied_scores(dice, count), relevant=1 + dice.below(min(6, count - 2))))
        yield a_case(queries, dice.shuffled((1, 2 + dice.below(3), 5 + dice.below(4), 40)))


def large(dice):
    """One score for nearly all of thousands of documents; cut-offs before, inside and beyond them."""
    for count, relevant in ((2000, 3), (6000, 40), (20_000, 900)):
        scores = [0.0] * count
        for at in range(dice.below(5)):
            scores[at] = 1.5 + at
        query = a_query(dice, scores, relevant=relevant, missing=5)
        yield a_case([query], [10, 100, count // 2, 2 * count])


def corners(dice):
    """What is missing, empty, negative, beyond the end; no ties."""

    def usual():
        return a_query(dice, distinct_scores(dice, 6 + dice.below(6)), relevant=2)

    for _ in range(5):
        grades, results = usual()
        yield {"qrels": {"a": grades, "b": {"x": 2, "y": -1}}, "run": {"a": results}, "ks": [1, 50]}
        yield {"qrels": {"b": {"x": 2}, "c": {"y": 1, "z": 3}}, "run": {"b": [], "c": [["z#0", -5]]}, "ks": [2]}
        yield {"qrels": {"a": grades}, "run": {"a": results, "other": usual()[1]}, "ks": [4]}
        nothing = {"z": {}, "y": {"d": 0, "e": -2}, "b10": {"d": -1}, "b9": {"f": 0}}
        yield {"qrels": {**nothing, "q": grades}, "run": {"q": results, "z": results}, "ks": [3, 7]}
        yield {"qrels": nothing, "run": {"y": [["d#1", 1.0]]}, "ks": [5]}
        yield {"qrels": {}, "run": {}, "ks": [5, 1]}
        first, second = dice.of(SYLLABLES), dice.of(SYLLABLES)
        hashes = {f"{first}#1": 3, first: 1, second: -1}
        found = [[f"{first}#1#0", 0.5], [f"{first}#2", 2.5], [f"{second}#0", 1.5], [second, 3.0], [f"{first}#2", -1]]
        yield {"qrels": {"q": hashes}, "run": {"q": dice.shuffled(found)}, "ks": [1, 2, 3]}


def draw(group, seed):
    """The cases of one group."""
    return list({"distinct": distinct, "corners": corners, "tied": tied, "large": large}[group](Dice(f"{group} {seed}")))


def examples():
    """What the agent sees: one without ties, small ones with, one with what is missing."""
    dice = Dice("visible")
    yield a_case([a_query(dice, distinct_scores(dice, 6), relevant=2) for _ in range(2)], [1, 5])
    yield {"qrels": {"q": {"red": 1, "blue": 2}}, "run": {"q": [["red#0", 1.0], ["grey#4", 1], ["blue#1", 0.5]]}, "ks": [1, 2, 3]}
    yield a_case([a_query(dice, [2, 1.0, 1, 1.0, 0], relevant=2)], [2, 4])
    yield {"qrels": {"a": {"x": 1}, "b": {"y": 0}}, "run": {"b": [["y#1", 0.5]], "c": [["z#1", 0.5]]}, "ks": [3]}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import reference

    cases = [{**case, "expected": reference.evaluate(**case)} for case in examples()]
    Path(sys.argv[1], "examples.json").write_text(json.dumps(cases, indent=1) + "\n", encoding="utf-8")
