"""Makes a shop's database as it should be, and the messy one it might have come from; the same for the same seed.

    python generate.py SEED > init.sql       # the messy schema v1 as SQL
    python generate.py SEED --truth          # what v2 holds after a right migration, as JSON

It goes one way only, from what is right to what is messy: nothing here can read v1. Only `random()` is used, whose
sequence Python promises to keep.
"""

import json
import random
import sys
from collections import Counter
from datetime import datetime, timedelta, timezone

SYLLABLES = ("ba", "do", "ker", "lin", "mar", "nov", "ost", "pra", "sund", "tor", "vel", "zan")
STATUSES = ("open", "paid", "shipped", "cancelled")
SCHEMA = """\
create schema v1;
create table v1.customers (id int, name text, email text, joined text);
create table v1.products (sku text, title text, price text);
create table v1.orders (id int, customer_id int, placed_at text, status text, items text);
"""


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

    def word(self):
        return "".join(self.of(SYLLABLES) for _ in range(2 + self.below(2)))

    def numbers(self, count, start):
        """Ascending, with gaps."""
        found = []
        for _ in range(count):
            start += 1 + self.below(4)
            found.append(start)
        return found

    def shuffled(self, values):
        return [values[at] for _, at in sorted((self.random(), at) for at in range(len(values)))]

    def spaced(self, text, share=0.3):
        return self.of(("{} ", " {}", "  {} ")).format(text) if self.chance(share) else text

    def cased(self, text, share=0.4):
        return self.of((str.upper, str.title))(text) if self.chance(share) else text


