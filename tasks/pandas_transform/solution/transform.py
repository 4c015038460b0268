"""Summarise order exports by region and month."""

import argparse
from pathlib import Path

import pandas as pd


def read(folder: Path, name: str) -> pd.DataFrame:
    """A file of the exports, every cell as the text it is."""
    return pd.read_csv(folder / name, dtype=str, keep_default_na=False)


def money(column: pd.Series) -> pd.Series:
    """Amounts as numbers; what is none is missing."""
    return pd.to_numeric(column.str.strip().str.replace(",", ""), errors="coerce")


def summarise(folder: Path) -> pd.DataFrame:
    """The summary as it is written."""
    orders = read(folder, "orders.csv").drop_duplicates("order_id", keep="last")
    customers = read(folder, "customers.csv")
    refunds = read(folder, "refunds.csv").drop_duplicates("refund_id")
    rates = read(folder, "rates.csv")

    orders["amount"] = money(orders["amount"])
    orders["currency"] = orders["currency"].str.strip().str.upper()
    rate = pd.to_numeric(rates.set_index(rates["currency"].str.strip().str.upper())["eur_per_unit"])
    orders["rate"] = orders["currency"].map(rate)
    is_cancelled = orders["status"].str.strip().str.lower() == "cancelled"
    orders = orders[~is_cancelled & orders["amount"].notna() & orders["rate"].notna()].copy()

    region = customers.set_index("customer_id")["region"].str.split().str.join(" ").str.title()
    orders["region"] = orders["customer_id"].map(region).fillna("").replace("", "Unknown")
    orders["month"] = pd.to_datetime(orders["ordered_at"], utc=True, format="ISO8601").dt.strftime("%Y-%m")

    paid_back = money(refunds["amount"]).groupby(refunds["order_id"]).sum()
    refunded = orders["order_id"].map(paid_back).fillna(0.0).clip(upper=orders["amount"])
    orders["gross_eur"] = orders["amount"] * orders["rate"]
    orders["refunds_eur"] = refunded * orders["rate"]

    summary = orders.groupby(["region", "month"], as_index=False, sort=True).agg(
        orders=("order_id", "size"),
        customers=("customer_id", "nunique"),
        gross_eur=("gross_eur", "sum"),
        refunds_eur=("refunds_eur", "sum"),
    )
    summary["net_eur"] = summary["gross_eur"] - summary["refunds_eur"]
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    summary = summarise(options.input)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    summary.to_csv(options.output, index=False, float_format="%.2f")


if __name__ == "__main__":
    main()
