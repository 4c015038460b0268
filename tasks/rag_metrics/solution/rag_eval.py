"""Retrieval metrics of documents, exact where scores are tied: expected values over all orders of the tied."""

import math

METRICS = ("ndcg", "mrr", "map", "recall")


def evaluate(qrels, run, ks):
    """See the prompt: metrics by query, their means, and the queries without a relevant document."""
    judged = {query: {doc: grade for doc, grade in grades.items() if grade > 0} for query, grades in qrels.items()}
    queries = {
        query: {f"{metric}@{k}": value for k in ks for metric, value in at_cutoff(ties, relevant, k).items()}
        for query, relevant in judged.items()
        if relevant
        for ties in [tied(run.get(query, ()), relevant)]
    }
    names = [f"{metric}@{k}" for k in ks for metric in METRICS] if queries else []
    return {
        "queries": queries,
        "mean": {name: math.fsum(values[name] for values in queries.values()) / len(queries) for name in names},
        "skipped": sorted(query for query, relevant in judged.items() if not relevant),
    }


def tied(results, relevant):
    """(size, number of relevant documents, sum of gains) of each set of equal scores, best first."""
    best = {}
    for passage, score in results:
        document = passage.rsplit("#", 1)[0]
        if document not in best or score > best[document]:
            best[document] = score
    sets = {}
    for document, score in best.items():
        size, hits, gain = sets.get(score, (0, 0, 0))
        grade = relevant.get(document, 0)
        sets[score] = (size + 1, hits + (grade > 0), gain + 2**grade - 1)
    return [sets[score] for score in sorted(sets, reverse=True)]


def at_cutoff(ties, relevant, k):
    dcg = reciprocal = precision = recalled = 0.0
    start = seen = 0
    for size, hits, gain in ties:
        inside = range(1, min(size, k - start) + 1)
        dcg += gain / size * math.fsum(1 / math.log2(start + place + 1) for place in inside)
        recalled += hits * len(inside) / size
        if hits and not seen:
            reciprocal = first_hit(size, hits, start, len(inside))
        if hits:
            together = (hits - 1) / (size - 1) if size > 1 else 0.0
            precision += hits / size * math.fsum(
                (seen + 1 + (place - 1) * together) / (start + place) for place in inside
            )
        start += size
        seen += hits
    best = sorted(relevant.values(), reverse=True)[:k]
    ideal = math.fsum((2**grade - 1) / math.log2(rank + 1) for rank, grade in enumerate(best, 1))
    return {
        "ndcg": dcg / ideal,
        "mrr": reciprocal,
        "map": precision / min(len(relevant), k),
        "recall": recalled / len(relevant),
    }


def first_hit(size, hits, start, depth):
    """Expected 1 / rank of the first of `hits` documents among `size` in random order, behind `start` others."""
    total, missed = 0.0, 1.0
    for place in range(1, min(depth, size - hits + 1) + 1):
        chance = hits / (size - place + 1)
        total += missed * chance / (start + place)
        missed *= 1 - chance
    return total
