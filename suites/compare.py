"""Two or more systems on the tasks they have in common: how large a difference is, and how sure.

A system is one model of one suite run. Each is compared with the first. What is paired is the task: runs of a task are
not independent of each other, so each task gives one difference of means, whatever its number of attempts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, TypeVar

from fbench.engine.results import Record, RunResult
from fbench.suites.comparability import notes_on_systems
from fbench.suites.intervals import Interval, clustered_mean
from fbench.suites.outcomes import SuiteOutcome
from fbench.suites.paired import (
    BOOTSTRAP_DRAWS,
    BOOTSTRAP_SEED,
    bootstrap_interval,
    exact_mcnemar_p,
    holm,
    smallest_detectable_difference,
)
from fbench.suites.rates import note_on
from fbench.suites.standing import POLICIES, Policy, Sample, Standing, group_by_cell, samples_of, standing_of, usd_of

COMPARISON_SCHEMA_VERSION = 1

_HALF = 0.5

T = TypeVar("T")
Samples = Mapping[str, Sequence[Sample]]


@dataclass(frozen=True, slots=True)
class System:
    """One model of one suite run."""

    label: str
    outcome: SuiteOutcome
    model: str


class SystemLine(Record):
    """A system as it was named."""

    label: str
    suite_run_id: str
    model: str


class Difference(Record):
    """Means of both over the common tasks, and second minus first.

    Attributes:
        interval: 95 % by t over the tasks' differences; `bootstrap` by drawing tasks.
        p_value: of there being no difference, paired t; `p_holm` adjusted for the number of systems.
        smallest_detectable: the true difference that would have been found with 80 % power.
    """

    tasks: int
    first: float | None
    second: float | None
    difference: float | None
    interval: Interval | None
    bootstrap: Interval | None
    standard_error: float | None
    p_value: float | None
    p_holm: float | None = None
    smallest_detectable: float | None
    note: str


class McNemar(Record):
    """Tasks by who solved them. `rule` says when a task counts as solved, `ties` are left out of the other counts."""

    rule: Literal["its run passed", "more than half of its runs passed"]
    both: int
    only_first: int
    only_second: int
    neither: int
    ties: int
    p_value: float
    p_holm: float | None = None


class PolicyComparison(Record):
    """What counting infrastructure errors in one way gives."""

    tasks: tuple[str, ...]
    score: Difference
    pass_rate: Difference
    mcnemar: McNemar


class TaskPair(Record):
    """One common task, errors left out. `flipped` tells whether second solved what first did not, or the reverse."""

    task_id: str
    first_score: float
    second_score: float
    first_passes: int
    first_runs: int
    second_passes: int
    second_runs: int
    flipped: Literal["gained", "lost"] | None


class PairComparison(Record):
    """The second system against the first. Dollars (the agent's), seconds and tokens are those of a judged run."""

    first: str
    second: str
    errors_left_out: PolicyComparison
    errors_as_failures: PolicyComparison
    usd: Difference
    duration_s: Difference
    tokens: Difference
    tasks: tuple[TaskPair, ...]


class Comparison(Record):
    """All systems against the first one."""

    schema_version: int = COMPARISON_SCHEMA_VERSION
    systems: tuple[SystemLine, ...]
    bootstrap_draws: int = BOOTSTRAP_DRAWS
    bootstrap_seed: int = BOOTSTRAP_SEED
    notes: tuple[str, ...]
    pairs: tuple[PairComparison, ...]


def compare(systems: Sequence[System]) -> Comparison:
    """Compare each system with the first, on the tasks that all of them have runs of."""
    samples = {policy: [_samples(system, policy) for system in systems] for policy in POLICIES}
    common: dict[Policy, tuple[str, ...]] = {policy: _common(samples[policy]) for policy in POLICIES}
    judged = [_judged(system) for system in systems]
    pairs = []
    for place in range(1, len(systems)):
        left_out, as_failures = (
            _by_policy(common[policy], samples[policy][0], samples[policy][place]) for policy in POLICIES
        )
        both = [(judged[0][task], judged[place][task]) for task in common["errors_left_out"]]
        pairs.append(
            PairComparison(
                first=systems[0].label,
                second=systems[place].label,
                errors_left_out=left_out,
                errors_as_failures=as_failures,
                usd=_difference([_means(pair, usd_of) for pair in both]),
                duration_s=_difference([_means(pair, lambda result: result.duration_s) for pair in both]),
                tokens=_difference([_means(pair, lambda result: result.tokens.total) for pair in both]),
                tasks=tuple(
                    _task_pair(task, samples["errors_left_out"][0][task], samples["errors_left_out"][place][task])
                    for task in common["errors_left_out"]
                ),
            )
        )
    return Comparison(
        systems=tuple(
            SystemLine(label=system.label, suite_run_id=system.outcome.suite_run_id, model=system.model)
            for system in systems
        ),
        notes=notes_on_systems([(system.label, system.outcome, system.model) for system in systems], common),
        pairs=_with_holm(pairs),
    )


def is_solved(samples: Sequence[Sample]) -> bool | None:
    """Whether more than half of the task's runs passed; None on a tie."""
    share = fmean(sample.passed for sample in samples)
    return None if share == _HALF else share > _HALF


def _samples(system: System, policy: Policy) -> dict[str, list[Sample]]:
    cells = group_by_cell(system.outcome)
    found = {task: samples_of(cell, policy) for (task, model), cell in cells.items() if model == system.model}
    return {task: samples for task, samples in found.items() if samples}


def _judged(system: System) -> dict[str, list[RunResult]]:
    """Of each task the results that its samples come from, errors left out."""
    cells = group_by_cell(system.outcome)
    return {
        task: [result for _, result in cell.runs if result is not None and standing_of(result) is Standing.JUDGED]
        for (task, model), cell in cells.items()
        if model == system.model
    }


def _common(by_system: Sequence[Samples]) -> tuple[str, ...]:
    """Tasks with samples in every system, in the first one's order."""
    return tuple(task for task in by_system[0] if all(task in samples for samples in by_system[1:]))


def _by_policy(tasks: tuple[str, ...], first: Samples, second: Samples) -> PolicyComparison:
    pairs = [(first[task], second[task]) for task in tasks]
    return PolicyComparison(
        tasks=tasks,
        score=_difference([_means(pair, lambda sample: sample.score) for pair in pairs]),
        pass_rate=_difference([_means(pair, lambda sample: float(sample.passed)) for pair in pairs]),
        mcnemar=_mcnemar(pairs),
    )


def _means(pair: tuple[Sequence[T], Sequence[T]], value: Callable[[T], float | None]) -> tuple[float, float] | None:
    """The task's mean in either system; None where a value is not known."""
    first, second = ([value(item) for item in items] for items in pair)
    known = [[number for number in numbers if number is not None] for numbers in (first, second)]
    if len(known[0]) < len(first) or len(known[1]) < len(second):
        return None
    return fmean(known[0]), fmean(known[1])


def _difference(tasks: Sequence[tuple[float, float] | None]) -> Difference:
    known = [means for means in tasks if means is not None]
    differences = [second - first for first, second in known]
    found = clustered_mean([[difference] for difference in differences])
    unknown = len(tasks) - len(known)
    notes = [f"{unknown} tasks left out: unknown in a run"] if unknown else []
    if found is None:
        return Difference(
            tasks=0,
            first=None,
            second=None,
            difference=None,
            interval=None,
            bootstrap=None,
            standard_error=None,
            p_value=None,
            smallest_detectable=None,
            note="; ".join([*notes, "no task in common"]),
        )
    error = found.standard_error
    said = "no interval: all tasks differ by the same" if error is None and len(known) > 1 else note_on(found)
    return Difference(
        tasks=len(known),
        first=fmean(first for first, _ in known),
        second=fmean(second for _, second in known),
        difference=found.mean,
        interval=found.interval,
        bootstrap=None if error is None else bootstrap_interval(differences),
        standard_error=error,
        p_value=found.p_value,
        smallest_detectable=None if error is None else smallest_detectable_difference(error, len(known)),
        note="; ".join([*notes, *([said] if said else [])]),
    )


def _mcnemar(pairs: Sequence[tuple[Sequence[Sample], Sequence[Sample]]]) -> McNemar:
    """By task, not by run: with several attempts the runs of a task are no independent coins."""
    solved = [(is_solved(first), is_solved(second)) for first, second in pairs]
    clear = [pair for pair in solved if None not in pair]
    only_first, only_second = clear.count((True, False)), clear.count((False, True))
    is_one_each = all(len(first) == len(second) == 1 for first, second in pairs)
    return McNemar(
        rule="its run passed" if is_one_each else "more than half of its runs passed",
        both=clear.count((True, True)),
        only_first=only_first,
        only_second=only_second,
        neither=clear.count((False, False)),
        ties=len(solved) - len(clear),
        p_value=exact_mcnemar_p(only_first, only_second),
    )


def _task_pair(task_id: str, first: Sequence[Sample], second: Sequence[Sample]) -> TaskPair:
    solved = is_solved(first), is_solved(second)
    return TaskPair(
        task_id=task_id,
        first_score=fmean(sample.score for sample in first),
        second_score=fmean(sample.score for sample in second),
        first_passes=sum(sample.passed for sample in first),
        first_runs=len(first),
        second_passes=sum(sample.passed for sample in second),
        second_runs=len(second),
        flipped="gained" if solved == (False, True) else "lost" if solved == (True, False) else None,
    )


def _with_holm(pairs: Sequence[PairComparison]) -> tuple[PairComparison, ...]:
    """The pairs with p-values adjusted for how many there are, each kind of test by itself."""
    found = list(pairs)
    for policy in POLICIES:
        for test in ("score", "pass_rate", "mcnemar"):
            raw = {
                place: getattr(getattr(pair, policy), test).p_value
                for place, pair in enumerate(pairs)
                if getattr(getattr(pair, policy), test).p_value is not None
            }
            for place, adjusted in zip(raw, holm(list(raw.values())), strict=True):
                of_policy = getattr(found[place], policy)
                changed = getattr(of_policy, test).model_copy(update={"p_holm": adjusted})
                of_policy = of_policy.model_copy(update={test: changed})
                found[place] = found[place].model_copy(update={policy: of_policy})
    return tuple(found)
