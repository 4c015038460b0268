"""Judge the package `tinynet` in the workspace (the current folder); one JSON object is printed.

    python -I -B "$FBENCH_GRADER/judge.py" GROUP [SEED]    # one of GROUPS: `right` is 1 when every answer was
    python -I -B "$FBENCH_GRADER/judge.py" any [SEED]      # `right` is the share of the groups that are right
    python -I -B "$FBENCH_GRADER/judge.py" accuracy [SEED] # trains on rows nobody has seen

Questions are drawn anew for each check. This process runs no code of the workspace: see probe.py. Of a trained network
it takes the parameters and works out the answers for held-out rows, which the trained process never had, by itself.
"""

import ctypes
import json
import os
import resource
import secrets
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402 - the grader's folder is not in the path of an isolated interpreter
import reference as ref  # noqa: E402

PROBE_TIMEOUT_S = 100.0  # a training takes 2 s of CPU; a busy machine may take long over it
MAX_SOURCE_BYTES = 1_000_000
MAX_SOURCES = 100
MAX_ANSWER_BYTES = 8_000_000
TRAIN_ROWS, HELD_ROWS = 1500, 2500
PR_SET_DUMPABLE = 4


class Unusable(Exception):
    """The package cannot be asked, or did not answer."""


def hide_memory():
    """From here on /proc/PID of this process belongs to root: neither its memory nor its descriptors can be opened."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def read_sources():
    """Texts of the package's modules by relative path; links are not followed."""
    sources, size = {}, 0
    for folder, folders, files in os.walk("tinynet", followlinks=False):
        folders[:] = sorted(name for name in folders if name.isidentifier() and name != "__pycache__")
        for name in sorted(files):
            path = Path(folder, name)
            if path.suffix != ".py" or not stat.S_ISREG(path.lstat().st_mode):
                continue
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
                data = stream.read(MAX_SOURCE_BYTES - size + 1)
            size += len(data)
            if size > MAX_SOURCE_BYTES or len(sources) >= MAX_SOURCES:
                raise Unusable(f"the package has more than {MAX_SOURCE_BYTES} bytes or {MAX_SOURCES} modules")
            sources[path.as_posix()] = data.decode("utf-8", "surrogateescape")
    if Path("tinynet").is_symlink() or "tinynet/__init__.py" not in sources:
        raise Unusable("tinynet/__init__.py is missing from the workspace, or is a link")
    return sources


def limit_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_ANSWER_BYTES, MAX_ANSWER_BYTES))


