"""Learn from known vehicles how many claims there are in a year, and say how many others will have in their days."""

import argparse
from pathlib import Path

import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

ID, DAYS, LABEL = "policy_id", "days_insured", "claims"
# What is in the file of a vehicle whose year is over was written because of its claims.
UNKNOWN_BEFORE = "file_notes"
SEEDS = range(4)


def make_model(seed):
    """Boosted trees for a rate: they find what holds for one vehicle and not for another."""
    is_category = make_column_selector(dtype_exclude="number")
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    boosting = HistGradientBoostingRegressor(
        loss="poisson", learning_rate=0.08, max_iter=200, max_leaf_nodes=8, min_samples_leaf=25, l2_regularization=3.0,
        max_features=0.6, random_state=seed,
    )
    return make_pipeline(make_column_transformer((encoder, is_category), remainder="passthrough"), boosting)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--train", "--input", "--output"):
        parser.add_argument(name, type=Path, required=True)
    options = parser.parse_args()
    train, asked = pd.read_csv(options.train), pd.read_csv(options.input)
    train = train[train[DAYS] > 0]  # no time, no rate
    features = train.drop(columns=[ID, DAYS, UNKNOWN_BEFORE, LABEL])
    rate = 0.0
    for seed in SEEDS:
        model = make_model(seed)
        weight = {"histgradientboostingregressor__sample_weight": train[DAYS]}
        rate += model.fit(features, train[LABEL] / train[DAYS], **weight).predict(asked[features.columns]) / len(SEEDS)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({ID: asked[ID], "expected_claims": rate * asked[DAYS]}).to_csv(options.output, index=False)


if __name__ == "__main__":
    main()
