"""The right summary of a folder of exports, in exact decimals and without pandas.

    python summarise.py FOLDER > expected.csv
"""

import csv
import sys
from collections import defaultdict
from datetime import datetime, timezone
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

COLUMNS = ("region", "month", "orders", "customers", "gross_eur", "refunds_eur", "net_eur")
CENT = Decimal("0.01")


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def tidy_region(text):
    return " ".join(word[:1].upper() + word[1:].lower() for word in text.split()) or "Unknown"


def money(text):
    return Decimal(text.replace(",", ""))


def summarise(folder):
    """Rows of the summary, as texts, in order."""
    folder = Path(folder)
    regions = {row["customer_id"]: tidy_region(row["region"]) for row in rows_of(folder / "customers.csv")}
    rates = {row["currency"].strip().upper(): Decimal(row["eur_per_unit"]) for row in rows_of(folder / "rates.csv")}
    orders = {row["order_id"]: row for row in rows_of(folder / "orders.csv")}
    paid_back = defaultdict(Decimal)
    for row in {row["refund_id"]: row for row in rows_of(folder / "refunds.csv")}.values():
        paid_back[row["order_id"]] += money(row["amount"])

    groups = defaultdict(lambda: [0, set(), Decimal(), Decimal()])
    for order in orders.values():
        rate = rates.get(order["currency"].strip().upper())
        amount = order["amount"].strip()
        if order["status"].strip().lower() == "cancelled" or amount in {"", "n/a"} or rate is None:
            continue
        moment = datetime.fromisoformat(order["ordered_at"]).astimezone(timezone.utc)
        group = groups[regions.get(order["customer_id"], "Unknown"), f"{moment:%Y-%m}"]
        group[0] += 1
        group[1].add(order["customer_id"])
        group[2] += money(amount) * rate
        group[3] += min(paid_back[order["order_id"]], money(amount)) * rate
    return [
        [*key, str(count), str(len(buyers)), *(str(cents(total)) for total in (gross, refunds, gross - refunds))]
        for key, (count, buyers, gross, refunds) in sorted(groups.items())
    ]


def cents(total):
    return total.quantize(CENT, ROUND_HALF_EVEN)


if __name__ == "__main__":
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(summarise(sys.argv[1]))
