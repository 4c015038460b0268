"""What the parts of tinynet should answer, worked out the slow way: gradients are differences of the forward formula."""

import math

import numpy as np

STEP = 1e-6


def slope(function, at):
    """The gradient of a number-valued function by the array `at`."""
    found = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        ends = []
        for move in (STEP, -STEP):
            moved = at.copy()
            moved[place] += move
            ends.append(function(moved))
        found[place] = (ends[0] - ends[1]) / (2 * STEP)
    return found


def loss(logits, labels, weights, smoothing):
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        log_p = row - row.max() - math.log(sum(math.exp(v - row.max()) for v in row))
        goal = [smoothing / len(row) + (1 - smoothing) * (k == label) for k in range(len(row))]
        total -= weights[label] * sum(q * p for q, p in zip(goal, log_p, strict=True))
    return total / sum(weights[label] for label in labels)


def forward(layer, x, parameters=None):
    """The output of a layer outside training; `parameters` replace those of the layer."""
    parameters = parameters or layer.get("parameters")
    match layer["kind"]:
        case "Relu":
            return np.where(x > 0, x, 0.0)
        case "LayerNorm":
            normal = np.stack([(row - row.mean()) / math.sqrt(row.var() + 1e-5) for row in x])
            return normal * parameters["gain"] + parameters["shift"]
        case "Linear":
            return x @ np.asarray(parameters["weight"]) + parameters["bias"]
        case "Dropout":
            return x
        case "Residual":
            inner = x
            for child in layer["layers"]:
                inner = forward(child, inner)
            return x + inner


def gradients(layer, x, outer):
    """By the input, and by each parameter of the layer's own."""
    by_input = slope(lambda moved: float((forward(layer, moved) * outer).sum()), x)
    own = {name: np.array(value) for name, value in layer.get("parameters", {}).items()}
    by_name = {
        name: slope(lambda moved, name=name: float((forward(layer, x, {**own, name: moved}) * outer).sum()), value)
        for name, value in own.items()
    }
    return by_input, by_name


def optimize(parameters, steps, rates, decay):
    parameters = {name: np.array(value) for name, value in parameters.items()}
    for name, array in parameters.items():
        first = second = np.zeros_like(array)
        for number, (given, rate) in enumerate(zip(steps, rates, strict=True), 1):
            gradient = np.array(given[name])
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            if array.ndim == 2:
                array = array - rate * decay * array
            array = array - rate * (first / (1 - 0.9**number)) / (np.sqrt(second / (1 - 0.999**number)) + 1e-8)
        parameters[name] = array
    return parameters


def rate(step, steps, peak, warmup):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * math.cos(math.pi / 2 * (step - warmup) / (steps - warmup)) ** 2


def trained(parameters, x):
    """The classes that the network of build_network() gives with these parameters."""
    own = {name: np.array(value, dtype=float) for name, value in parameters.items()}

    def part(place, x):
        names = [name.rpartition(".") for name in own]
        found = {last: own[f"{head}.{last}"] for head, _, last in names if head == place}
        return forward({"kind": "LayerNorm" if "gain" in found else "Linear", "parameters": found}, x)

    x = part("1", part("0", x))
    for place in ("2", "3"):
        inner = part(f"{place}.2", part(f"{place}.1", np.maximum(x, 0)))
        x = x + np.maximum(inner, 0)
    return part("5", part("4", x)).argmax(axis=1)
