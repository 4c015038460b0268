"""Computes a metric from predictions and labels inside a grading sandbox; see `fbench.judging.predictions`.

It runs as `python3 -I -c <this text>`. It imports the standard library, numpy and scikit-learn as the sandbox has them,
and nothing of the workspace, of which it reads one file. It reads one JSON object, a job, from standard input, and
prints one JSON object with one of the keys

- `value`, beside it `rows` and the versions of what computed it;
- `failed`: what is wrong with the predictions, which are the agent's;
- `error`: why no metric can be computed whatever the predictions are.
"""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import re
import stat
import sys
import warnings
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MAX_LINE_CHARS = 1024**2
MAX_CELL_CHARS = 1000
SUM_SLACK = 0.01
"""By how much the probabilities of a row may miss 1 together: rounding, which dividing by the sum takes out."""
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
SHOWN_CHARS = 60


class Failed(Exception):
    """The predictions are not what the task asks for."""


class Unmeasured(Exception):
    """The labels, the task or the sandbox let no metric be computed."""


class Source:
    """A CSV file, read row by row with its bounds on memory; `wrong` is what its faults are raised as."""

    def __init__(self, root: str, path: str, name: str, wrong: type[Exception]) -> None:
        self.name = name
        self.wrong = wrong
        self._rows = self._read(root, path)
        self.header = [cell.strip() for cell in next(self._rows, [])]
        if not self.header:
            self.refuse("has no header")

    def refuse(self, why: str) -> NoReturn:
        msg = f"{self.name} {why}"
        raise self.wrong(msg)

    def column(self, name: str) -> int:
        """Where the column stands."""
        if self.header.count(name) != 1:
            how = "twice the column" if name in self.header else "no column"
            self.refuse(f"has {how} {shown(name)}; its header is {', '.join(map(shown, self.header[:10]))}")
        return self.header.index(name)

    def rows(self) -> Iterator[list[str]]:
        """The rows below the header, blank lines left out, each as long as the header."""
        for number, row in enumerate(self._rows, start=1):
            if len(row) != len(self.header):
                self.refuse(f"has {len(row)} cells in row {number}, and {len(self.header)} in its header")
            yield row

    def _read(self, root: str, path: str) -> Iterator[list[str]]:
        place = os.path.realpath(os.path.join(root, path))  # noqa: PTH118 - keeps what a path of ours may hold as text
        if not place.startswith(os.path.realpath(root) + os.sep):
            self.refuse("is no regular file of its folder")
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                self.refuse("is no regular file")
            with os.fdopen(descriptor, encoding="utf-8-sig", newline="") as file:
                yield from filter(None, csv.reader(self._lines(file)))
        except UnicodeDecodeError as error:
            self.refuse(f"is not UTF-8: {error.reason}")
        except csv.Error as error:
            self.refuse(f"is no CSV: {error}")
        except OSError as error:
            msg = f"{self.name} cannot be read: {error.strerror}"
            raise Unmeasured(msg) from None

    def _lines(self, file: Any) -> Iterator[str]:  # noqa: ANN401 - a text file
        while line := file.readline(MAX_LINE_CHARS):
            if len(line) == MAX_LINE_CHARS:
                self.refuse(f"has a line of {MAX_LINE_CHARS} characters or more")
            yield line


