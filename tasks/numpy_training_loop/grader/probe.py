"""The program the workspace's package runs in: it answers questions and knows no answers.

Started by judge.py as `python -I -B -c <this text> ANSWER_BYTES` with a JSON document on standard input: the package's
sources and the questions. It gives up the right to open files, imports the package from memory and writes one JSON
document to standard output. Whatever the package does to this process, or to NumPy, changes only its own answers.
"""

import contextlib
import importlib
import importlib.abc
import importlib.util
import json
import os
import resource
import sys

import numpy as np

# Imported before the files are gone.
PRELOADED = (
    "abc argparse bisect collections collections.abc contextlib copy csv dataclasses enum functools heapq itertools math "
    "numbers operator pathlib random re statistics time typing warnings numpy.random numpy.linalg numpy.ma numpy.fft "
    "numpy.polynomial numpy.lib.stride_tricks numpy.typing"
).split()


class MemoryFinder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds modules in a table of relative paths and texts; comes after the standard library."""

    def __init__(self, sources):
        self.sources = sources

    def find_spec(self, fullname, path=None, target=None):
        place = self._place(fullname)
        if place is None:
            return None
        is_package = place.endswith("__init__.py")
        return importlib.util.spec_from_loader(fullname, self, origin=place, is_package=is_package)

    def get_source(self, fullname):
        return self.sources[self._place(fullname)]

    def get_code(self, fullname):
        return compile(self.get_source(fullname), self._place(fullname), "exec", dont_inherit=True)

    def is_package(self, fullname):
        return self._place(fullname).endswith("__init__.py")

    def _place(self, fullname):
        stem = fullname.replace(".", "/")
        return next((place for place in (f"{stem}/__init__.py", f"{stem}.py") if place in self.sources), None)


def plain(value):
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def arrays(table):
    return {name: np.array(value) for name, value in table.items()}


def make_layer(net, facts):
    rng = np.random.default_rng(0)
    match facts["kind"]:
        case "Relu":
            layer = net.Relu()
        case "LayerNorm":
            layer = net.LayerNorm(facts["size"])
        case "Linear":
            layer = net.Linear(facts["size"], facts["size"], rng)
        case "Dropout":
            layer = net.Dropout(facts["share"], rng)
        case "Residual":
            layer = net.Residual([make_layer(net, inner) for inner in facts["layers"]])
    for name, value in facts.get("parameters", {}).items():
        layer.parameters[name][...] = value
    return layer


def ask_layer(net, question):
    layer = make_layer(net, question["layer"])
    x = np.array(question["x"])
    output = np.array(layer.forward(x, question["training"]))
    kept = x.copy()
    gradient = layer.backward(np.array(question["gradient"]))
    return {"output": output, "input": kept, "gradient": gradient, "gradients": layer.gradients}


def ask_optimizer(net, question):
    parameters = arrays(question["parameters"])
    optimizer = net.AdamW(parameters, decay=question["decay"])
    for gradients, rate in zip(question["gradients"], question["rates"], strict=True):
        optimizer.step(arrays(gradients), rate)
    return parameters


def ask_clip(net, question):
    gradients = arrays(question["gradients"])
    return {"length": net.clip_gradients(gradients, question["limit"]), "gradients": gradients}


def ask_batches(net, question):
    x, y = np.array(question["x"]), np.array(question["y"])
    rng = np.random.default_rng(question["seed"])
    return [[a.copy(), b.copy()] for a, b in net.batches(x, y, question["size"], rng)]


def ask_snapshot(net, question):
    network = net.build_network(question["inputs"], question["classes"], np.random.default_rng(question["seed"]))
    before = plain(network.parameters())
    state = network.state()
    for array in network.parameters().values():
        array += question["move"]
    moved, kept = plain(network.parameters()), plain(state)
    network.load(state)
    loaded = plain(network.parameters())
    for array in network.parameters().values():
        array -= question["move"]
    return {"before": before, "moved": moved, "kept": kept, "loaded": loaded, "kept_again": plain(state)}


def ask_train(net, question):
    x, y = np.array(question["x"]), np.array(question["y"])
    network, _ = net.train(x, y, classes=question["classes"], seed=question["seed"])
    return network.parameters()


def answer(question):
    net = importlib.import_module("tinynet")
    match question["ask"]:
        case "loss":
            return net.cross_entropy(
                np.array(question["logits"]), np.array(question["labels"]), np.array(question["weights"]),
                question["smoothing"],
            )
        case "rate":
            return net.learning_rate_at(**question["arguments"])
        case "layer":
            return ask_layer(net, question)
        case "optimizer":
            return ask_optimizer(net, question)
        case "clip":
            return ask_clip(net, question)
        case "batches":
            return ask_batches(net, question)
        case "snapshot":
            return ask_snapshot(net, question)
        case "train":
            return ask_train(net, question)


def main():
    task = json.load(sys.stdin)
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    np.random.default_rng(0).permutation(3)
    sys.meta_path.append(MemoryFinder(task["sources"]))
    # With no descriptor left to give, nothing can be opened any more: not the grader's files, not by a child either.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    answers = []
    for question in task["questions"]:
        try:
            answers.append({"value": plain(answer(question))})
        except Exception as error:
            answers.append({"error": f"{type(error).__name__}: {error}"[:300]})
    data = json.dumps(answers).encode()
    while data:
        data = data[os.write(1, data) :]


main()
