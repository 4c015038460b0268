"""BM25 over terms that are the same however a word is written: form, accents, case, names in programs.

Abbreviations stand for their words; a word of a query that no document has is taken for those one slip of a key away.
"""

import math
import re
import unicodedata
from collections import Counter

SATURATION, LENGTH = 1.5, 0.75
ENDINGS = ("ing", "ed", "s")
SHORTEST_STEM = 4


def build(documents, aliases):
    out_of_date = {document["replaces"] for document in documents if document["replaces"] is not None}
    index = {"lengths": {}, "terms": {}, "aliases": {short.lower(): terms_of(words) for short, words in aliases.items()}}
    for document in documents:
        if document["id"] not in out_of_date:
            # A word of the title says more than one of the text.
            counts = Counter(terms_of(document["title"]) * 2 + terms_of(document["text"]))
            index["lengths"][document["id"]] = counts.total()
            for term, count in counts.items():
                index["terms"].setdefault(term, {})[document["id"]] = count
    index["mean"] = sum(index["lengths"].values()) / max(1, len(index["lengths"]))
    index["by_length"] = {}
    for term in index["terms"]:
        index["by_length"].setdefault(len(term), []).append(term)
    return index


def search(index, query, count):
    wanted = set()
    for word in re.split(r"[^\w]+", query):
        for term in index["aliases"].get(word.lower()) or terms_of(word):
            wanted.update([term] if term in index["terms"] else near(index, term))
    scores = Counter()
    total = len(index["lengths"])
    for term in sorted(wanted):
        having = index["terms"][term]
        rarity = math.log(1 + (total - len(having) + 0.5) / (len(having) + 0.5))
        for document, times in having.items():
            norm = SATURATION * (1 - LENGTH + LENGTH * index["lengths"][document] / index["mean"])
            scores[document] += rarity * times / (times + norm)
    return sorted(scores, key=lambda document: (-scores[document], document))[:count]


def terms_of(text):
    letters = (sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", "".join(letters))
    return [stem(word) for word in re.findall(r"[a-z0-9]+", apart.lower())]


def stem(word):
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) >= SHORTEST_STEM + len(ending):
            return word.removesuffix(ending)
    return word


def near(index, term):
    """Terms of the index that are one slip away: a letter too many, too few, another, or two swapped."""
    lengths = range(len(term) - 1, len(term) + 2)
    return [other for length in lengths for other in index["by_length"].get(length, ()) if is_slip(term, other)]


def is_slip(one, other):
    at = next((at for at, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
    rest_one, rest_other = one[at:], other[at:]
    if len(one) == len(other):
        swapped = rest_one[:2] == rest_other[:2][::-1] and rest_one[2:] == rest_other[2:]
        return rest_one[1:] == rest_other[1:] or swapped
    longer, shorter = (rest_one, rest_other) if len(one) > len(other) else (rest_other, rest_one)
    return longer[1:] == shorter
