"""Makes a telephone company's customers, and whether each left, the same for the same seed.

    python generate.py visible WORKSPACE_DATA GRADER

writes history.csv and scoring.csv into the first folder, scoring_labels.csv into the second. `history` is what was
exported three months after the day of the snapshot, `scoring` what is there on the day a model is used. Each seed is a
company of its own: other plans and cities, other reasons to leave. Only `random()` is used, whose sequence Python
promises to keep.
"""

import csv
import random
import sys
from pathlib import Path

FEATURES = (
    "plan", "city", "channel", "birth_year", "months_with_us", "monthly_fee", "gb_last_month", "gb_change",
    "complaints_90d", "late_payments_12m", "contract_days_left", "cancel_page_views_30d", "city_churn_last_year",
    "days_since_app_login", "open_tickets", "invoices_paid", "account_team", "newsletter", "segment_churn",
)
LEAKS = ("days_since_app_login", "open_tickets", "invoices_paid", "account_team", "newsletter", "segment_churn")
COLUMNS = ("customer_id", *FEATURES)
LABEL = "churned"
VISIBLE_SIZES = (2500, 1200)
SYLLABLES = ("ba", "do", "ker", "lin", "mar", "nov", "ost", "pra", "sund", "tor", "vel", "zan")
SHARE = 0.25


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
        return sorted(found)


class World:
    """The reasons to leave. The two that look like leaks, views of the cancel page and last year's rate, are among them."""

    def __init__(self, dice):
        self.plans, self.cities, self.channels = dice.words(4), dice.words(9), dice.words(3)
        self.teams = dice.words(3)
        self.plan_effect = {plan: dice.between(-0.9, 0.9) for plan in self.plans}
        self.city_rate = {city: dice.between(0.10, 0.40) for city in self.cities}
        self.weights = {name: dice.between(0.8, 1.2) for name in ("fee", "change", "complaints", "late", "views", "end")}
        self.noise = 2.3

    def reason(self, dice, one):
        weight = self.weights
        return (
            self.plan_effect[one["plan"]]
            + 4.0 * (self.city_rate[one["city"]] - 0.25)
            + weight["fee"] * (one["monthly_fee"] - 38) / 10
            - weight["change"] * one["gb_change"] / 20
            + weight["complaints"] * min(one["complaints_90d"], 3)
            + 0.6 * weight["late"] * one["late_payments_12m"]
            + weight["views"] * min(one["cancel_page_views_30d"], 3)
            + (1.5 * weight["end"] if one["contract_days_left"] < 60 else -0.3)
            - 0.02 * one["months_with_us"]
            + self.noise * dice.normal()
        )


def customer(dice, world, *, later):
    """As known on the day of the snapshot; fees and years with us have risen a little by the day of scoring."""
    city = dice.of(world.cities)
    few = (0, 0, 0, 0, 1, 1, 2, 3)
    return {
        "plan": dice.of(world.plans),
        "city": city,
        "channel": dice.of(world.channels),
        "birth_year": 1940 + dice.below(66),
        "months_with_us": 2 + dice.below(80) + (3 if later else 0),
        "monthly_fee": round((38 + 10 * dice.normal()) * (1.04 if later else 1.0), 2),
        "gb_last_month": round(max(0.1, 18 + 8 * dice.normal()), 1),
        "gb_change": round(20 * dice.normal(), 1),
        "complaints_90d": dice.of(few),
        "late_payments_12m": dice.of(few),
        "contract_days_left": dice.below(540),
        "cancel_page_views_30d": dice.of(few),
        "city_churn_last_year": round(world.city_rate[city], 3),
    }


def add_the_rest(dice, world, one, *, left, later):
    """What live systems say. In the history they were read after the customers of whom it speaks had left or stayed."""
    gone = left and not later
    months = one["months_with_us"]
    one["days_since_app_login"] = dice.below(25) + (dice.below(90) if dice.chance(0.9 if gone else 0.15) else 0)
    one["open_tickets"] = dice.of((0, 0, 0, 1, 1, 2)) + (1 + dice.below(2) if gone and dice.chance(0.6) else 0)
    # A customer who stayed has paid three more by the day of the export; not seen without months_with_us.
    one["invoices_paid"] = months + (0 if later else dice.of((0, 0, 1, 2)) if left else 3) - dice.of((0, 0, 0, 0, 1, 2))
    one["account_team"] = world.teams[0] if gone and dice.chance(0.35) else dice.of(world.teams)
    one["newsletter"] = "yes" if dice.chance(0.3 if gone else 0.55) else "no"


def generate(seed, sizes):
    """Two lists of (row, label): the history and the day of scoring. A row is in the order of COLUMNS, as text."""
    dice = Dice(seed)
    world = World(dice)
    identifiers = set()
    while len(identifiers) < sum(sizes):
        identifiers.add(10_000_000 + dice.below(80_000_000))
    identifiers = sorted(identifiers, key=lambda _: dice.random())
    parts = []
    for size, later in zip(sizes, (False, True), strict=True):
        people = [customer(dice, world, later=later) for _ in range(size)]
        reasons = [world.reason(dice, one) for one in people]
        bar = sorted(reasons)[-round(size * SHARE)]
        lost = [reason >= bar for reason in reasons]
        for one, left in zip(people, lost, strict=True):
            add_the_rest(dice, world, one, left=left, later=later)
        add_segments(dice, people, lost, later=later)
        labelled = [
            ((f"C{identifiers.pop()}", *(str(one[name]) for name in FEATURES)), "yes" if left else "no")
            for one, left in zip(people, lost, strict=True)
        ]
        parts.append(labelled)
    return parts


def add_segments(dice, people, lost, *, later):
    """The share of leavers among those of the same city, plan and decade: in the history the row's own is in it."""
    groups = {}
    for one, left in zip(people, lost, strict=True):
        groups.setdefault(segment(one), []).append(left)
    for one in people:
        members = groups[segment(one)]
        rate = dice.between(0.0, 0.5) if later else sum(members) / len(members)
        one["segment_churn"] = round(rate, 3)


def segment(one):
    return one["city"], one["plan"], one["birth_year"] // 10, one["channel"]


def write(path, header, rows):
    with Path(path).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_history(path, part):
    write(path, (*COLUMNS, LABEL), ((*row, label) for row, label in part))


def write_scoring(path, part):
    write(path, COLUMNS, (row for row, _ in part))


if __name__ == "__main__":
    history, scoring = generate(sys.argv[1], VISIBLE_SIZES)
    write_history(Path(sys.argv[2]) / "history.csv", history)
    write_scoring(Path(sys.argv[2]) / "scoring.csv", scoring)
    write(Path(sys.argv[3]) / "scoring_labels.csv", ("customer_id", LABEL), ((row[0], label) for row, label in scoring))
