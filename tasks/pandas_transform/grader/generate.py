"""Makes order exports with everything that goes wrong in real ones, the same for the same seed.

    python generate.py FOLDER SEED [ORDERS]

The workspace's data is seed `visible`, the grader's `hidden/` is seed `hidden`; every run is judged on a third set with
a seed of its own. Only `random()` is used, whose sequence Python promises to keep.
"""

import csv
import random
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

FIRST = ("Ada", "Björn", "Chloé", "Dmitri", "Emeka", "Farah", "Goran", "Hana", "Inés", "José")
LAST = ("Okafor", "Lindqvist", "O'Neil", "Smith, Jr.", "van Dijk", "García", "Novák", "Tanaka")
VISIBLE_REGIONS = ("North", "South", "East", "West", "Central Europe")
SYLLABLES = ("ba", "do", "ker", "lin", "mar", "nov", "ost", "pra", "sund", "tor", "vel", "zan")
EUR_PER_UNIT = {
    "EUR": 1.0, "USD": 0.92, "GBP": 1.17, "SEK": 0.088, "PLN": 0.23,
    "CHF": 1.04, "NOK": 0.086, "CZK": 0.0401, "DKK": 0.134, "HUF": 0.00253,
}
OFFSETS_H = (-8, -5, 0, 0, 1, 1, 2, 5.5, 9)
STATUSES = ("paid", "paid", "paid", "shipped", "shipped", "open", "Paid ", "CANCELLED", " cancelled", "Cancelled")


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


def generate(folder, seed, orders=420, regions=None):
    """Write the four files into the folder."""
    dice = Dice(seed)
    regions = regions or made_up_regions(dice)
    first_month = datetime(2019 + dice.below(12), 1 + 3 * dice.below(4), 1, tzinfo=timezone.utc)
    known, unknown = currencies(dice)
    rates = [(spoiled(code, dice, 0.2), f"{EUR_PER_UNIT[code] * (0.95 + 0.1 * dice.random()):.6f}") for code in known]
    people = customers(dice, regions, max(8, orders // 6))
    sold = sales(dice, people, known, unknown, first_month, orders)
    paid_back = refunds(dice, sold, first_month)
    paid_back += refunds_exported_twice(dice, sold, known, {row[1] for row in paid_back}, first_month)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "customers.csv", ("customer_id", "name", "region"), people)
    write(folder / "rates.csv", ("currency", "eur_per_unit"), rates)
    write(folder / "orders.csv", ("order_id", "customer_id", "ordered_at", "currency", "amount", "status"), sold)
    write(folder / "refunds.csv", ("refund_id", "order_id", "paid_at", "amount"), paid_back)


def made_up_regions(dice):
    regions = set()
    while len(regions) < 5:
        words = [(dice.of(SYLLABLES) + dice.of(SYLLABLES)).capitalize() for _ in range(1 + dice.below(2))]
        regions.add(" ".join(words))
    return sorted(regions)


def currencies(dice):
    codes = list(EUR_PER_UNIT)
    known = [codes.pop(dice.below(len(codes))) for _ in range(5)]
    return known, codes[0]


def spoiled(text, dice, share):
    """The text as a person may have typed it."""
    if not dice.chance(share):
        return text
    text = dice.of((str.lower, str.upper, str.swapcase))(text)
    return dice.of((" {}", "{} ", "  {}", "{}")).format(text.replace(" ", dice.of((" ", "   "))))


def customers(dice, regions, count):
    people = []
    for number in range(count):
        # One in twelve has no region; all regions occur.
        region = dice.of(("", "  ")) if number % 12 == 7 else regions[number % len(regions)]
        name = f"{dice.of(FIRST)} {dice.of(LAST)}"
        people.append((f"C{1000 + number * 7}", name, spoiled(region, dice, 0.5)))
    return people


def a_time(dice, first_month):
    """A moment of the quarter in some offset; one in four is so near the turn of a month that the offset decides."""
    if dice.chance(0.25):
        month = first_month.month + dice.below(4)
        turn = first_month.replace(year=first_month.year + (month - 1) // 12, month=(month - 1) % 12 + 1)
        moment = turn + timedelta(minutes=dice.below(600) - 300)
    else:
        moment = first_month + timedelta(minutes=dice.below(90 * 1440))
    return moment.astimezone(timezone(timedelta(hours=dice.of(OFFSETS_H)))).isoformat()


def an_amount(dice):
    cents = 500 + dice.below(30_000) if dice.chance(0.8) else 100_000 + dice.below(900_000)
    return f"{cents / 100:,.2f}" if dice.chance(0.7) else f"{cents / 100:.2f}"


def sales(dice, people, known, unknown, first_month, count):
    sold = []
    for number in range(count):
        customer = f"C{9000 + dice.below(5)}" if dice.chance(0.04) else dice.of(people)[0]
        currency = unknown if dice.chance(0.03) else dice.of(known)
        amount = dice.of(("", "n/a")) if dice.chance(0.05) else an_amount(dice)
        row = (f"O{20_000 + number}", customer, a_time(dice, first_month), spoiled(currency, dice, 0.25), amount)
        sold.append((*row, dice.of(STATUSES)))
    for row in [row for row in sold if dice.chance(0.12)]:
        again = (*row[:4], an_amount(dice), dice.of(STATUSES)) if dice.chance(0.7) else row
        sold.insert(sold.index(row) + 1 + dice.below(len(sold) - sold.index(row)), again)
    return sold


def refunds(dice, sold, first_month):
    paid_back = []
    for row in sold:
        for _ in range(1 + dice.below(2) if dice.chance(0.2) else 0):
            whole = float(row[4].replace(",", "")) if row[4] not in {"", "n/a"} else 50.0
            # Up to 1.3 times the amount, so that some orders are paid back more than once over.
            amount = f"{whole * (0.1 + 1.2 * dice.random()):,.2f}"
            paid_back.append((f"R{len(paid_back) + 500}", row[0], a_time(dice, first_month), amount.replace(",", "")))
    paid_back += [(f"R{90_000 + index}", f"O{80_000 + index}", a_time(dice, first_month), "19.90") for index in range(3)]
    for row in [row for row in paid_back if dice.chance(0.1)]:
        paid_back.insert(dice.below(len(paid_back)), row)
    return paid_back


def refunds_exported_twice(dice, sold, known, refunded, first_month):
    """Small refunds of three large orders that count and have no other refund, each in the file twice: whatever the dice
    said before, counting one twice shows in the summary and is not hidden by the cap at the order's amount."""
    twice = []
    for row in {row[0]: row for row in sold}.values():
        amount = 0.0 if row[4] in {"", "n/a"} else float(row[4].replace(",", ""))
        counts = row[3].strip().upper() in known and row[5].strip().lower() != "cancelled"
        if counts and amount >= 1000.0 and row[0] not in refunded and len(twice) < 6:
            refund = (f"R{70_000 + len(twice)}", row[0], a_time(dice, first_month), f"{amount * 0.05:.2f}")
            twice += [refund, refund]
    return twice


def write(path, header, rows):
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    generate(
        sys.argv[1],
        sys.argv[2],
        int(sys.argv[3]) if len(sys.argv) > 3 else 420,
        VISIBLE_REGIONS if sys.argv[2] == "visible" else None,
    )
