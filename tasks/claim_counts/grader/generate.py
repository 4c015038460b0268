"""Makes vehicles of a fleet insurer, and how many claims each had, the same for the same seed.

    python generate.py visible WORKSPACE_DATA GRADER

writes train.csv and input.csv into the first folder and input_claims.csv into the second. Each seed is a portfolio of its
own: other depots, other vehicles, other reasons for claims. Only `random()` is used, whose sequence Python promises to
keep.
"""

import csv
import math
import random
import sys
from pathlib import Path

FEATURES = (
    "depot", "vehicle", "driver_age", "vehicle_age", "km_per_day", "night_share", "load_kg", "telematics", "days_insured",
    "file_notes",
)
COLUMNS = ("policy_id", *FEATURES)
LABEL = "claims"
VISIBLE_SIZES = (4000, 2000)
YEARLY_CLAIMS = 2.2
HETEROGENEITY = 0.25  # the variance of what each vehicle's rate is multiplied by, of mean 1
SYLLABLES = ("al", "ber", "dun", "fer", "gol", "hal", "mor", "nor", "sel", "tan", "wick", "yar")


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

    def sign(self):
        return 1.0 if self.chance(0.5) else -1.0

    def words(self, count):
        found = []
        while len(found) < count:
            word = self.of(SYLLABLES) + self.of(SYLLABLES)
            if word not in found:
                found.append(word)
        return found

    def gamma(self, shape):
        """Marsaglia and Tsang's method, for a shape of 1 or more."""
        third = shape - 1.0 / 3.0
        while True:
            normal = math.sqrt(-2.0 * math.log(1.0 - self.random())) * math.cos(2.0 * math.pi * self.random())
            cube = (1.0 + normal / math.sqrt(9.0 * third)) ** 3
            uniform = 1.0 - self.random()
            if cube > 0 and math.log(uniform) < 0.5 * normal * normal + third * (1.0 - cube + math.log(cube)):
                return third * cube

    def poisson(self, mean):
        count, product, limit = 0, self.random(), math.exp(-mean)
        while product > limit:
            count, product = count + 1, product * self.random()
        return count


class Portfolio:
    """The reasons for claims: age has a best value, and what load and night driving do depends on the vehicle."""

    def __init__(self, dice):
        *self.depots, self.new_depot = dice.words(9)
        self.vehicles = dice.words(4)
        self.depot_effect = {depot: dice.between(-0.45, 0.45) for depot in self.depots} | {self.new_depot: 0.0}
        turn = dice.sign()
        self.load_effect = {vehicle: turn * (1, -1, 1, -1)[at] * dice.between(0.9, 1.2)
                            for at, vehicle in enumerate(self.vehicles)}
        self.night_effect = dice.sign() * dice.between(0.7, 0.9)
        self.best_age = dice.between(38, 50)
        self.old_effect = dice.sign() * dice.between(0.4, 0.6)
        self.telematics_effect = dice.sign() * dice.between(0.25, 0.4)
        self.missing_effect = dice.sign() * dice.between(0.4, 0.6)

    def log_rate(self, one):
        """Per year, up to a constant."""
        age = one["driver_age"]
        by_age = self.missing_effect if age is None else 1.4 * min(1.0, ((age - self.best_age) / 18.0) ** 2) - 0.5
        is_far = one["km_per_day"] > 120
        return (
            self.depot_effect[one["depot"]]
            + self.load_effect[one["vehicle"]] * (one["load_kg"] - 700) / 500
            + self.night_effect * (1.0 if is_far else -1.0) * (one["night_share"] - 0.3) / 0.25
            + 0.5 * math.log(one["km_per_day"] / 100)
            + by_age
            + self.old_effect * math.sin(one["vehicle_age"] / 2.2)
            + (self.telematics_effect if one["telematics"] == "yes" else 0.0)
        )


def vehicle(dice, portfolio, is_known):
    """`is_known`: its time is over. Those still to come are insured for most of a year, and some drive from a new depot."""
    days = 15 + dice.below(190) if is_known else (365 if dice.chance(0.6) else 90 + dice.below(275))
    if dice.chance(0.03):
        days = 0
    depot = dice.of(portfolio.depots)
    return {
        "depot": portfolio.new_depot if not is_known and dice.chance(0.03) else depot,
        "vehicle": dice.of(portfolio.vehicles),
        "driver_age": None if dice.chance(0.08) else round(dice.between(19, 68)),
        "vehicle_age": dice.below(14),
        "km_per_day": round(dice.between(20, 260)),
        "night_share": round(dice.between(0.0, 0.6), 2),
        "load_kg": round(dice.between(100, 1300)),
        "telematics": "yes" if dice.chance(0.4) else "no",
        "days_insured": days,
    }


def generate(seed, sizes):
    """Lists of (row, claims, expected claims) for the known vehicles and those to come; a row is in the order of COLUMNS."""
    dice = Dice(seed)
    portfolio = Portfolio(dice)
    counts = [True] * sizes[0] + [False] * sizes[1]
    vehicles = [vehicle(dice, portfolio, is_known) for is_known in counts]
    rates = [math.exp(portfolio.log_rate(one)) for one in vehicles]
    scale = YEARLY_CLAIMS * len(rates) / sum(rates)
    found = []
    for number, (one, rate, is_known) in enumerate(zip(vehicles, rates, counts, strict=True)):
        expected = scale * rate * one["days_insured"] / 365.0
        luck = HETEROGENEITY * dice.gamma(1.0 / HETEROGENEITY)
        claims = dice.poisson(expected * luck)
        # Each claim leaves notes in the file, later; what is still to come has left none.
        notes = dice.poisson(0.3) + (sum(1 + dice.below(3) for _ in range(claims)) if is_known else 0)
        cells = {name: "" if value is None else str(value) for name, value in one.items()} | {"file_notes": str(notes)}
        identifier = f"P{100_000 + (number * 7919 + 4211) % 899_981}"
        found.append(((identifier, *(cells[name] for name in FEATURES)), claims, expected))
    return found[: sizes[0]], found[sizes[0] :]


def write(path, header, rows):
    with Path(path).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_train(path, known):
    write(path, (*COLUMNS, LABEL), ((*row, claims) for row, claims, _ in known))


def write_input(path, coming):
    write(path, COLUMNS, (row for row, _, _ in coming))


if __name__ == "__main__":
    known, coming = generate(sys.argv[1], VISIBLE_SIZES)
    write_train(Path(sys.argv[2]) / "train.csv", known)
    write_input(Path(sys.argv[2]) / "input.csv", coming)
    days = COLUMNS.index("days_insured")
    answers = ((row[0], row[days], claims, f"{expected:.6f}") for row, claims, expected in coming)
    write(Path(sys.argv[3]) / "input_claims.csv", ("policy_id", "days_insured", LABEL, "expected"), answers)
