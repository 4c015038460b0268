"""Classifies rows by a forest. Each value of a row is bought from the feature store, which is what all this costs."""


def classify(forest, row_ids, fetch):
    """The class of each row, in the order of `row_ids`."""
    return [classify_row(forest, row_id, fetch) for row_id in row_ids]


def classify_row(forest, row_id, fetch):
    known = {}
    totals = [0] * forest["classes"]
    for node in forest["trees"]:
        while "votes" not in node:
            name = node["feature"]
            if name not in known:
                known[name] = fetch(row_id, name)
            value = known[name]
            if value is None:
                node = node[node["missing"]]
            else:
                node = node["left"] if value <= node["threshold"] else node["right"]
        for label, votes in enumerate(node["votes"]):
            totals[label] += votes
    return totals.index(max(totals))