def ask(sources, questions):
    """What the package answers, one JSON value each."""
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as answered, tempfile.TemporaryFile() as log:
        asked.write(json.dumps({"sources": sources, "questions": questions}).encode())
        asked.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", (HERE / "probe.py").read_text(encoding="utf-8")],
            stdin=asked, stdout=answered, stderr=log, cwd="/", start_new_session=True, preexec_fn=limit_files,
            env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
        )
        try:
            process.wait(PROBE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Unusable(f"the package did not answer within {PROBE_TIMEOUT_S:g} s") from None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            process.wait()
        answered.seek(0)
        log.seek(0)
        data, said = answered.read(MAX_ANSWER_BYTES + 1), log.read(2000).decode(errors="replace").strip()
    try:
        answers = json.loads(data)
    except (ValueError, RecursionError):
        answers = None
    if not isinstance(answers, list) or len(answers) != len(questions):
        raise Unusable(f"the package ended without answering. It said: {said or 'nothing'}")
    return answers


def is_near(given, right):
    """Same structure, same shapes, and every number within 1e-5 of the right one, in absolute or relative terms."""
    if isinstance(right, dict):
        return isinstance(given, dict) and given.keys() == right.keys() and all(
            is_near(given[name], value) for name, value in right.items()
        )
    if isinstance(right, tuple):
        return isinstance(given, list) and len(given) == len(right) and all(map(is_near, given, right))
    try:
        numbers = np.array(given, dtype=float)
    except (TypeError, ValueError, OverflowError):
        return False
    right = np.asarray(right, dtype=float)
    return numbers.shape == right.shape and bool(np.allclose(numbers, right, rtol=1e-5, atol=1e-6))


def layer_pairs(rng, layers):
    for layer in layers:
        rows, size = int(rng.integers(2, 6)), layer.get("size", 4)
        x, outer = rng.normal(0.3, 1.5, (rows, size)), rng.normal(0.0, 1.0, (rows, size))
        x[np.abs(x) < 0.01] = 0.5  # a difference across the corner of Relu is no gradient
        by_input, by_name = ref.gradients(layer, x, outer)
        right = {"output": ref.forward(layer, x), "input": x, "gradient": by_input, "gradients": by_name}
        yield {"ask": "layer", "layer": layer, "x": x, "gradient": outer, "training": layer["kind"] != "Dropout"}, right


def linear(rng, size):
    parameters = {"weight": rng.normal(0.0, 1.0, (size, size)), "bias": rng.normal(0.0, 1.0, size)}
    return {"kind": "Linear", "size": size, "parameters": parameters}


def loss_pairs(rng):
    for _ in range(6):
        rows, classes = int(rng.integers(3, 8)), int(rng.integers(3, 6))
        labels = rng.integers(0, classes, rows)
        labels[:2] = 0, 1
        logits, weights = rng.normal(0.0, 3.0, (rows, classes)), rng.uniform(0.2, 5.0, classes)
        smoothing = float(rng.choice([0.0, 0.05, 0.2]))
        right = ref.loss(logits, labels, weights, smoothing)
        gradient = ref.slope(lambda moved: ref.loss(moved, labels, weights, smoothing), logits)
        asked = {"ask": "loss", "logits": logits, "labels": labels, "weights": weights, "smoothing": smoothing}
        yield asked, (right, gradient)


def layer_norm_pairs(rng):
    for size in (3, 5, 8):
        parameters = {"gain": rng.normal(1.0, 0.5, size), "shift": rng.normal(0.0, 1.0, size)}
        yield from layer_pairs(rng, [{"kind": "LayerNorm", "size": size, "parameters": parameters}])


def relu_pairs(rng):
    size = int(rng.integers(3, 6))
    relu, dropout = {"kind": "Relu", "size": size}, {"kind": "Dropout", "share": 0.3, "size": size}
    block = {"kind": "Residual", "layers": [relu, linear(rng, size), relu], "size": size}
    yield from layer_pairs(rng, [relu, linear(rng, size), dropout, block])
    # What is shared by the branches of nested blocks is not to be changed either.
    for question, right in layer_pairs(rng, [{"kind": "Residual", "layers": [block, relu], "size": size}]):
        yield question, right


def optimizer_pairs(rng):
    shapes = {"a": (3, 2), "b": (4,), "c": (2, 5), "d": (1,)}
    for decay in (0.0, 0.01, float(rng.uniform(0.05, 0.5))):
        parameters = {name: rng.normal(0.0, 1.0, shape) for name, shape in shapes.items()}
        steps = [{name: rng.normal(0.0, 1.0, shape) for name, shape in shapes.items()} for _ in range(5)]
        rates = [float(rng.uniform(0.001, 0.1)) for _ in steps]
        asked = {"ask": "optimizer", "parameters": parameters, "gradients": steps, "rates": rates, "decay": decay}
        yield asked, ref.optimize(parameters, steps, rates, decay)
    for limit in (0.5, 1000.0):
        length = float(np.sqrt(sum((array**2).sum() for array in steps[0].values())))
        scaled = {name: array * min(1.0, limit / length) for name, array in steps[0].items()}
        yield {"ask": "clip", "gradients": steps[0], "limit": limit}, {"length": length, "gradients": scaled}
    for step in (0, 3, 9, 10, 25, 60):
        arguments = {"step": step, "steps": 61, "peak": float(rng.uniform(0.001, 1.0)), "warmup": 10}
        yield {"ask": "rate", "arguments": arguments}, ref.rate(**arguments)


class Batched:
    """Right are all rows once, each with its label, in full batches but for the last, in an order that is not theirs."""

    def __init__(self, x, y, size):
        self.x, self.y, self.size = x, y, size

    def holds(self, given):
        sizes = [min(self.size, len(self.x) - start) for start in range(0, len(self.x), self.size)]
        try:
            rows = [(*row, label) for xs, ys in given for row, label in zip(xs, ys, strict=True)]
            if [len(ys) for _, ys in given] != sizes:
                return False
            wanted = [(*row, label) for row, label in zip(self.x.tolist(), self.y.tolist(), strict=True)]
            return sorted(rows) == sorted(wanted) and (len(rows) < 12 or rows != wanted)
        except (TypeError, ValueError):
            return False


def batches_pairs(rng):
    for count, size in ((12, 4), (23, 5), (7, 20), (16, 16), (int(rng.integers(20, 60)), int(rng.integers(2, 19)))):
        x, y = np.round(rng.normal(0.0, 1.0, (count, 3)), 6), rng.integers(0, 4, count)
        asked = {"ask": "batches", "x": x, "y": y, "size": size, "seed": int(rng.integers(1, 10**6))}
        yield asked, Batched(x, y, size)


class Kept:
    """Right is a state that is what the parameters were, stays that, and brings them back."""

    def __init__(self, move):
        self.move = move

    def holds(self, given):
        try:
            before = {name: np.array(value, dtype=float) for name, value in given["before"].items()}
        except (TypeError, ValueError, KeyError, AttributeError):
            return False
        moved = {name: array + self.move for name, array in before.items()}
        wanted = {"before": before, "moved": moved, "kept": before, "loaded": before, "kept_again": before}
        return len(before) == 16 and is_near(given, wanted)


def snapshot_pairs(rng):
    for _ in range(2):
        move = float(rng.uniform(0.5, 2.0))
        asked = {"ask": "snapshot", "inputs": int(rng.integers(2, 9)), "classes": int(rng.integers(2, 6)), "move": move}
        yield {**asked, "seed": int(rng.integers(1, 10**6))}, Kept(move)


GROUPS = {
    "loss": loss_pairs,
    "layer_norm": layer_norm_pairs,
    "relu": relu_pairs,
    "optimizer": optimizer_pairs,
    "batches": batches_pairs,
    "snapshot": snapshot_pairs,
}


def listed(value):
    """The value with arrays as lists, for JSON."""
    if isinstance(value, dict):
        return {name: listed(item) for name, item in value.items()}
    if isinstance(value, list):
        return [listed(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def ask_groups(sources, asked):
    """The answers by group; Unusable for a group that ended its process, which does not cost the others."""
    try:
        answers = iter(ask(sources, [listed(question) for pairs in asked.values() for question, _ in pairs]))
        return {name: [next(answers) for _ in pairs] for name, pairs in asked.items()}
    except Unusable as problem:
        if len(asked) == 1:
            return dict.fromkeys(asked, problem)
        return {name: ask_groups(sources, {name: pairs})[name] for name, pairs in asked.items()}


def judge_groups(sources, names, seed):
    """The share of the groups that are right, and what was wrong in the others."""
    wrong, asked = {}, {}
    for name in names:
        rng = np.random.default_rng(int.from_bytes(f"{seed} {name}".encode(), "big"))
        asked[name] = list(GROUPS[name](rng))
    for name, answers in ask_groups(sources, asked).items():
        if isinstance(answers, Unusable):
            wrong[name] = [str(answers)]
            continue
        pairs = asked[name]
        for (question, right), given in zip(pairs, answers, strict=True):
            value = given.get("value") if isinstance(given, dict) else None
            if not (right.holds(value) if hasattr(right, "holds") else is_near(value, right)):
                said = given.get("error") if isinstance(given, dict) else None
                wrong.setdefault(name, []).append(said or f"a wrong answer to a question of kind {question['ask']}")
    return {"right": 1.0 - len(wrong) / len(names), "wrong": {name: said[:3] for name, said in wrong.items()}}


def balanced(predicted, labels):
    return float(np.mean([(predicted[labels == label] == label).mean() for label in np.unique(labels)]))


def judge_accuracy(sources, seed):
    """How far from guessing (0) to the best rule there is (1), which knows the centres the rows were drawn around."""
    clouds, rows = generate.generate(seed, TRAIN_ROWS + HELD_ROWS)
    x, y = np.array([features for features, _ in rows]), np.array([label for _, label in rows])
    asked = {"ask": "train", "x": x[:TRAIN_ROWS].tolist(), "y": y[:TRAIN_ROWS].tolist(), "classes": generate.CLASSES}
    (given,) = ask(sources, [{**asked, "seed": 7}])
    x, y = x[TRAIN_ROWS:], y[TRAIN_ROWS:]
    try:
        reached = balanced(ref.trained(given["value"], x), y)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unusable(f"train() gave no network like that of build_network(): {given.get('error', error)}") from None
    distances = ((x[:, None, None, :] - np.array(clouds)) ** 2).sum(axis=-1) / (2 * generate.SPREAD**2)
    best = balanced(np.exp(-distances).sum(axis=-1).argmax(axis=1), y)
    guess = 1.0 / generate.CLASSES
    return {"share_of_best": (reached - guess) / (best - guess), "accuracy": reached, "best": best}


def main(argv):
    hide_memory()
    what, seed = argv[0], argv[1] if len(argv) > 1 else secrets.token_hex(16)
    try:
        sources = read_sources()
        if what == "accuracy":
            found = judge_accuracy(sources, seed)
        else:
            found = judge_groups(sources, list(GROUPS) if what == "any" else [what], seed)
    except (Unusable, OSError) as problem:
        found = {"right": 0.0, "share_of_best": 0.0, "problem": str(problem)}
    print(json.dumps({"seed": seed, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
