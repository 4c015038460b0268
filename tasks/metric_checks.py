"""`metric_check` in a manifest: where the number comes from, what it is compared with."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from fbench.tasks.checks import BrokenRule, CheckBase, Frozen, exactly_one
from fbench.tasks.values import Command, Finite, InsidePath, Name, Text, Threshold

COMPUTED_METRICS = ("accuracy", "f1", "roc_auc", "log_loss", "rmse", "mae", "r2", "ndcg")
"""What fbench computes itself from predictions and labels."""

_FOR_METRICS: Mapping[str, tuple[str, ...]] = {
    "positive_label": ("f1", "roc_auc", "log_loss"),
    "average": ("f1", "roc_auc"),
    "class_columns": ("roc_auc", "log_loss"),
    "group_column": ("ndcg",),
    "k": ("ndcg",),
}
_LOWER_IS_BETTER = ("log_loss", "rmse", "mae")
_WITH_PREDICTIONS = ("labels", "id_column", "label_column", "prediction_column", *_FOR_METRICS)


def _two_or_more(columns: Mapping[str, str]) -> Mapping[str, str]:
    if len(columns) < 2:  # noqa: PLR2004 - as the text says
        msg = "names the column of each class, two or more"
        raise ValueError(msg)
    return columns


class Medals(Frozen):
    """Thresholds of a leaderboard, each reached by a value at it or on its better side."""

    bronze: Finite
    silver: Finite
    gold: Finite


class MetricCheck(CheckBase):
    """Compares one number with a threshold: of a JSON object, or computed from predictions and labels."""

    type: Literal["metric_check"]
    command: Command | None = None
    path: InsidePath | None = None
    predictions: InsidePath | None = None
    labels: InsidePath | None = None
    metric: Name
    id_column: Name | None = None
    label_column: Name | None = None
    prediction_column: Name | None = None
    positive_label: Annotated[Text, Field(min_length=1)] | None = None
    average: Literal["macro", "micro", "weighted"] | None = None
    class_columns: Annotated[Mapping[str, Name], AfterValidator(_two_or_more)] | None = None
    group_column: Name | None = None
    k: Annotated[int, Field(gt=0)] | None = None
    op: Literal[">=", "<=", ">", "<", "==", "between"]
    threshold: Threshold
    baseline: Finite | None = None
    medals: Medals | None = None

    @classmethod
    def rules(cls, values: Mapping[str, Any]) -> Iterator[BrokenRule]:
        message = "a metric_check reads either `command`, `path` or `predictions`"
        yield from exactly_one(values, ("command", "path", "predictions"), message)
        yield from _broken_by_predictions(values)
        if values.get("op") is not None and values.get("threshold") is not None:
            yield from _broken_by_threshold(values["op"], values["threshold"], values.get("baseline"))
        if values.get("op") is not None and values.get("medals") is not None:
            yield from _broken_by_medals(values["op"], values["medals"])


def _broken_by_threshold(
    op: str, threshold: float | tuple[float, float], baseline: float | None
) -> Iterator[BrokenRule]:
    if (op == "between") != isinstance(threshold, tuple):
        message = "`between` takes a threshold of [low, high], every other op a single number"
        yield BrokenRule(("threshold",), message)
    elif isinstance(threshold, tuple) and threshold[0] > threshold[1]:
        yield BrokenRule(("threshold",), "the threshold [low, high] has low above high")
    if baseline is None:
        return
    if op in {"between", "=="}:
        yield BrokenRule(("baseline",), f"`baseline` goes with an open-ended op, not with {op!r}")
    elif not isinstance(threshold, tuple) and not (baseline < threshold if op in {">", ">="} else baseline > threshold):
        message = f"with op {op!r} the baseline must lie on the worse side of the threshold"
        yield BrokenRule(("baseline",), message)


def _broken_by_medals(op: str, medals: Medals | Mapping[str, Any]) -> Iterator[BrokenRule]:
    if op in {"between", "=="}:
        yield BrokenRule(("medals",), f"`medals` go with an open-ended op, not with {op!r}")
        return
    values = medals if isinstance(medals, Mapping) else dict(medals)
    steps: list[float] = [values[name] for name in Medals.model_fields if name in values]
    if steps != sorted(steps, reverse=op in {"<", "<="}):
        order = "rise" if op in {">", ">="} else "fall"
        yield BrokenRule(("medals",), f"with op {op!r} the medals must {order} from bronze over silver to gold")


def _broken_by_predictions(values: Mapping[str, Any]) -> Iterator[BrokenRule]:
    """The rules of `predictions` and of the keys that go with it only."""
    if "predictions" not in values or "metric" not in values:
        return
    metric = values["metric"]
    given = [key for key in _WITH_PREDICTIONS if values.get(key) is not None]
    if values["predictions"] is None:
        for key in given:
            yield BrokenRule((key,), f"`{key}` goes with `predictions`")
        return
    if "labels" in values and values["labels"] is None:
        yield BrokenRule((), "`predictions` needs `labels`, a file of the task's grader/ folder")
    if metric not in COMPUTED_METRICS:
        near = get_close_matches(metric, COMPUTED_METRICS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        message = f"of predictions these metrics can be computed: {', '.join(COMPUTED_METRICS)}{hint}"
        yield BrokenRule(("metric",), message)
        return
    yield from _broken_by_metric(metric, given, values)


def _broken_by_metric(metric: str, given: list[str], values: Mapping[str, Any]) -> Iterator[BrokenRule]:
    """Which keys a computed metric takes; `given` are those that have a value."""
    for key in given:
        if metric not in _FOR_METRICS.get(key, COMPUTED_METRICS):
            yield BrokenRule((key,), f"`{key}` goes with {' and '.join(_FOR_METRICS[key])}, not with {metric}")
    pairs = [("class_columns", "prediction_column"), ("class_columns", "positive_label")]
    if metric == "f1":
        pairs.append(("average", "positive_label"))
    for one, other in pairs:
        if one in given and other in given:
            yield BrokenRule((other,), f"`{one}` and `{other}` exclude each other")
    if metric == "roc_auc" and "average" in given and "class_columns" in values and "class_columns" not in given:
        yield BrokenRule(("average",), "`average` of roc_auc goes with `class_columns`")
    if metric in _LOWER_IS_BETTER and values.get("op") in {">", ">="}:
        yield BrokenRule(("op",), f"a lower {metric} is better: use <= or <")
