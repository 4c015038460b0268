"""BM25 as it is done well on such documents: the ruler that rankings are compared with."""

import math
import re
import unicodedata
from collections import Counter, defaultdict

K1, B, TITLE = 1.2, 0.75, 2
PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def folded(text):
    return "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))


def stem(word):
    for ending in ("ing", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word


def terms(text):
    return [stem(part.lower()) for part in PART.findall(folded(text))]


def one_edit_away(word):
    halves = [(word[:at], word[at:]) for at in range(len(word) + 1)]
    for left, right in halves:
        if right:
            yield left + right[1:]
            yield from (left + letter + right[1:] for letter in LETTERS)
        if len(right) > 1:
            yield left + right[1] + right[0] + right[2:]
        yield from (left + letter + right for letter in LETTERS)


class Ranking:
    def __init__(self, documents, aliases):
        self.aliases = {short.lower(): terms(long) for short, long in aliases.items()}
        replaced = {document["replaces"] for document in documents}
        self.lengths, self.postings = {}, defaultdict(dict)
        for document in documents:
            if document["id"] in replaced:
                continue
            counts = Counter(terms(document["text"]) + TITLE * terms(document["title"]))
            self.lengths[document["id"]] = sum(counts.values())
            for term, count in counts.items():
                self.postings[term][document["id"]] = count
        self.mean = sum(self.lengths.values()) / max(1, len(self.lengths))

    def search(self, query, count):
        asked = set()
        for word in re.findall(r"\w+", query):
            for term in self.aliases.get(word.lower()) or terms(word):
                asked |= {term} if term in self.postings else {near for near in one_edit_away(term) if near in self.postings}
        scores = defaultdict(float)
        for term in sorted(asked):
            found = self.postings[term]
            weight = math.log(1 + (len(self.lengths) - len(found) + 0.5) / (len(found) + 0.5))
            for document, tf in found.items():
                scores[document] += weight * tf * (K1 + 1) / (tf + K1 * (1 - B + B * self.lengths[document] / self.mean))
        return sorted(scores, key=lambda document: (-scores[document], document))[:count]
