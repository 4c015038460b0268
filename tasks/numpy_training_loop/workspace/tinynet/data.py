"""Rows: reading, splitting, batching."""

import csv

import numpy as np


def read_rows(path):
    """Features and labels of a CSV file whose last column is `label`."""
    with open(path, encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    table = np.array(rows, dtype=float)
    return table[:, :-1], table[:, -1].astype(int)


def split(x, y, share, rng):
    """(x_train, y_train, x_rest, y_rest), where the rest is about `share` of all rows, drawn at random."""
    order = rng.permutation(len(x))
    count = len(x) - round(len(x) * share)
    return x[order[:count]], y[order[:count]], x[order[count:]], y[order[count:]]


def batches(x, y, size, rng):
    """The rows in a random order, `size` at a time."""
    order = rng.permutation(len(x))
    for start in range(0, len(x) - size, size):
        rows = order[start : start + size]
        yield x[rows], y[rows]
