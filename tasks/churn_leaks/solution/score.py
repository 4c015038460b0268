"""Learn from the history who leaves, without what the history only knew afterwards, and score others."""

import argparse
from pathlib import Path

import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

ID, LABEL = "customer_id", "churned"
LEAKS = ["days_since_app_login", "open_tickets", "invoices_paid", "account_team", "newsletter", "segment_churn"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--history", "--input", "--output"):
        parser.add_argument(name, type=Path, required=True)
    options = parser.parse_args()
    history, asked = pd.read_csv(options.history), pd.read_csv(options.input)
    for table in (history, asked):
        table["ends_soon"] = (table["contract_days_left"] < 60).astype(int)
    encode = make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
    )
    model = make_pipeline(encode, LogisticRegression(max_iter=1000))
    model.fit(history.drop(columns=[ID, LABEL, *LEAKS]), history[LABEL] == "yes")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    score = model.predict_proba(asked.drop(columns=[ID, *LEAKS]))[:, 1]
    pd.DataFrame({ID: asked[ID], "score": score}).to_csv(options.output, index=False)


if __name__ == "__main__":
    main()
