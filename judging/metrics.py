"""`metric_check`: one number that a command printed, that stands in a file or is computed here, against a threshold.

The number is compared as it was written, as a decimal and never as a float: `0.9` is the threshold `0.90` exactly, an
integer of 400 digits and `1e999` are finite numbers like any other.
"""

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar, NamedTuple

from fbench.engine.results import Tier
from fbench.engine.seams import CheckContext, CheckOutcome
from fbench.judging.closeness import ratio, show_number, subtract
from fbench.judging.evidence import command_evidence, tail
from fbench.judging.exact_json import JsonRefused, JsonValue, a_type, parse_json
from fbench.judging.gather import CannotEvaluate, in_thread, read_workspace_file, run_for_stdout
from fbench.judging.predictions import compute_metric
from fbench.judging.scoring import ALMOST_ONE
from fbench.tasks import metric_checks
from fbench.tasks.checks import CheckBase


class MetricCheck:
    """Passes when the operator holds; below it, partial credit runs linearly from the baseline to the threshold."""

    tier: ClassVar[Tier] = "deterministic"
    arguments: ClassVar[type[CheckBase]] = metric_checks.MetricCheck

    async def evaluate(self, check: metric_checks.MetricCheck, context: CheckContext) -> CheckOutcome:
        """Read the number and judge it."""
        try:
            if check.predictions is not None:
                computed = await compute_metric(check, check.predictions, context)
                output = {**computed.evidence, **_asked(check)}
                if computed.value is None:
                    return CheckOutcome("failed", 0.0, computed.failed, output)
                return judge_value(check, computed.value, output)
            source, evidence = await _read_source(check, context)
        except CannotEvaluate as problem:
            return problem.outcome()
        return await in_thread(lambda: judge_metric(check, source, evidence))


class Metric(NamedTuple):
    """The number that was found, or why there is none."""

    value: Decimal | None
    problem: str


def judge_metric(check: metric_checks.MetricCheck, source: bytes, evidence: Mapping[str, Any]) -> CheckOutcome:
    """The outcome for a document (of `path`) or a stdout (of `command`)."""
    output = {**evidence, **_asked(check)}
    try:
        document = find_object(source, check.metric) if check.command is not None else parse_json(source)
    except JsonRefused as error:
        where = f"{check.path!r} is" if check.command is None else "the command's stdout is"
        return CheckOutcome("error", 0.0, f"{where} {error}", output)
    value, problem = find_metric(document, check.metric)
    if value is None:
        return CheckOutcome("error", 0.0, problem, output)
    return judge_value(check, value, output)


def judge_value(check: metric_checks.MetricCheck, value: Decimal, output: Mapping[str, Any]) -> CheckOutcome:
    """The outcome for the number."""
    output = {**output, "value": value}
    sentence = f"{check.metric} = {show_number(value)}, wanted {check.op} {_show_threshold(check)}"
    if check.medals is not None:
        medal = find_medal(check.op, check.medals, value)
        output |= {"medal": medal}
        sentence += f" ({medal or 'no'} medal)"
    if holds(check, value):
        return CheckOutcome("passed", 1.0, sentence, output)
    return CheckOutcome("failed", partial_credit(check, value), sentence, output)


def find_medal(op: str, medals: metric_checks.Medals, value: Decimal) -> str | None:
    """The best medal whose threshold the value reaches, being at it or on its better side."""
    for name, threshold in (("gold", medals.gold), ("silver", medals.silver), ("bronze", medals.bronze)):
        if value >= _written(threshold) if op in {">", ">="} else value <= _written(threshold):
            return name
    return None


def _asked(check: metric_checks.MetricCheck) -> dict[str, Any]:
    """What of the check goes into its evidence."""
    asked = {
        "metric": check.metric,
        "op": check.op,
        "threshold": list(check.threshold) if isinstance(check.threshold, tuple) else check.threshold,
        "baseline": check.baseline,
    }
    return asked if check.medals is None else {**asked, "medals": check.medals.model_dump(), "medal": None}