class Data:
    """Labels, groups and predictions in the order of the labels; of predictions the cells of the columns asked for."""

    def __init__(self, job: dict[str, Any], labels: Source, predictions: Source) -> None:
        self.job = job
        known = [job[key] for key in ("id_column", "group_column") if job[key] is not None]
        name = job["label_column"] or only_other(labels, known)
        at, places = labels.column(name), [labels.column(column) for column in known]
        rows = list(labels.rows())
        if not rows:
            labels.refuse("has no rows")
        self.labels = [row[at].strip() for row in rows]
        if "" in self.labels:
            labels.refuse(f"has no label in row {self.labels.index('') + 1}")
        self.groups = [row[places[-1]] for row in rows] if job["group_column"] is not None else [""] * len(rows)
        self.ids = [row[places[0]].strip() for row in rows] if job["id_column"] is not None else None
        wanted = list(job["class_columns"].values()) if job["class_columns"] else [job["prediction_column"] or name]
        columns = [predictions.column(column) for column in wanted]
        self.cells = self._by_id(labels, predictions, columns) if self.ids else self._by_order(predictions, columns)

    def _by_order(self, predictions: Source, columns: Sequence[int]) -> list[list[str]]:
        cells: list[list[str]] = []
        for row in predictions.rows():
            if len(cells) == len(self.labels):
                predictions.refuse(f"has more rows than the labels, which have {len(self.labels)}")
            cells.append(self._kept(predictions, row, columns))
        if len(cells) != len(self.labels):
            predictions.refuse(f"has {len(cells)} rows, the labels have {len(self.labels)}")
        return cells

    def _by_id(self, labels: Source, predictions: Source, columns: Sequence[int]) -> list[list[str]]:
        assert self.ids is not None
        order = {key: position for position, key in enumerate(self.ids)}
        if len(order) != len(self.ids):
            twice = next(key for position, key in enumerate(self.ids) if order[key] != position)
            labels.refuse(f"has the id {shown(twice)} twice")
        at = predictions.column(self.job["id_column"])
        found: list[list[str] | None] = [None] * len(order)
        for number, row in enumerate(predictions.rows(), start=1):
            key = row[at].strip()
            if key not in order:
                predictions.refuse(f"has in row {number} the id {shown(key)}, which is none of the labels'")
            if found[order[key]] is not None:
                predictions.refuse(f"has the id {shown(key)} twice, again in row {number}")
            found[order[key]] = self._kept(predictions, row, columns)
        missing = [key for key in self.ids if found[order[key]] is None]
        if missing:
            few = ", ".join(map(shown, missing[:5]))
            predictions.refuse(f"lacks {len(missing)} of the {len(order)} ids: {few}{' ...' * (len(missing) > 5)}")  # noqa: PLR2004 - some of them
        return [cells for cells in found if cells is not None]

    @staticmethod
    def _kept(predictions: Source, row: list[str], columns: Sequence[int]) -> list[str]:
        cells = [row[column].strip() for column in columns]
        if max(map(len, cells)) > MAX_CELL_CHARS:
            predictions.refuse(f"has a prediction of more than {MAX_CELL_CHARS} characters")
        return cells

    # ------------------------------------------------------------------------------------- what the cells stand for

    def label_numbers(self) -> list[float]:
        for number, text in enumerate(self.labels, start=1):
            if as_number(text) is None:
                msg = f"the labels file has {shown(text)} in row {number}, which is no finite number"
                raise Unmeasured(msg)
        return [float(text) for text in self.labels]

    def predicted_numbers(self, *, are_probabilities: bool = False) -> list[list[float]]:
        table = []
        for position, cells in enumerate(self.cells):
            row = []
            for text in cells:
                value = as_number(text)
                if value is None:
                    self._refuse(position, text, "no finite number")
                if are_probabilities and not 0 <= value <= 1:
                    self._refuse(position, text, "no probability")
                row.append(value)
            table.append(row)
        return table

    def classes(self) -> tuple[list[int], list[int]]:
        """Labels and predicted classes as positions in the list of classes; what no label is comes at its end."""
        as_class = class_reader(self.labels)
        places: dict[Any, int] = {}
        labels = [places.setdefault(as_class(text), len(places)) for text in self.labels]
        predicted = []
        for position, (text,) in enumerate(self.cells):
            if not text:
                self._refuse(position, text, "no class")
            predicted.append(places.setdefault(as_class(text), len(places)))
        return labels, predicted

    def is_positive(self, values: Sequence[str]) -> list[bool]:
        """Which values are the positive class: the one named, or 1 of labels that are of two classes."""
        as_class = class_reader(self.labels)
        known = set(map(as_class, self.labels))
        named = self.job["positive_label"]
        positive = as_class("1" if named is None else named)
        if named is None and (len(known) > 2 or positive not in known):  # noqa: PLR2004 - binary
            msg = f"the positive class is not known: name it as `positive_label`; the classes are {few_of(known)}"
            raise Unmeasured(msg)
        if positive not in known:
            msg = f"no label is {shown(str(named))}, the `positive_label`; the classes are {few_of(known)}"
            raise Unmeasured(msg)
        return [as_class(value) == positive for value in values]

    def probabilities(self) -> tuple[list[int], list[list[float]]]:
        """The labels as positions in `class_columns`, and a row of probabilities for each, which sum to 1."""
        as_class = class_reader(self.labels)
        places = {as_class(name): position for position, name in enumerate(self.job["class_columns"])}
        known = set(map(as_class, self.labels))
        if len(places) != len(self.job["class_columns"]) or not known <= set(places):
            msg = f"`class_columns` must name each class of the labels once; the classes are {few_of(known)}"
            raise Unmeasured(msg)
        table = self.predicted_numbers(are_probabilities=True)
        for position, row in enumerate(table):
            total = math.fsum(row)
            if abs(total - 1) > SUM_SLACK:
                self._refuse(position, f"{total:.6g}", "not 1, as the sum of its probabilities")
            table[position] = [value / total for value in row]
        return [places[as_class(text)] for text in self.labels], table

    def _refuse(self, position: int, text: str, what: str) -> NoReturn:
        where = f"the id {shown(self.ids[position])}" if self.ids else f"row {position + 1}"
        msg = f"the predictions file has {shown(text)} for {where}, which is {what}"
        raise Failed(msg)


