"""Batches of positions of a data set, in a random order, for one worker of several."""

import random


class Feed:
    """Iterating gives the batches of one epoch, lists of positions; the next iteration is the next epoch.

    Every worker makes its own Feed with the same size and seed. `state` can be stored as JSON, and `restore` goes on from it.
    """

    def __init__(self, size, batch_size, *, workers=1, worker=0, seed=0, drop_last=False):
        if size < 0 or batch_size < 1 or workers < 1:
            raise ValueError("size, batch_size and workers must not be negative or zero")
        if not 0 <= worker < workers:
            raise ValueError(f"there is no worker {worker} of {workers}")
        self.size = size
        self.batch_size = batch_size
        self.workers = workers
        self.worker = worker
        self.seed = seed
        self.drop_last = drop_last
        self.epoch = 0
        self.taken = 0

    def order(self):
        """All positions, in the order of this epoch; the same for every worker."""
        positions = list(range(self.size))
        random.Random(self.seed).shuffle(positions)
        return positions

    def share(self):
        """The positions of this worker: the workers' shares follow each other."""
        length = self.size // self.workers
        start = self.worker * length
        return self.order()[start : start + length]

    def batches(self):
        """All batches of this epoch. With drop_last each has batch_size positions."""
        share = self.share()
        whole = len(share) // self.batch_size
        return [share[at * self.batch_size : (at + 1) * self.batch_size] for at in range(whole)]

    def __len__(self):
        return len(self.batches())

    def __iter__(self):
        for batch in self.batches()[self.taken :]:
            yield batch
            self.taken += 1
        self.epoch += 1
        self.taken = 0

    def state(self):
        """What `restore` needs, as JSON types."""
        return {"seed": self.seed, "taken": self.taken}

    @classmethod
    def restore(cls, state, size, batch_size, *, workers=1, worker=0, drop_last=False):
        """A Feed that goes on after the last batch that was handed out before `state` was called."""
        feed = cls(size, batch_size, workers=workers, worker=worker, seed=state["seed"], drop_last=drop_last)
        feed.taken = state["taken"]
        return feed
