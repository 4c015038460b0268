"""The right answers: every metric as its mean over all orders of documents with equal scores.

Worked out rank by rank. A group of equals takes the ranks first..last; by symmetry each of its documents is at each of
these ranks with the same chance, and of two different ranks each pair of its documents is equally likely.
"""

import math
from fractions import Fraction
from itertools import groupby


def evaluate(qrels, run, ks):
    queries, skipped = {}, []
    for query, grades in qrels.items():
        if any(grade > 0 for grade in grades.values()):
            queries[query] = measure(grades, run.get(query, []), ks)
        else:
            skipped.append(query)
    names = [f"{name}@{k}" for k in ks for name in ("ndcg", "mrr", "map", "recall")]
    mean = {name: math.fsum(one[name] for one in queries.values()) / len(queries) for name in names} if queries else {}
    return {"queries": queries, "mean": mean, "skipped": sorted(skipped)}


def tied_groups(grades, results):
    """Grades of the ranked documents, best scores first, those of equal scores together."""
    best = {}
    for passage, score in results:
        document = passage.rpartition("#")[0] if "#" in passage else passage
        best[document] = max(score, best.get(document, score))
    ranked = sorted(best.items(), key=lambda item: item[1], reverse=True)
    return [[max(0, grades.get(document, 0)) for document, _ in group]
            for _, group in groupby(ranked, key=lambda item: item[1])]


def measure(grades, results, ks):
    groups = tied_groups(grades, results)
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)
    return {name: value for k in ks for name, value in measure_at(groups, ideal, k).items()}


def measure_at(groups, ideal, k):
    gained, reciprocal, precisions, found = [], [], [], 0.0
    before = relevant_before = 0
    for group in groups:
        size, relevant = len(group), sum(grade > 0 for grade in group)
        ranks = range(before + 1, min(before + size, k) + 1)
        gain = Fraction(sum(2**grade - 1 for grade in group), size)
        gained += [float(gain) / math.log2(rank + 1) for rank in ranks]
        found += relevant * len(ranks) / size
        if relevant and not relevant_before:
            # Chance that none of the group's relevant documents stands on an earlier rank of the group.
            none_so_far = 1.0
            for place, rank in enumerate(ranks):
                if size - place - relevant < 0:
                    break
                here = relevant / (size - place)
                reciprocal.append(none_so_far * here / rank)
                none_so_far *= 1.0 - here
        if relevant:
            others = (relevant - 1) / (size - 1) if size > 1 else 0.0
            precisions += [relevant / size * (relevant_before + 1 + place * others) / rank
                           for place, rank in enumerate(ranks)]
        before += size
        relevant_before += relevant
    best = math.fsum((2**grade - 1) / math.log2(rank + 1) for rank, grade in enumerate(ideal[:k], 1))
    return {
        f"ndcg@{k}": math.fsum(gained) / best,
        f"mrr@{k}": math.fsum(reciprocal),
        f"map@{k}": math.fsum(precisions) / min(len(ideal), k),
        f"recall@{k}": found / len(ideal),
    }