def class_reader(labels: Sequence[str]) -> Callable[[str], Any]:
    """What a cell's class is: its text, or, where every label is a number, its value (`1.0` is the class `1`)."""
    if all(NUMBER.fullmatch(text) for text in labels):
        return lambda text: Decimal(text) if NUMBER.fullmatch(text) else text
    return lambda text: text


def as_number(text: str) -> float | None:
    value = float(text) if NUMBER.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None


def only_other(labels: Source, known: Sequence[str]) -> str:
    rest = [column for column in labels.header if column not in known]
    if len(rest) != 1:
        labels.refuse(f"has not one column of labels but {len(rest)}: name it as `label_column`")
    return rest[0]


def shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "...")


def few_of(classes: set[Any]) -> str:
    names = sorted(map(str, classes))
    return ", ".join(map(shown, names[:10])) + " ..." * (len(names) > 10)  # noqa: PLR2004 - fits a line


# --------------------------------------------------------------------------------------------------------- the metrics


def measure_accuracy(metrics: Any, data: Data) -> float:  # noqa: ANN401 - sklearn.metrics, which has no types
    return float(metrics.accuracy_score(*data.classes()))


def measure_f1(metrics: Any, data: Data) -> float:  # noqa: ANN401 - as above
    labels, predicted = data.classes()
    if data.job["average"] is not None:
        return float(metrics.f1_score(labels, predicted, average=data.job["average"], zero_division=0))
    truth, guess = data.is_positive(data.labels), data.is_positive([text for (text,) in data.cells])
    return float(metrics.f1_score(truth, guess, zero_division=0))


def measure_roc_auc(metrics: Any, data: Data) -> float:  # noqa: ANN401 - as above
    if data.job["class_columns"] is None:
        truth = data.is_positive(data.labels)
        if all(truth):
            msg = "all labels are of one class, and roc_auc needs another"
            raise Unmeasured(msg)
        return float(metrics.roc_auc_score(truth, [score for (score,) in data.predicted_numbers()]))
    labels, table = data.probabilities()
    if len(set(labels)) != len(data.job["class_columns"]):
        msg = "a class of `class_columns` is no label, and roc_auc needs each"
        raise Unmeasured(msg)
    if len(data.job["class_columns"]) == 2:  # noqa: PLR2004 - binary
        return float(metrics.roc_auc_score(labels, [row[1] for row in table]))
    average = data.job["average"] or "macro"
    return float(metrics.roc_auc_score(labels, table, multi_class="ovr", average=average))


