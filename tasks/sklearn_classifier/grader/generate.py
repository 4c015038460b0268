"""Makes customers of a gym, and whether each renewed, the same for the same seed.

    python generate.py visible WORKSPACE_DATA GRADER

writes train.csv and test.csv into the first folder and test_labels.csv into the second. Each seed is a world of its own:
other cities, other plans, other reasons to renew. Only `random()` is used, whose sequence Python promises to keep.
"""

import csv
import math
import random
import sys
from pathlib import Path

FEATURES = (
    "plan", "city", "channel", "age", "monthly_fee", "visits_per_month", "months", "distance_km", "classes",
    "support_calls", "app_minutes", "referrals",
)
COLUMNS = ("customer_id", *FEATURES)
LABEL = "renewed"
VISIBLE_SIZES = (2000, 1000)
SYLLABLES = ("ba", "do", "ker", "lin", "mar", "nov", "ost", "pra", "sund", "tor", "vel", "zan")
NOISE = 0.04  # of all labels are turned around


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

    def sign(self):
        return 1.0 if self.chance(0.5) else -1.0

    def words(self, count):
        found = set()
        while len(found) < count:
            found.add(self.of(SYLLABLES) + self.of(SYLLABLES))
        return sorted(found)


class World:
    """The reasons to renew: what fee is too high depends on the plan, classes and distance matter together."""

    def __init__(self, dice):
        self.plans, self.cities = dice.words(4), dice.words(8)
        self.channels = dice.words(3)
        first = dice.sign()
        # Half of the plans renew when the fee is high, half when it is low: no straight line fits both.
        self.fee_slope = {plan: first * (1, -1, 1, -1)[at] * dice.between(1.2, 1.6)
                          for at, plan in enumerate(self.plans)}
        self.city_bonus = {city: dice.between(-0.9, 0.9) for city in self.cities}
        self.best_age, self.age_width = dice.between(30, 50), dice.between(9, 12)
        self.class_weight, self.visit_weight = dice.sign() * dice.between(1.3, 1.6), dice.between(0.5, 0.8)
        self.months_weight = dice.sign() * dice.between(0.6, 0.9)
        self.missing_bonus = dice.sign() * dice.between(0.8, 1.2)

    def reasons(self, one):
        age = one["age"]
        near = 1.0 if one["distance_km"] < 6 else -1.0
        return (
            self.fee_slope[one["plan"]] * (one["monthly_fee"] - 45) / 12
            + self.city_bonus[one["city"]]
            + 1.6 * (2 * math.exp(-(((age - self.best_age) / self.age_width) ** 2)) - 1)
            + self.class_weight * near * (one["classes"] - 5) / 2.5
            + self.visit_weight * (one["visits_per_month"] - 8) / 4
            + self.months_weight * math.sin(one["months"] / 9)
            + (self.missing_bonus if one["app_minutes"] is None else -0.2 * self.missing_bonus)
        )


def customer(dice, world):
    return {
        "plan": dice.of(world.plans),
        "city": dice.of(world.cities),
        "channel": dice.of(world.channels),
        "age": round(dice.between(18, 75)),
        "monthly_fee": round(45 + 12 * dice.normal(), 2),
        "visits_per_month": max(0, round(8 + 4 * dice.normal())),
        "months": 1 + dice.below(60),
        "distance_km": round(dice.between(0.2, 12), 1),
        "classes": dice.below(11),
        "support_calls": dice.below(5),
        "app_minutes": None if dice.chance(0.2) else round(dice.between(0, 300)),
        "referrals": dice.below(4),
    }


def generate(seed, sizes):
    """A list of (row, label) for each size, all of one world; a row is in the order of COLUMNS, as text."""
    dice = Dice(seed)
    world = World(dice)
    people = [customer(dice, world) for _ in range(sum(sizes))]
    reasons = [world.reasons(one) for one in people]
    middle = sorted(reasons)[len(reasons) * 45 // 100]
    labelled = []
    for one, reason in zip(people, reasons):
        renewed = (reason > middle) != dice.chance(NOISE)
        # Some cells were never filled in.
        cells = {name: "" if value is None or (name == "age" and dice.chance(0.03)) else str(value)
                 for name, value in one.items()}
        identifier = f"C{10_000_000 + dice.below(80_000_000)}"
        labelled.append(((identifier, *(cells[name] for name in FEATURES)), "yes" if renewed else "no"))
    seen = set()
    unique = [(row, label) for row, label in labelled if not (row[0] in seen or seen.add(row[0]))]
    parts, start = [], 0
    for size in sizes:
        parts.append(unique[start : start + size])
        start += size
    return parts


def write(path, header, rows):
    with Path(path).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_train(path, part):
    write(path, (*COLUMNS, LABEL), ((*row, label) for row, label in part))


def write_input(path, part):
    write(path, COLUMNS, (row for row, _ in part))


if __name__ == "__main__":
    train, test = generate(sys.argv[1], VISIBLE_SIZES)
    write_train(Path(sys.argv[2]) / "train.csv", train)
    write_input(Path(sys.argv[2]) / "test.csv", test)
    write(Path(sys.argv[3]) / "test_labels.csv", ("customer_id", LABEL), ((row[0], label) for row, label in test))
