"""A small neural network library: NumPy and nothing else. README.md says what every part does."""

from tinynet.data import batches, read_rows, split
from tinynet.layers import Dropout, LayerNorm, Linear, Relu, Residual
from tinynet.losses import cross_entropy
from tinynet.network import Network, build_network
from tinynet.optim import AdamW, clip_gradients, learning_rate_at
from tinynet.training import accuracy, train

__all__ = [
    "AdamW",
    "Dropout",
    "LayerNorm",
    "Linear",
    "Network",
    "Relu",
    "Residual",
    "accuracy",
    "batches",
    "build_network",
    "clip_gradients",
    "cross_entropy",
    "learning_rate_at",
    "read_rows",
    "split",
    "train",
]
