"""Makes the documents of a company's handbook, queries and what is relevant to them, the same for the same seed.

    python generate.py FOLDER        # writes the workspace's data into the folder

Each seed is a world of its own, with other words. Only `random()` is used, whose sequence Python promises to keep.
"""

import json
import random
import sys
import unicodedata
from pathlib import Path

SYLLABLES = ("bar", "dol", "ker", "lun", "mar", "nov", "ost", "pra", "sund", "tor", "vel", "zan", "fim", "gul", "hep", "wik")
FORMS = ("", "", "", "", "s", "s", "s", "ing", "ing", "ed")
ACCENTS = {"a": "á", "e": "é", "o": "ö", "u": "ü", "i": "í"}
QUESTION_WORDS = ("how", "to", "the", "why", "is", "my", "what", "with", "for", "when", "does", "not", "work", "a")
KINDS = ("plain", "accent", "code", "alias", "typo")
VISIBLE = {"documents": 320, "queries": 60}


class Dice:
    """Choices made from `random()` alone."""

    def __init__(self, seed):
        self.random = random.Random(seed).random

    def below(self, count):
        return int(self.random() * count)

    def of(self, values):
        return values[self.below(len(values))]

    def chance(self, share):
        return self.random() < share

    def some(self, values, count):
        values = list(values)
        return [values.pop(self.below(len(values))) for _ in range(min(count, len(values)))]


class World:
    """Words of this company: of its topics, and such as stand everywhere; how some are written; abbreviations."""

    def __init__(self, dice, topics):
        words = set()
        while len(words) < topics * 9 + 120:
            words.add("".join(dice.of(SYLLABLES) for _ in range(2 + dice.below(2))))
        words = dice.some(sorted(words), len(words))
        self.common = words[:120]
        self.topics = [words[at : at + 9] for at in range(120, len(words), 9)]
        self.written = {}
        for word in (word for topic in self.topics for word in topic):
            if dice.chance(0.25):
                at = dice.of([at for at, letter in enumerate(word) if letter in ACCENTS])
                spelled = word[:at] + ACCENTS[word[at]] + word[at + 1 :]
                # Some editors write an accent as a character of its own.
                self.written[word] = unicodedata.normalize(dice.of(("NFC", "NFD")), spelled)
        self.aliases, taken = {}, set()
        for topic in self.topics:
            pair = tuple(dice.some(topic, 2))
            short = (pair[0][0] + pair[1][0] + dice.of("bcdfghkmnprstvwxz")).upper()
            if short not in taken:
                taken.add(short)
                self.aliases[pair] = short

    def inflected(self, dice, word):
        return self.written.get(word, word) + dice.of(FORMS)


def a_sentence(dice, words):
    text = " ".join(words)
    return text[:1].upper() + text[1:] + dice.of((".", ".", ".", "?", ":", "!"))


def a_text(dice, world, mentions, filler, code=()):
    """The mentions among filler words, in random order; the two words of `code` are one name in a program."""
    said = [world.inflected(dice, word) for word in mentions]
    if code:
        first, second = code
        for _ in range(3 + dice.below(3)):
            said.append(dice.of((f"{first}{second.capitalize()}", f"{first}_{second}", f"{first.capitalize()}{second.capitalize()}()")))
    said += [dice.of(world.common) + dice.of(FORMS) if dice.chance(0.75) else dice.of(QUESTION_WORDS) for _ in range(filler)]
    said = dice.some(said, len(said))
    sentences, at = [], 0
    while at < len(said):
        length = 6 + dice.below(9)
        sentences.append(a_sentence(dice, said[at : at + length]))
        at += length
    return " ".join(sentences)


def a_document(dice, world, number, topic):
    """(document, focus): what it is about is said several times and often in the title."""
    words = world.topics[topic]
    focus = dice.some(words, 3)
    pair = next((pair for pair in world.aliases if pair[0] in words), ())
    if pair and dice.chance(0.4):
        focus = [*pair, *dice.some([word for word in words if word not in pair], 1)]
    code = tuple(focus[:2]) if dice.chance(0.3) else ()
    mentions = [word for word in focus if word not in code for _ in range(2 + dice.below(4))]
    # In passing: a word of its own topic, and a few of others.
    mentions += [word for word in words if word not in focus and dice.chance(0.2)]
    mentions += [dice.of(world.topics[dice.below(len(world.topics))]) for _ in range(dice.below(7))]
    named = dice.some([word for word in focus if word not in code], 2)
    title = [world.inflected(dice, word) for word in named] if dice.chance(0.7) else []
    title += [dice.of(world.common) for _ in range(1 + dice.below(2))]
    document = {
        "id": f"doc-{number:04d}",
        "title": " ".join(title).capitalize(),
        "text": a_text(dice, world, mentions, 30 + dice.below(90), code),
        "replaces": None,
    }
    return document, focus, code


