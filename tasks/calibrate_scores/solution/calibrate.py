"""Turn each segment's scores into chances of default, in the same order, and its cutoff with them."""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize


def terms(scores):
    return np.stack([np.ones_like(scores), np.log(scores), -np.log1p(-scores)], axis=1)


def fit(scores, outcomes, weights):
    """Beta calibration with weights: log-odds of constant, log(s), -log(1 - s); positive slopes keep the order."""
    x = terms(scores)

    def loss(beta):
        odds = x @ beta
        gradient = x.T @ (weights * (1.0 / (1.0 + np.exp(-odds)) - outcomes))
        return (weights * (np.logaddexp(0.0, odds) - outcomes * odds)).sum() / weights.sum(), gradient / weights.sum()

    bounds = [(None, None), (1e-3, None), (1e-3, None)]
    return minimize(loss, np.array([0.0, 1.0, 1.0]), jac=True, bounds=bounds, method="L-BFGS-B",
                    options={"ftol": 1e-12, "gtol": 1e-8, "maxiter": 1000}).x  # fmt: skip


def calibrate(beta, scores):
    # Term by term and not by a matrix product, whose rounding may differ between a row and a table.
    odds = beta[0] + beta[1] * np.log(scores) - beta[2] * np.log1p(-scores)
    return 1.0 / (1.0 + np.exp(-odds))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    known, asked, cutoffs = (pd.read_csv(options.input / f"{name}.csv") for name in ("known", "asked", "cutoffs"))
    asked["probability"] = 0.0
    for row, (segment, cutoff) in enumerate(zip(cutoffs["segment"], cutoffs["cutoff"].to_numpy(), strict=True)):
        own = known[known["segment"] == segment]
        beta = fit(own["score"].to_numpy(), own["defaulted"].to_numpy(), own["weight"].to_numpy(dtype=float))
        mine = asked["segment"] == segment
        # The cutoff goes through the very same call as the scores, so that what was at it still is.
        turned = calibrate(beta, np.append(asked.loc[mine, "score"].to_numpy(), cutoff))
        asked.loc[mine, "probability"] = turned[:-1]
        cutoffs.loc[row, "cutoff"] = turned[-1]
    options.output.mkdir(parents=True, exist_ok=True)
    asked[["application", "probability"]].to_csv(options.output / "probabilities.csv", index=False)
    cutoffs.to_csv(options.output / "cutoffs.csv", index=False)


if __name__ == "__main__":
    main()