class Shop:
    """`truth` is what v2 holds, by table, each row a list; `v1` is what v1 holds, by table, each row a tuple."""

    def __init__(self, seed, orders=220):
        self.dice = Dice(seed)
        self.truth = {name: [] for name in ("customers", "products", "orders", "order_items", "rejected")}
        self.v1 = {name: [] for name in ("customers", "products", "orders")}
        self.start = datetime(2016 + self.dice.below(9), 1 + self.dice.below(12), 1, tzinfo=timezone.utc)
        self.make_products(12 + orders // 20)
        self.make_customers(orders // 4)
        self.make_orders(orders)

    def make_products(self, count):
        dice, seen = self.dice, set()
        while len(seen) < count:
            sku = f"{dice.word()[:5].upper()}-{10 + dice.below(90)}"
            if sku in seen:
                continue
            seen.add(sku)
            cents = 100 + dice.below(5000) if dice.chance(0.7) else 100_000 + dice.below(900_000)
            title = f"{dice.word().title()} {dice.word()}"
            self.truth["products"].append([sku, title, cents])
            price = f"{cents / 100:,.2f}" if dice.chance(0.6) else f"{cents / 100:.2f}"
            price = dice.of(("{}", "{} EUR", "€{}", " {}")).format(price)
            self.v1["products"].append((dice.spaced(dice.of((sku, sku.lower()))), dice.spaced(title), price))

    def make_customers(self, people):
        dice = self.dice
        rows = []  # of v1, each with the person it is of; None has no email
        for person in range(people):
            for _ in range(1 if dice.chance(0.75) else 2 + dice.below(2)):
                rows.append(person)
        rows = dice.shuffled(rows + [None] * (people // 10))
        emails = [f"{dice.word()}.{dice.word()}{person}@{dice.word()}.example" for person in range(people)]
        self.person_of, self.survivor, joined = {}, {}, {}
        names = {}
        for number, person in zip(dice.numbers(len(rows), 100), rows):
            name = f"{dice.word().title()} {dice.of(('', '', 'van ', 'O’'))}{dice.word().title()}"
            day = self.start - timedelta(days=dice.below(1500))
            if person is None:
                self.truth["rejected"].append(["customer", number, "no email"])
                email = dice.of((None, "", "  ", "n/a", "none"))
            else:
                self.person_of[number] = person
                self.survivor.setdefault(person, number)
                names.setdefault(person, name)
                joined[person] = min(day, joined.get(person, day))
                email = dice.spaced(dice.cased(emails[person]))
            written = day.strftime(dice.of(("%Y-%m-%d", "%Y-%m-%d", "%d.%m.%Y")))
            messy = dice.spaced(name.replace(" ", dice.of((" ", " ", "   "))))
            self.v1["customers"].append((number, messy, email, written))
        self.without_email = [row[0] for row in self.v1["customers"] if row[0] not in self.person_of]
        for person, number in self.survivor.items():
            day = joined[person].strftime("%Y-%m-%d")
            self.truth["customers"].append([number, emails[person], names[person], day])

    def make_orders(self, count):
        dice = self.dice
        cents = {sku: price for sku, _, price in self.truth["products"]}
        known, highest = list(self.person_of), self.v1["customers"][-1][0]
        for number in dice.numbers(count, 5000):
            bought = Counter()
            items = [(dice.of(list(cents)), 1 + dice.below(5)) for _ in range(1 + dice.below(4))]
            if dice.chance(0.15):
                items.append((items[0][0], 1 + dice.below(3)))
            customer, reason = dice.of(known), None
            if dice.chance(0.05):
                items.insert(dice.below(len(items) + 1), (f"GONE-{dice.below(90)}", 1))
                reason = "unknown product"
            if dice.chance(0.04):
                items, reason = [], "no items"
            if dice.chance(0.08):
                customer = dice.of(self.without_email) if dice.chance(0.5) else highest + 1 + dice.below(500)
                reason = "unknown customer"
            moment = self.start + timedelta(seconds=dice.below(300 * 86400))
            status = dice.of(STATUSES)
            self.v1["orders"].append((number, customer, self.write_time(moment), self.write_status(status),
                                      self.write_items(items)))
            if reason is not None:
                self.truth["rejected"].append(["order", number, reason])
                continue
            for sku, quantity in items:
                bought[sku] += quantity
            total = sum(cents[sku] * quantity for sku, quantity in bought.items())
            written = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
            self.truth["orders"].append([number, self.survivor[self.person_of[customer]], written, status, total])
            self.truth["order_items"] += [[number, sku, quantity] for sku, quantity in bought.items()]

    def write_time(self, moment):
        kind = self.dice.below(4)
        if kind == 0:
            return str(int(moment.timestamp()))
        if kind == 1:
            return moment.strftime("%Y-%m-%d %H:%M:%S")
        offset = timezone(timedelta(hours=self.dice.of((-8, -5, 1, 2, 5.5, 9))))
        return moment.astimezone(offset).isoformat()

    def write_status(self, status):
        if status == "open" and self.dice.chance(0.5):
            return self.dice.of((None, "", " "))
        if status == "cancelled" and self.dice.chance(0.4):
            status = "canceled"
        return self.dice.spaced(self.dice.cased(status))

    def write_items(self, items):
        if not items:
            return self.dice.of((None, "", " ; "))
        dice = self.dice
        parts = [f"{dice.spaced(dice.of((sku, sku.lower())), 0.2)}:{dice.spaced(str(count), 0.2)}" for sku, count in items]
        return ";".join(parts) + (";" if dice.chance(0.2) else "")


def literal(value):
    if value is None:
        return "null"
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def inserts(rows_by_table):
    """SQL that adds the rows to v1."""
    statements = []
    for table, rows in rows_by_table.items():
        if rows:
            values = ",\n".join(f"    ({', '.join(map(literal, row))})" for row in rows)
            statements.append(f"insert into v1.{table} values\n{values};\n")
    return "".join(statements)


def halves(v1):
    """The rows that were there first, about two thirds of each table, and those that came later."""
    cut = {table: len(rows) * 2 // 3 for table, rows in v1.items()}
    return ({table: rows[: cut[table]] for table, rows in v1.items()},
            {table: rows[cut[table] :] for table, rows in v1.items()})


if __name__ == "__main__":
    shop = Shop(sys.argv[1])
    if "--truth" in sys.argv:
        print(json.dumps(shop.truth, ensure_ascii=False))
    else:
        print(SCHEMA + inserts(shop.v1), end="")
