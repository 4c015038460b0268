"""Runs scorer.py on the forest and the rows of this folder, and prints what it costs: `python try.py`."""

import json
from pathlib import Path

import scorer

forest, store, row_ids = (json.loads(Path(f"{name}.json").read_text()) for name in ("forest", "store", "row_ids"))
spent = 0


def fetch(row_id, name):
    global spent
    spent += forest["prices"][name]
    return store[row_id][name]


classes = scorer.classify(forest, row_ids, fetch)
print("cost", spent, "rows of each class", [classes.count(label) for label in range(forest["classes"])])
