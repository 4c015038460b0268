"""Analyse an A/B test of customers: one value a customer, adjusted for the past, at the level that several looks need."""

import numpy as np
from scipy import stats

LEVEL, MISMATCH_LEVEL = 0.05, 0.001


def analyse(experiment):
    """See the prompt."""
    b, before, values, visits = by_customer(experiment["visits"])
    share = experiment["planned_share_b"]
    expected = np.array([1 - share, share]) * len(b)
    if len(b) and stats.chisquare([np.sum(b == 0), np.sum(b == 1)], expected).pvalue < MISMATCH_LEVEL:
        return {"sample_ratio_mismatch": True, "effect": None, "low": None, "high": None}
    effect, error, freedom = regress(b, before, values, visits)
    # Each look has its share of the whole error: the intervals hold together, whatever the looks have in common.
    critical = stats.t.ppf(1 - LEVEL / 2 / experiment["looks_planned"], freedom)
    return {
        "sample_ratio_mismatch": False,
        "effect": float(effect),
        "low": float(effect - critical * error),
        "high": float(effect + critical * error),
    }


def by_customer(visits):
    """Arrays with one entry a customer: 1 for B, past (nan: none), mean value, visits. Who was in both is left out."""
    customers = {}
    for name, variant, before, value in visits:
        variants, _, of_customer = customers.setdefault(name, (set(), before, []))
        variants.add(variant)
        of_customer.append(value)
    kept = [one for one in customers.values() if len(one[0]) == 1]
    return (
        np.array([float("B" in variants) for variants, _, _ in kept]),
        np.array([np.nan if before is None else before for _, before, _ in kept], dtype=float),
        np.array([np.mean(of_customer) for _, _, of_customer in kept]),
        np.array([len(of_customer) for _, _, of_customer in kept], dtype=float),
    )


def regress(b, before, values, visits):
    """(effect, its robust standard error, degrees of freedom) of means by customer on variant and past.

    Who came often, or has a past, is known better and weighs more; wrong weights would cost width, not validity.
    """
    is_new = np.isnan(before)
    past = np.where(is_new, 0.0, before - np.nanmean(before) if not is_new.all() else 0.0)
    columns = [np.ones_like(b), b]
    if 2 < is_new.sum() < len(b) - 2:
        columns += [is_new.astype(float), past]
    elif not is_new.all():
        keep = ~is_new
        b, values, visits, past, is_new = b[keep], values[keep], visits[keep], past[keep], is_new[keep]
        columns = [np.ones_like(b), b, past]
    design = np.column_stack(columns)
    weights = (1.0 / (1.0 + 1.5 / visits)) * np.where(is_new, 0.35, 1.0)
    root = np.sqrt(weights)
    x, y = design * root[:, None], values * root
    inverse = np.linalg.pinv(x.T @ x)
    residual = y - x @ (inverse @ x.T @ y)
    leverage = np.clip(np.einsum("ij,jk,ik->i", x, inverse, x), 0, 0.95)
    meat = (x * (residual / (1 - leverage))[:, None]).T @ (x * (residual / (1 - leverage))[:, None])
    variance = inverse @ meat @ inverse
    return (inverse @ x.T @ y)[1], np.sqrt(variance[1, 1]), max(1, len(b) - design.shape[1])
