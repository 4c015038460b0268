"""Layers in a row."""

from tinynet.layers import Dropout, LayerNorm, Linear, Relu, Residual


class Network:
    def __init__(self, layers):
        self.layers = layers

    def forward(self, x, training=False):
        for layer in self.layers:
            x = layer.forward(x, training)
        return x

    def backward(self, gradient):
        for layer in reversed(self.layers):
            gradient = layer.backward(gradient)
        return gradient

    def predict(self, x):
        """The class of each row."""
        return self.forward(x).argmax(axis=1)

    def parameters(self):
        """The arrays that are trained, by names like `2.0.weight`: the place of the layer, then its own name."""
        return dict(self._collect("parameters"))

    def gradients(self):
        """As parameters(), of the latest backward()."""
        return dict(self._collect("gradients"))

    def state(self):
        """A snapshot of the parameters."""
        return self.parameters()

    def load(self, state):
        """Back to a snapshot."""
        for name, array in self.parameters().items():
            array[...] = state[name]

    def _collect(self, kind):
        for place, layer in enumerate(self.layers):
            yield from _named(layer, kind, str(place))


def _named(layer, kind, place):
    for name, array in getattr(layer, kind).items():
        yield f"{place}.{name}", array
    for inner, child in enumerate(getattr(layer, "layers", ())):
        yield from _named(child, kind, f"{place}.{inner}")


def build_network(inputs, classes, rng, width=32, dropout=0.1):
    """The network that train() trains."""
    return Network(
        [
            Linear(inputs, width, rng),
            LayerNorm(width),
            Residual([Relu(), Linear(width, width, rng), LayerNorm(width), Relu(), Dropout(dropout, rng)]),
            Residual([Relu(), Linear(width, width, rng), LayerNorm(width), Relu(), Dropout(dropout, rng)]),
            LayerNorm(width),
            Linear(width, classes, rng),
        ]
    )
