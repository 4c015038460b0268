"""Makes a lender's applications with the scores of several models, the same for the same seed.

    python generate.py visible WORKSPACE_DATA

writes known.csv, asked.csv and cutoffs.csv. Each seed is a lender of its own: other segments, each with a bent of its own
between score and chance. Only `random()` is used, whose sequence Python promises to keep.
"""

import csv
import math
import random
import sys
from pathlib import Path

SIZES = {"known": 8000, "asked": 2500}
SEGMENTS = 3
SYLLABLES = ("ba", "do", "ker", "lin", "mar", "nov", "ost", "pra", "sund", "tor", "vel", "zan")


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

    def between(self, low, high):
        return low + (high - low) * self.random()

    def normal(self):
        return sum(self.random() for _ in range(12)) - 6.0

    def words(self, count):
        found = set()
        while len(found) < count:
            found.add(self.of(SYLLABLES) + self.of(SYLLABLES))
        return sorted(sorted(found), key=lambda _: self.random())


class Segment:
    """A model's bent: the true chance of a score, rising, and not symmetric about one half."""

    def __init__(self, dice, name, kind):
        self.name = name
        self.middle = dice.between(-0.4, 0.4)
        # Overconfident, timid, and bent at one end; all of them too high or too low by some.
        self.low = (dice.between(0.35, 0.5), dice.between(1.3, 1.6), dice.between(1.4, 1.8))[kind]
        self.high = (dice.between(0.45, 0.65), dice.between(1.5, 2.0), dice.between(0.3, 0.5))[kind]
        self.shift = (dice.between(-1.1, -0.7), dice.between(0.7, 1.1), dice.between(-0.6, -0.3))[kind]
        self.cutoff = round(dice.between(0.35, 0.65), 4)
        self.keep = 1.0 / dice.of((4, 5, 8))

    def chance(self, score):
        """The true chance: log-odds that are a mix of log(score) and log(1 - score)."""
        odds = self.shift + self.low * math.log(2 * score) - self.high * math.log(2 * (1 - score))
        return 1.0 / (1.0 + math.exp(-odds))


def a_score(dice, segment):
    """Ten decimals. One in eight lies within a millionth of the cutoff, half of these at it exactly."""
    if dice.chance(0.125):
        near = segment.cutoff if dice.chance(0.5) else segment.cutoff + dice.between(-1e-6, 1e-6)
        return round(near, 10)
    score = 1.0 / (1.0 + math.exp(-(segment.middle + 1.4 * dice.normal())))
    return round(min(0.995, max(0.005, score)), 10)


def generate(seed):
    """(known, asked, cutoffs): rows of application, segment, score as text, with weight and outcome in `known`, with the
    true chance in `asked`; cutoffs by segment."""
    dice = Dice(seed)
    segments = [Segment(dice, name, kind) for kind, name in enumerate(dice.words(SEGMENTS))]
    known, asked = [], []
    while len(known) < SIZES["known"]:
        segment = dice.of(segments)
        score = a_score(dice, segment)
        bad = dice.chance(segment.chance(score))
        # Those who paid back were kept one in so many; each stands for the others.
        if bad or dice.chance(segment.keep):
            known.append((identifier(dice), segment.name, repr(score), "1" if bad else str(round(1 / segment.keep)),
                          str(int(bad))))  # fmt: skip
    while len(asked) < SIZES["asked"]:
        segment = dice.of(segments)
        score = a_score(dice, segment)
        asked.append((identifier(dice, len(asked)), segment.name, repr(score), segment.chance(score)))
    return known, asked, {segment.name: segment.cutoff for segment in segments}


def identifier(dice, number=None):
    return f"A{dice.below(90_000_000) + 10_000_000}" + ("" if number is None else f"-{number}")


def write(path, header, rows):
    with Path(path).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_all(folder, known, asked, cutoffs):
    write(folder / "known.csv", ("application", "segment", "score", "weight", "defaulted"), known)
    write(folder / "asked.csv", ("application", "segment", "score"), (row[:3] for row in asked))
    write(folder / "cutoffs.csv", ("segment", "cutoff"), ((name, repr(cutoff)) for name, cutoff in cutoffs.items()))


if __name__ == "__main__":
    write_all(Path(sys.argv[2]), *generate(sys.argv[1]))
