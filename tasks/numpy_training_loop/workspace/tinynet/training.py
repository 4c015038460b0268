"""The training loop."""

import math

import numpy as np

from tinynet.data import batches, split
from tinynet.losses import cross_entropy
from tinynet.network import build_network
from tinynet.optim import AdamW, clip_gradients, learning_rate_at


def accuracy(network, x, y):
    """The mean over the classes of the share of their rows that are predicted right."""
    predicted = network.predict(x)
    return float(np.mean([(predicted[y == label] == label).mean() for label in np.unique(y)]))


def train(x, y, classes, seed, epochs=25, size=50, peak=0.01):
    """(the network as it was after its best epoch, a list with `loss` and validation `accuracy` of every epoch)."""
    rng = np.random.default_rng(seed)
    x_train, y_train, x_held, y_held = split(x, y, 0.2, rng)
    counts = np.bincount(y_train, minlength=classes)
    class_weights = len(y_train) / (classes * np.maximum(counts, 1))
    network = build_network(x.shape[1], classes, rng)
    optimizer = AdamW(network.parameters())
    steps_per_epoch = math.ceil(len(x_train) / size)
    steps = epochs * steps_per_epoch
    step, best, best_accuracy, history = 0, network.state(), -1.0, []
    for epoch in range(epochs):
        losses = []
        for x_batch, y_batch in batches(x_train, y_train, size, rng):
            loss, gradient = cross_entropy(network.forward(x_batch, training=True), y_batch, class_weights, 0.05)
            network.backward(gradient)
            gradients = network.gradients()
            clip_gradients(gradients, 1.0)
            optimizer.step(gradients, learning_rate_at(step, steps, peak, warmup=steps_per_epoch))
            losses.append(loss)
            step += 1
        reached = accuracy(network, x_held, y_held)
        history.append({"epoch": epoch, "loss": float(np.mean(losses)), "accuracy": reached})
        if reached > best_accuracy:
            best, best_accuracy = network.state(), reached
    network.load(best)
    return network, history
