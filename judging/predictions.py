"""The number of a `metric_check` that fbench computes itself, from predictions of the workspace and held-out labels.

It is computed in a grading sandbox of its own, by a program of ours and the sandbox's scikit-learn (`metrics_inside`);
no code of the workspace runs, so that nothing of the agent's can read the labels.
"""

from decimal import Decimal
from typing import Any, NamedTuple

from fbench.engine.errors import ToolRefused
from fbench.engine.seams import CheckContext
from fbench.judging.gather import CannotEvaluate, in_thread, is_present
from fbench.judging.inside import InsideProgram, ask_inside
from fbench.tasks.metric_checks import MetricCheck

_PROGRAM = InsideProgram(
    module="metrics_inside", does="computing the metric", words="the program that computes the metric"
)
_KEYS = (
    "metric",
    "id_column",
    "label_column",
    "prediction_column",
    "positive_label",
    "average",
    "class_columns",
    "group_column",
    "k",
)
_KEEP_BYTES = 1024**2


class Computed(NamedTuple):
    """The metric's value, or why the predictions have none; what was seen in any case."""

    value: Decimal | None
    failed: str
    evidence: dict[str, Any]


async def compute_metric(check: MetricCheck, predictions: str, context: CheckContext) -> Computed:
    """Compute the metric of the predictions file in a grading sandbox.

    Raises:
        CannotEvaluate: it cannot be computed, whatever the predictions are.
        JudgingFailed: no grading sandbox could be opened, or an isolated one was lost.
    """
    given = {key: getattr(check, key) for key in _KEYS if getattr(check, key) is not None}
    evidence: dict[str, Any] = {"predictions": predictions, "labels": check.labels, **given}
    if not await in_thread(lambda: is_present(context, predictions)):
        failed = f"{predictions!r} is no regular file of the final workspace"
        return Computed(None, failed, {**evidence, "present": False})
    assert check.labels is not None  # the manifest wants them beside predictions
    try:
        place = await in_thread(lambda: context.workspace.resolve(predictions))
    except ToolRefused as error:
        raise CannotEvaluate(str(error), evidence) from error
    job = {key: getattr(check, key) for key in _KEYS} | {
        "predictions": place,
        "labels": check.labels.removeprefix("grader/"),
    }
    try:
        answer = await ask_inside(context, _PROGRAM, job, timeout_s=check.timeout_s, keep_bytes=_KEEP_BYTES)
    except CannotEvaluate as problem:
        raise CannotEvaluate(str(problem), {**evidence, **problem.evidence}) from problem
    match answer:
        case {"value": Decimal() as value}:
            return Computed(value, "", {**evidence, **answer})
        case {"failed": str(words)}:
            return Computed(None, words, {**evidence, "failed": words})
        case {"error": str(words)}:
            raise CannotEvaluate(words, {**evidence, "error": words})
        case _:
            reason = f"{_PROGRAM.words} answered with neither a value nor a reason"
            raise CannotEvaluate(reason, {**evidence, "answer": answer})
