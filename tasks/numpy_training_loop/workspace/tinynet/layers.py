"""Layers. `parameters` and `gradients` of a layer have the same names; backward() follows the latest forward()."""

import numpy as np


class Layer:
    def __init__(self):
        self.parameters = {}
        self.gradients = {}


class Linear(Layer):
    """x @ weight + bias."""

    def __init__(self, inputs, outputs, rng):
        super().__init__()
        scale = np.sqrt(2.0 / inputs)
        self.parameters = {"weight": rng.normal(0.0, scale, (inputs, outputs)), "bias": np.zeros(outputs)}

    def forward(self, x, training=False):
        self.x = x
        return x @ self.parameters["weight"] + self.parameters["bias"]

    def backward(self, gradient):
        self.gradients = {"weight": self.x.T @ gradient, "bias": gradient.sum(axis=0)}
        return gradient @ self.parameters["weight"].T


class Relu(Layer):
    """max(x, 0)."""

    def forward(self, x, training=False):
        self.is_positive = x > 0
        return np.maximum(x, 0.0, out=x)

    def backward(self, gradient):
        return gradient * self.is_positive


class LayerNorm(Layer):
    """Each row to mean 0 and variance 1, then gain and shift."""

    def __init__(self, size, epsilon=1e-5):
        super().__init__()
        self.epsilon = epsilon
        self.parameters = {"gain": np.ones(size), "shift": np.zeros(size)}

    def forward(self, x, training=False):
        centred = x - x.mean(axis=1, keepdims=True)
        self.deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + self.epsilon)
        self.normal = centred / self.deviation
        return self.normal * self.parameters["gain"] + self.parameters["shift"]

    def backward(self, gradient):
        self.gradients = {"gain": (gradient * self.normal).sum(axis=0), "shift": gradient.sum(axis=0)}
        inner = gradient * self.parameters["gain"]
        centred = inner - inner.mean(axis=1, keepdims=True)
        along = self.normal * (inner * self.normal).mean()
        return (centred - along) / self.deviation


class Dropout(Layer):
    """While training, drops a share of the values and scales the others up."""

    def __init__(self, share, rng):
        super().__init__()
        self.share, self.rng = share, rng

    def forward(self, x, training=False):
        self.factor = 1.0
        if training and self.share > 0:
            self.factor = (self.rng.random(x.shape) >= self.share) / (1.0 - self.share)
        return x * self.factor

    def backward(self, gradient):
        return gradient * self.factor


class Residual(Layer):
    """x plus what the inner layers make of x."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, x, training=False):
        inner = x
        for layer in self.layers:
            inner = layer.forward(inner, training)
        return x + inner

    def backward(self, gradient):
        inner = gradient
        for layer in reversed(self.layers):
            inner = layer.backward(inner)
        return gradient + inner