def find_object(stdout: bytes, metric: str) -> JsonValue:
    """The JSON object a command printed: all of its stdout, or else the last line that is an object.

    Raises:
        JsonRefused: neither is, or lines disagree about the metric: one of them may be of the work that is judged.
    """
    try:
        document = parse_json(stdout)
    except JsonRefused as error:
        problem = error
    else:
        if isinstance(document, dict):
            return document
        problem = JsonRefused(f"{a_type(document)}, not an object")
    objects: list[JsonValue] = []
    for line in stdout.decode("utf-8", errors="replace").split("\n"):
        text = line.strip()
        if text.startswith("{") and text.endswith("}"):
            try:
                objects.append(parse_json(text))
                continue
            except JsonRefused as error:
                problem = error
        if _names(text, metric):
            # What the work wrote before it, without an end of line, would hide the grader's own object.
            msg = f"ambiguous: a line that is no object as a whole holds {metric!r}; capture what others say"
            raise JsonRefused(msg)
    values = [value for value, _ in (find_metric(document, metric) for document in objects) if value is not None]
    if any(value != values[0] for value in values):
        msg = (
            f"ambiguous: {len(values)} of its lines are objects with {metric!r}; print one, and capture what others say"
        )
        raise JsonRefused(msg)
    if objects:
        return objects[-1]
    msg = f"no JSON object, nor is one of its lines: {problem}" if stdout.strip() else "empty; a JSON object is wanted"
    raise JsonRefused(msg)


def _names(text: str, metric: str) -> bool:
    """Whether the text holds the metric as a key of JSON, by its name or the last part of its path."""
    names = {metric, metric.rpartition(".")[2]}
    keys = {json.dumps(name, ensure_ascii=is_ascii) for name in names for is_ascii in (True, False)}
    return any(re.search(rf"{re.escape(key)}\s*:", text) for key in keys)


def find_metric(document: JsonValue, name: str) -> Metric:
    """The finite number called `name`: the key as it stands, or else a path of keys with dots between."""
    if not isinstance(document, dict):
        return Metric(None, f"the document is {a_type(document)}, not an object with the key {name!r}")
    if name in document:
        return _as_number(document[name], name)
    value: JsonValue = document
    for key in name.split("."):
        if not isinstance(value, dict) or key not in value:
            keys = ", ".join(repr(known[:40]) for known in list(document)[:10]) or "none"
            return Metric(None, f"the metric {name!r} is missing; the keys are {keys}")
        value = value[key]
    return _as_number(value, name)


def _as_number(value: JsonValue, name: str) -> Metric:
    if not isinstance(value, Decimal):
        return Metric(None, f"the metric {name!r} is {a_type(value)}, not a number")
    if not value.is_finite():
        return Metric(None, f"the metric {name!r} is {value}, not a finite number")
    return Metric(value, "")


def holds(check: metric_checks.MetricCheck, value: Decimal) -> bool:
    """Whether the operator holds; `between` includes both ends."""
    if isinstance(check.threshold, tuple):
        low, high = (_written(bound) for bound in check.threshold)
        return low <= value <= high
    threshold = _written(check.threshold)
    match check.op:
        case ">=":
            return value >= threshold
        case "<=":
            return value <= threshold
        case ">":
            return value > threshold
        case "<":
            return value < threshold
        case _:
            return value == threshold


def partial_credit(check: metric_checks.MetricCheck, value: Decimal) -> float:
    """The score of a number that missed: 0 at the baseline and beyond, below 1 up to the threshold."""
    if check.baseline is None or isinstance(check.threshold, tuple):
        return 0.0
    baseline, threshold = _written(check.baseline), _written(check.threshold)
    way = ratio(subtract(value, baseline), subtract(threshold, baseline))
    # Compared before it becomes a float: the way may be longer than any float.
    if way <= 0:
        return 0.0
    return ALMOST_ONE if way >= 1 else min(float(way), ALMOST_ONE)


def _written(number: float) -> Decimal:
    """A number of the manifest as its author wrote it: 0.9, not the float next to it."""
    return Decimal(str(number))


def _show_threshold(check: metric_checks.MetricCheck) -> str:
    if isinstance(check.threshold, tuple):
        return f"{check.threshold[0]:g} and {check.threshold[1]:g}"
    return str(check.threshold)


async def _read_source(check: metric_checks.MetricCheck, context: CheckContext) -> tuple[bytes, dict[str, Any]]:
    if check.path is not None:
        data = await read_workspace_file(context, check.path)
        return data, {"path": check.path, "content": data[: 64 * 1024]}
    assert check.command is not None  # the manifest wants one of the two
    result = await run_for_stdout(context, check.command, timeout_s=check.timeout_s)
    evidence = command_evidence(check.command, result)
    if result.exit_code != 0:
        why = " (out of memory)" if result.out_of_memory else ""
        said = tail(result.stderr or result.output)
        reason = f"the command that measures ended with exit code {result.exit_code}{why}" + (
            f": {said}" if said else ""
        )
        raise CannotEvaluate(reason, evidence)
    return result.stdout_bytes, evidence
