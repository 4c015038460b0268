"""Classifies rows by a forest, and buys a value only while it could still change the class.

For every tree the leaves that the known values leave open are kept. A class has won when, against each other class, what
the trees together can do at worst still leaves it ahead. Until then the value is bought that promises most for its price:
the one that most of the doubt hangs on, where a split counts half as much as the one above it.
"""

WEIGHT_BELOW = 0.5


def classify(forest, row_ids, fetch):
    """The class of each row, in the order of `row_ids`."""
    found = {}
    for row_id in row_ids:
        if row_id not in found:
            found[row_id] = classify_row(forest, row_id, fetch)
    return [found[row_id] for row_id in row_ids]


class Open:
    """A tree as far as it is known: its top where the known values end, and what its open leaves can do."""

    def __init__(self, node, known, classes):
        self.top = node = descend(node, known)
        self.leaves = list(open_leaves(node, known, 1.0))
        self.mean = [sum(share * votes[label] for share, votes in self.leaves) for label in range(classes)]
        # least[a][b]: the least by which votes for a exceed those for b
        self.least = [
            [min(votes[a] - votes[b] for _, votes in self.leaves) for b in range(classes)] for a in range(classes)
        ]


def descend(node, known):
    while "votes" not in node and node["feature"] in known:
        node = node[side_of(node, known[node["feature"]])]
    return node


def side_of(node, value):
    if value is None:
        return node["missing"]
    return "left" if value <= node["threshold"] else "right"


def open_leaves(node, known, share):
    """(share, votes) of the leaves still to be reached."""
    node = descend(node, known)
    if "votes" in node:
        yield share, node["votes"]
        return
    for side in ("left", "right"):
        yield from open_leaves(node[side], known, share / 2)


def features_of(node, known, weight, found):
    """Adds up how much of the tree's doubt hangs on each feature that is not known."""
    node = descend(node, known)
    if "votes" not in node:
        found[node["feature"]] = found.get(node["feature"], 0.0) + weight
        for side in ("left", "right"):
            features_of(node[side], known, weight * WEIGHT_BELOW, found)


def classify_row(forest, row_id, fetch):
    classes, known = forest["classes"], {}
    trees = [Open(tree, known, classes) for tree in forest["trees"]]
    while True:
        mean = [sum(tree.mean[label] for tree in trees) for label in range(classes)]
        leader = mean.index(max(mean))
        # Of classes with as many votes the lowest wins: a lower one has to be behind.
        rivals = [
            rival for rival in range(classes)
            if rival != leader and sum(tree.least[leader][rival] for tree in trees) < (1 if rival < leader else 0)
        ]
        if not rivals:
            return leader
        doubts = {}
        for tree in trees:
            if "votes" not in tree.top:
                margin = sum(tree.mean[leader] - tree.mean[rival] - tree.least[leader][rival] for rival in rivals)
                features_of(tree.top, known, margin, doubts)
        name = max(doubts, key=lambda feature: doubts[feature] / forest["prices"][feature])
        known[name] = fetch(row_id, name)
        trees = [Open(tree.top, known, classes) for tree in trees]
