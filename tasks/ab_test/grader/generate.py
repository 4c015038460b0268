"""Simulates experiments whose truth is known, the same for the same seed.

    python generate.py FOLDER        # writes the workspace's examples into the folder

A customer comes once or several times; visits of one customer resemble each other and what the customer spent before.
Only `random()` is used, whose sequence Python promises to keep.
"""

import json
import math
import random
import sys
from pathlib import Path

NEW, BOTH = 0.15, 0.02  # shares of customers without a past, and seen in both variants


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


class World:
    """How customers of one experiment behave."""

    def __init__(self, dice):
        self.level = dice.between(15, 40)
        self.past_sd = dice.between(4, 7)
        self.slope = dice.between(0.8, 1.0)
        self.customer_sd = self.past_sd * dice.between(0.45, 0.6)
        self.visit_sd = self.past_sd * dice.between(0.5, 0.8)

    def possible_se(self, arms):
        """Standard error of the best estimate from (visits, is new) by arm, were all of the above known."""
        variance = 0.0
        for customers in arms:
            weights = (
                1 / (self.customer_sd**2 + self.visit_sd**2 / visits + (self.slope * self.past_sd) ** 2 * new)
                for visits, new in customers
            )
            variance += 1 / sum(weights)
        return math.sqrt(variance)


def experiment(dice, customers, looks, effect_se, *, share=None, lost=0.0, visits_more=0.0, both=BOTH):
    """(what `analyse` gets at each look, truth). The effect is `effect_se` standard errors of the best final estimate;
    `lost` is the share of customers of B that were never recorded; in B people come `visits_more` times more often."""
    world = World(dice)
    share = share or dice.of((0.5, 0.5, 0.4, 0.3))
    people, arms = [], ([], [])
    while len(people) < customers:
        variant = int(dice.chance(share))
        if variant and dice.chance(lost):
            continue
        visits = 1
        while visits < 12 and dice.chance(0.72 if variant and dice.chance(visits_more) else 0.55):
            visits += 1
        new = dice.chance(NEW)
        people.append((variant, visits, new, dice.chance(both)))
        if not people[-1][3]:
            arms[variant].append((visits, new))
    se = world.possible_se(arms) if all(arms) else 1.0
    effect = effect_se * se
    rows, starts = [], []
    for number, (variant, visits, new, in_both) in enumerate(people):
        starts.append(len(rows))
        past = world.past_sd * dice.normal()
        usual = world.level + world.slope * past + world.customer_sd * dice.normal()
        name = f"c{10_000 + number}"
        for visit in range(visits + in_both):
            shown = 1 - variant if in_both and visit == visits else variant
            value = usual + world.visit_sd * dice.normal() + effect * shown
            rows.append([name, "AB"[shown], None if new else round(world.level + past, 2), round(value, 2)])
    seen = [starts[customers * look // looks] if look < looks else len(rows) for look in range(1, looks + 1)]
    given = [{"planned_share_b": share, "looks_planned": looks, "look": look, "visits": rows[:end]}
             for look, end in enumerate(seen, 1)]
    return given, {"effect": effect, "possible_se": se}


def chi_squared(given):
    """The statistic of customers in A and B against the plan; those in both are no part of it."""
    variants = {}
    for customer, variant, _, _ in given["visits"]:
        variants.setdefault(customer, set()).add(variant)
    b = sum(found == {"B"} for found in variants.values())
    total = b + sum(found == {"A"} for found in variants.values())
    share = given["planned_share_b"]
    return (b - total * share) ** 2 / (total * share * (1 - share))


def single(dice, count):
    """Looked at once; every other one has an effect."""
    for number in range(count):
        yield experiment(dice, 120 + dice.below(80), 1, dice.of((-1, 1)) * 5.0 if number % 2 else 0.0)


def peeking(dice, count):
    """Looked at eight to ten times; one in four has an effect."""
    for number in range(count):
        looks = 8 + 2 * dice.below(2)
        yield experiment(dice, 20 * looks, looks, 0.0 if number % 4 else dice.of((-1, 1)) * 5.0)


def mismatch(dice, count):
    """As planned, with many customers lost, with few lost (most of which prove nothing), and as planned where B only
    makes people come more often; in turn."""
    for number in range(count):
        kind = number % 4
        size = 300 + dice.below(200)
        yield experiment(dice, size, 1, 0.0, lost=(0.0, 0.55, 0.18, 0.0)[kind], visits_more=0.9 * (kind == 3), both=0.06)


def draw(group, seed, count):
    """(looks, truth) of each experiment."""
    return list({"single": single, "peeking": peeking, "mismatch": mismatch}[group](Dice(f"{group} {seed}"), count))


def examples():
    dice = Dice("visible")
    yield experiment(dice, 120, 1, 0.0)
    yield experiment(dice, 120, 1, 5.0)
    yield experiment(dice, 300, 1, 0.0, lost=0.55)
    yield experiment(dice, 160, 8, 0.0)
    yield experiment(dice, 160, 8, -5.0)


if __name__ == "__main__":
    for number, (given, _) in enumerate(examples(), 1):
        lines = [json.dumps(look) + "\n" for look in (given if number != 4 else given[::3])]
        Path(sys.argv[1], f"experiment_{number}.jsonl").write_text("".join(lines), encoding="utf-8")
