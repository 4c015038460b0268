"""What a feed is asked, and whether what it gives is right, by group; the same for the same seed.

A case is (steps, is_right): `is_right` gets what the steps gave, `{"value": ...}` each, or `{"error": ...}` for the last.
"""

import random


class Dice:
    """Choices made from `random()` alone."""

    def __init__(self, seed):
        self.random = random.Random(seed).random

    def between(self, low, high):
        return low + int((high - low + 1) * self.random())

    def chance(self, share):
        return self.random() < share


def first_order(size, seed):
    """The order of the first epoch, which may never change."""
    positions = list(range(size))
    random.Random(seed).shuffle(positions)
    return positions


def share_of(order, workers, worker):
    """Consecutive shares; the first ones are longer by one where it does not divide evenly."""
    length, extra = divmod(len(order), workers)
    start = worker * length + min(worker, extra)
    return order[start : start + length + (worker < extra)]


def cut(share, batch_size, drop_last):
    batches = [share[at : at + batch_size] for at in range(0, len(share), batch_size)]
    return [batch for batch in batches if len(batch) == batch_size or not drop_last]


def values(said, count):
    """The values of all steps; ValueError when one failed or is missing."""
    if len(said) != count or any("error" in one for one in said):
        raise ValueError("a step failed")
    return [one["value"] for one in said]


def is_order(batches, size, batch_size):
    """Whether these are batches of every position once, all whole but the last."""
    flat = [position for batch in batches for position in batch]
    lengths = [len(batch) for batch in cut(flat, batch_size, False)]
    return (
        all(type(position) is int for position in flat)
        and sorted(flat) == list(range(size))
        and [len(batch) for batch in batches] == lengths
    )


def last_batch(dice):
    for _ in range(40):
        size, batch, seed = dice.between(0, 40), dice.between(1, 9), dice.between(0, 10**6)
        steps = [["new", "a", size, batch, {"seed": seed}], ["len", "a"], ["epochs", "a", 1]]
        right = cut(first_order(size, seed), batch, False)
        yield steps, lambda said, right=right: values(said, 3)[1:] == [len(right), [right]]


def shares(dice):
    for _ in range(30):
        workers = dice.between(2, 6)
        size, batch, seed = dice.between(0, 40), dice.between(1, 5), dice.between(0, 10**6)
        steps = []
        for worker in range(workers):
            steps += [["new", f"{worker}", size, batch, {"seed": seed, "workers": workers, "worker": worker}]]
            steps += [["epochs", f"{worker}", 2]]

        def is_right(said, size=size, batch=batch, workers=workers):
            given = values(said, 2 * workers)[1::2]
            lengths = [len(share_of(range(size), workers, worker)) for worker in range(workers)]
            for epoch in range(2):
                parts = [[position for one in given[worker][epoch] for position in one] for worker in range(workers)]
                if [len(part) for part in parts] != lengths or sorted(sum(parts, [])) != list(range(size)):
                    return False
                if any(given[worker][epoch] != cut(parts[worker], batch, False) for worker in range(workers)):
                    return False
            return True

        yield steps, is_right


def epochs(dice):
    for _ in range(15):
        size, batch, seed = dice.between(30, 60), dice.between(1, 9), dice.between(0, 10**6)
        steps = [["new", "a", size, batch, {"seed": seed}], ["epochs", "a", 5]]
        steps += [["new", "b", size, batch, {"seed": seed}], ["epochs", "b", 5]]

        def is_right(said, size=size, batch=batch, seed=seed):
            _, one, _, other = values(said, 4)
            different = {str(batches) for batches in one}
            return (
                one == other
                and len(one) == len(different) == 5
                and all(is_order(batches, size, batch) for batches in one)
                and one[0] == cut(first_order(size, seed), batch, False)
            )

        yield steps, is_right
    # The same in another process and at another time: these were asked in one where nothing else was made before.
    for _ in range(5):
        size, seed = dice.between(30, 60), dice.between(0, 50)
        steps = [["new", "x", 9, 2, {"seed": 1}], ["take", "x", 2], ["new", "a", size, 4, {"seed": seed}], ["take", "a", 3],
                 ["new", "b", size, 4, {"seed": seed}], ["epochs", "b", 3], ["epochs", "x", 1],
                 ["new", "c", size, 4, {"seed": seed}], ["epochs", "c", 3]]
        yield steps, lambda said: values(said, 9)[5] == values(said, 9)[8]


