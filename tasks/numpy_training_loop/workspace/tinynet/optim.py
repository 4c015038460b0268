"""What turns gradients into steps."""

import math

import numpy as np


class AdamW:
    """Adam with bias correction and decoupled weight decay. Arrays are changed in place."""

    def __init__(self, parameters, beta1=0.9, beta2=0.999, epsilon=1e-8, decay=0.01):
        self.parameters = parameters
        self.beta1, self.beta2, self.epsilon, self.decay = beta1, beta2, epsilon, decay
        self.steps = 0
        self.first = {name: np.zeros_like(array) for name, array in parameters.items()}
        self.second = {name: np.zeros_like(array) for name, array in parameters.items()}

    def step(self, gradients, learning_rate):
        self.steps += 1
        for name, array in self.parameters.items():
            gradient = gradients[name]
            self.first[name] += (1.0 - self.beta1) * (gradient - self.first[name])
            self.second[name] += (1.0 - self.beta2) * (gradient**2 - self.second[name])
            first = self.first[name] / (1.0 - self.beta1**self.steps)
            second = self.second[name] / (1.0 - self.beta2**self.steps)
            if array.ndim > 1:
                array *= 1.0 - self.decay
            array -= learning_rate * first / (np.sqrt(second) + self.epsilon)


def clip_gradients(gradients, limit):
    """Scales all arrays in place so that together they are no longer than `limit`; returns the length before."""
    length = math.sqrt(sum(float((array**2).sum()) for array in gradients.values()))
    if length > limit:
        for array in gradients.values():
            array *= limit / length
    return length


def learning_rate_at(step, steps, peak, warmup):
    """Linear warm-up over the first `warmup` steps, then half a cosine down to 0 at `steps`; steps count from 0."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