def a_log(dice, world, number):
    """A long page that names a word of nearly every topic: it is about none of them."""
    mentions = [word for topic in world.topics for word in dice.some(topic, 1 + dice.below(3)) for _ in range(1 + dice.below(2))]
    return {"id": f"doc-{number:04d}", "title": f"{dice.of(world.common)} minutes".capitalize(),
            "text": a_text(dice, world, mentions, 700), "replaces": None}


def mistyped(dice, word):
    at = 1 + dice.below(len(word) - 2)
    while True:
        match dice.below(3):
            case 0:
                wrong = word[:at] + word[at + 1 :]
            case 1:
                wrong = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
            case _:
                wrong = word[:at] + dice.of("bcdfghklmnoprstuvwz") + word[at + 1 :]
        if wrong != word:
            return wrong
        at = 1 + dice.below(len(word) - 2)


def a_query(dice, world, kind, focus, code):
    """(text, words it is about), or None where this document has nothing of the kind."""
    pair = next((pair for pair in world.aliases if set(pair) <= set(focus)), None)
    accented = [word for word in focus if word in world.written]
    if kind == "alias" and pair:
        about = [*pair, *[word for word in focus if word not in pair]][: 2 + dice.below(2)]
        short = world.aliases[pair]
        said = [dice.of((short, short.lower()))] + [word + dice.of(FORMS) for word in about[2:]]
    elif kind == "code" and code:
        about = list(code)
        said = [dice.of((" ", " ", "-", "_")).join(code)]
    elif kind == "accent" and accented and not code:
        about = [accented[0], *[word for word in focus if word != accented[0]]][:2]
        said = [word + dice.of(FORMS) for word in about]
    elif kind in {"plain", "typo"} and not accented and not code:
        about = dice.some(focus, 2)
        said = [word + dice.of(FORMS) for word in about]
        if kind == "typo":
            long = max(range(len(about)), key=lambda at: len(about[at]))
            said[long] = mistyped(dice, about[long]) + dice.of(FORMS)
    else:
        return None
    said += [dice.of(QUESTION_WORDS) for _ in range(2)] + [dice.of(world.common) for _ in range(dice.below(2))]
    return " ".join(dice.some(said, len(said))), about


def generate(seed, documents, queries):
    """A dict of `documents`, `aliases`, `queries` ({id: text}), `qrels` ({id: {document: grade}}), `kinds` ({id: kind})."""
    dice = Dice(seed)
    world = World(dice, max(8, documents // 16))
    made, about, codes = [], {}, {}
    for number in range(documents):
        if number % 25 == 24:
            made.append(a_log(dice, world, number))
            continue
        document, focus, code = a_document(dice, world, number, dice.below(len(world.topics)))
        made.append(document)
        about[document["id"]] = focus
        codes[document["id"]] = code
    replaced = set()
    number = documents
    for document in dice.some([document for document in made if document["id"] in about], documents // 6):
        # An older version, or two of them, say the same in nearly the same words.
        newer = document
        for _ in range(1 + dice.below(2)):
            words = newer["text"].split(" ")
            older = {**newer, "id": f"doc-{number:04d}", "text": " ".join(words[: len(words) - dice.below(12)]), "replaces": None}
            newer["replaces"] = older["id"]
            replaced.add(older["id"])
            made.append(older)
            newer, number = older, number + 1
    made = dice.some(made, len(made))
    found, qrels, kinds = {}, {}, {}
    while len(found) < queries:
        target = dice.of(sorted(about))
        kind = KINDS[len(found) % len(KINDS)]
        query = a_query(dice, world, kind, about[target], codes[target])
        if query is None:
            continue
        text, words = query
        name = f"q{len(found):03d}"
        hits = {document: len(set(words) & set(focus)) for document, focus in about.items()}
        found[name], kinds[name] = text, kind
        # All of the words, or of three all but one: about that. One of them: it touches on it.
        qrels[name] = {document: 3 if count == len(words) else count for document, count in sorted(hits.items()) if count}
    aliases = {short: " ".join(pair) for pair, short in world.aliases.items()}
    return {"documents": made, "aliases": aliases, "queries": found, "qrels": qrels, "kinds": kinds}


def write(folder, world):
    lines = [json.dumps(document, ensure_ascii=False) + "\n" for document in world["documents"]]
    (folder / "documents.jsonl").write_text("".join(lines), encoding="utf-8")
    for name in ("aliases", "queries", "qrels"):
        (folder / f"{name}.json").write_text(json.dumps(world[name], ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), generate("visible", **VISIBLE))