def ensembles(dice):
    for _ in range(8):
        size, members, first = dice.between(40, 60), 12, dice.between(0, 3) * dice.between(0, 20)
        steps = []
        for member in range(members):
            steps += [["new", f"{member}", size, size, {"seed": first + member}], ["epochs", f"{member}", 12]]

        def is_right(said, members=members, size=size):
            orders = [batches for given in values(said, 2 * members)[1::2] for batches in given]
            return len({str(batches) for batches in orders}) == members * 12 and all(is_order(one, size, size) for one in orders)

        yield steps, is_right


def resumed(dice):
    for _ in range(40):
        workers, batch = dice.between(1, 3), dice.between(1, 5)
        size, seed = dice.between(24, 50), dice.between(0, 10**6)
        options = {"workers": workers, "worker": dice.between(0, workers - 1), "drop_last": dice.chance(0.3)}
        count = len(cut(share_of(range(size), workers, options["worker"]), batch, options["drop_last"]))
        if count < 2:
            continue
        whole, taken = dice.between(0, 3), dice.between(1, count - 1)
        steps = [["new", "all", size, batch, {"seed": seed, **options}], ["epochs", "all", whole + 3],
                 ["new", "a", size, batch, {"seed": seed, **options}], ["epochs", "a", whole], ["take", "a", taken],
                 ["restore", "b", "a", size, batch, options]]
        if again := dice.chance(0.4) and count - taken > 1:
            # Killed once more, in the same epoch.
            steps += [["take", "b", 1], ["restore", "c", "b", size, batch, options], ["epochs", "c", 2]]
        else:
            steps += [["epochs", "b", 2]]

        def is_right(said, whole=whole, taken=taken, again=again, count=len(steps)):
            given = values(said, count)
            every, before, begun = given[1], given[3], given[4]
            rest = [given[6] + given[8][0], *given[8][1:]] if again else given[6]
            return (
                every[:whole] == before
                and begun + rest[0] == every[whole]
                and rest[1] == every[whole + 1]
                and every[whole] != every[whole + 1]
            )

        yield steps, is_right


def old_states(dice):
    for _ in range(25):
        size, batch, seed = dice.between(20, 40), dice.between(1, 5), dice.between(0, 10**6)
        count = -(-size // batch)
        taken = dice.between(0, count - 1)
        steps = [["restore", "a", {"seed": seed, "taken": taken}, size, batch, {}], ["epochs", "a", 2],
                 ["new", "b", size, batch, {"seed": seed}], ["epochs", "b", 2]]

        def is_right(said, taken=taken, right=cut(first_order(size, seed), batch, False)):
            _, restored, _, fresh = values(said, 4)
            return restored[0] == right[taken:] and restored[1] == fresh[1] and fresh[0] == right

        yield steps, is_right


def nothing_broken(dice):
    for _ in range(25):
        # Whole batches and shares that divide evenly: as it was, to the position.
        workers, batch, seed = dice.between(1, 4), dice.between(1, 5), dice.between(0, 10**6)
        size, worker = workers * batch * dice.between(1, 6), dice.between(0, workers - 1)
        options = {"seed": seed, "workers": workers, "worker": worker, "drop_last": dice.chance(0.5)}
        right = cut(share_of(first_order(size, seed), workers, worker), batch, False)
        steps = [["new", "a", size, batch, options], ["len", "a"], ["epochs", "a", 1]]
        yield steps, lambda said, right=right: values(said, 3)[1:] == [len(right), [right]]
    for _ in range(15):
        size, batch, seed = dice.between(0, 30), dice.between(2, 9), dice.between(0, 10**6)
        right = cut(first_order(size, seed), batch, True)
        steps = [["new", "a", size, batch, {"seed": seed, "drop_last": True}], ["len", "a"], ["epochs", "a", 1]]
        yield steps, lambda said, right=right: values(said, 3)[1:] == [len(right), [right]]
    for size, batch, options in ((-1, 2, {}), (5, 0, {}), (5, 2, {"workers": 0}), (5, 2, {"workers": 2, "worker": 2}),
                                 (5, 2, {"worker": -1})):
        yield [["new", "a", size, batch, options]], lambda said: len(said) == 1 and "ValueError" in said[0]["error"]
    for _ in range(5):
        # A state holds the seed and how many batches are done, under the names it always had.
        seed = dice.between(0, 10**6)
        steps = [["new", "a", 12, 4, {"seed": seed}], ["state", "a"]]
        yield steps, lambda said, seed=seed: {"seed": seed, "taken": 0}.items() <= values(said, 2)[1].items()


GROUPS = {
    "last_batch": last_batch, "shares": shares, "epochs": epochs, "ensembles": ensembles, "resumed": resumed,
    "old_states": old_states, "nothing_broken": nothing_broken,
}


def draw(group, seed):
    """The cases of one group."""
    return list(GROUPS[group](Dice(f"{group} {seed}")))
