"""The loss."""

import numpy as np


def cross_entropy(logits, labels, class_weights=None, smoothing=0.0):
    """(loss, its gradient by the logits). See README.md for the formula."""
    count, classes = logits.shape
    weights = np.ones(classes) if class_weights is None else np.asarray(class_weights, dtype=float)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    targets = np.full((count, classes), smoothing / classes)
    targets[np.arange(count), labels] += 1.0 - smoothing
    total = weights[labels].sum()
    losses = -(targets * log_probabilities).sum(axis=1)
    gradient = weights * (np.exp(log_probabilities) - targets) / total
    return (weights[labels] * losses).sum() / total, gradient
