"""Makes rows of nine sensor features and a class out of four, the same for the same seed.

    python generate.py visible FILE

Each seed has centres of its own. Only `random()` is used, whose sequence Python promises to keep.
"""

import csv
import random
import sys

FEATURES, CLASSES, CENTRES = 9, 4, 4
SHARES = (0.70, 0.17, 0.08, 0.05)
SPREAD = 0.95
VISIBLE_ROWS = 1500


def normal(draw):
    return sum(draw() for _ in range(12)) - 6.0


def generate(seed, count):
    """Centres by class, and a list of (features, label): each class is a handful of clouds, one label in fifty a guess."""
    draw = random.Random(seed).random
    clouds = [[[1.6 * normal(draw) for _ in range(FEATURES)] for _ in range(CENTRES)] for _ in range(CLASSES)]
    rows = []
    for _ in range(count):
        at = draw()
        label = next(k for k in range(CLASSES) if at < sum(SHARES[: k + 1]) or k == CLASSES - 1)
        centre = clouds[label][int(draw() * CENTRES)]
        features = [round(value + SPREAD * normal(draw), 4) for value in centre]
        rows.append((features, int(draw() * CLASSES) if draw() < 0.02 else label))
    return clouds, rows


if __name__ == "__main__":
    with open(sys.argv[2], "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([f"f{number}" for number in range(FEATURES)] + ["label"])
        writer.writerows([*features, label] for features, label in generate(sys.argv[1], VISIBLE_ROWS)[1])