def measure_log_loss(metrics: Any, data: Data) -> float:  # noqa: ANN401 - as above
    if data.job["class_columns"] is None:
        truth = data.is_positive(data.labels)
        table = data.predicted_numbers(are_probabilities=True)
        return float(metrics.log_loss(truth, [value for (value,) in table], labels=[False, True]))
    labels, table = data.probabilities()
    return float(metrics.log_loss(labels, table, labels=list(range(len(table[0])))))


def measure_rmse(metrics: Any, data: Data) -> float:  # noqa: ANN401 - as above
    return math.sqrt(metrics.mean_squared_error(data.label_numbers(), data.predicted_numbers()))


def measure_mae(metrics: Any, data: Data) -> float:  # noqa: ANN401 - as above
    return float(metrics.mean_absolute_error(data.label_numbers(), data.predicted_numbers()))


def measure_r2(metrics: Any, data: Data) -> float:  # noqa: ANN401 - as above
    labels = data.label_numbers()
    if len(set(labels)) == 1:
        msg = "all labels are equal, and r2 needs some that differ"
        raise Unmeasured(msg)
    return float(metrics.r2_score(labels, data.predicted_numbers()))


def measure_ndcg(metrics: Any, data: Data) -> float:  # noqa: ANN401 - as above
    """The mean over the groups; one of a single row has no order and does not count."""
    relevances, scores = data.label_numbers(), data.predicted_numbers()
    if min(relevances) < 0:
        msg = "the labels file has a relevance below 0, which ndcg cannot weigh"
        raise Unmeasured(msg)
    groups: dict[str, list[int]] = {}
    for position, group in enumerate(data.groups):
        groups.setdefault(group, []).append(position)
    values = [
        float(metrics.ndcg_score([[relevances[at] for at in rows]], [[scores[at][0] for at in rows]], k=data.job["k"]))
        for rows in groups.values()
        if len(rows) > 1
    ]
    if not values:
        msg = "no group of the labels has two rows, and ndcg judges their order"
        raise Unmeasured(msg)
    return math.fsum(values) / len(values)


MEASURES: dict[str, Callable[[Any, Data], float]] = {
    "accuracy": measure_accuracy,
    "f1": measure_f1,
    "roc_auc": measure_roc_auc,
    "log_loss": measure_log_loss,
    "rmse": measure_rmse,
    "mae": measure_mae,
    "r2": measure_r2,
    "ndcg": measure_ndcg,
}


def measure(job: dict[str, Any]) -> dict[str, Any]:
    labels = Source(job["grader"], job["labels"], "the labels file", Unmeasured)
    data = Data(job, labels, Source(job["workspace"], job["predictions"], "the predictions file", Failed))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # a thread for each of the host's cores may be too many
        os.environ.setdefault(name, "1")
    try:
        import sklearn  # noqa: PLC0415 - takes seconds, and the sandbox may not have it
        from sklearn import metrics  # noqa: PLC0415
    except ImportError as error:
        msg = (
            f"the grading sandbox has no scikit-learn ({error}), which computes the metric: use an image that has it "
            "(fbench/mle:1); for bubblewrap and local install fbench with the extra `mle`"
        )
        raise Unmeasured(msg) from None
    warnings.simplefilter("ignore")
    value = MEASURES[job["metric"]](metrics, data)
    if not math.isfinite(value):
        msg = f"the predictions are so far off that {job['metric']} is {value}"
        raise Failed(msg)
    versions = {"python": platform.python_version(), "scikit-learn": sklearn.__version__}
    return {"value": value, "rows": len(data.labels), "versions": versions}


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """The document for a job; whatever goes wrong is in it."""
    try:
        return measure(job)
    except Failed as error:
        return {"failed": str(error)}
    except Unmeasured as error:
        return {"error": str(error)}


def main() -> None:
    job = json.load(sys.stdin)
    job["grader"] = os.environ.get("FBENCH_GRADER", "")
    sys.stdout.write(json.dumps(answer(job)) + "\n")


if __name__ == "__main__":
    main()
