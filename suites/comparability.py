"""What to know before believing that systems can be compared, in sentences."""

from collections.abc import Iterator, Mapping, Sequence

from fbench.engine.results import RunResult
from fbench.suites.findings import name_some, task_hashes
from fbench.suites.intervals import FEW_TASKS
from fbench.suites.outcomes import SuiteOutcome
from fbench.suites.standing import Policy, Standing, group_by_cell, spend_of, standing_of

Named = tuple[str, SuiteOutcome, str]
"""A system's label, its suite run and its model."""


def notes_on_systems(systems: Sequence[Named], common: Mapping[Policy, Sequence[str]]) -> tuple[str, ...]:
    """The sentences; `common` are the tasks that are compared."""
    tasks = common["errors_left_out"]
    results = {label: _results(outcome, model) for label, outcome, model in systems}
    return (
        *_on_tasks(systems, tasks),
        *_on_standings(systems),
        *_on_likeness(results, tasks),
    )


def _on_tasks(systems: Sequence[Named], tasks: Sequence[str]) -> Iterator[str]:
    for label, outcome, _ in systems:
        others = {task.task_id for task in outcome.tasks} - set(tasks)
        if others:
            yield f"{label} has tasks that another has no judged run of, and that are left out: {name_some(others)}."
    if len(tasks) < FEW_TASKS:
        yield f"Small sample: {len(tasks)} tasks in common. Only large differences show; intervals may be too narrow."


def _on_standings(systems: Sequence[Named]) -> Iterator[str]:
    for label, outcome, model in systems:
        runs = [result for (_, of), cell in group_by_cell(outcome).items() if of == model for _, result in cell.runs]
        standings = [standing_of(result) for result in runs]
        owed, errors = standings.count(Standing.OWED), standings.count(Standing.ERROR)
        if owed:
            yield f"{label} is unfinished: {owed} of {len(runs)} runs are owed and count nowhere."
        if errors:
            yield f"{label} has {errors} of {len(runs)} runs in error: given once left out and once as failures."
        unknown = spend_of([result for result in runs if result is not None]).unknown_runs
        if unknown:
            yield f"{label} has {unknown} runs of unknown dollars: tasks with such runs are left out of the dollars."


def _on_likeness(results: Mapping[str, Sequence[RunResult]], tasks: Sequence[str]) -> Iterator[str]:
    hashes = task_hashes(result for of_system in results.values() for result in of_system)
    changed = [task for task in tasks if len(hashes.get(task, ())) > 1]
    if changed:
        yield f"These tasks are not the same everywhere (their files changed between the runs): {name_some(changed)}."
    for name, values in (
        ("sandboxes", [{result.sandbox or "none" for result in of_system} for of_system in results.values()]),
        ("versions of fbench", [{result.fbench_version for result in of_system} for of_system in results.values()]),
    ):
        if any(value != values[0] for value in values):
            told = "; ".join(
                f"{label} {', '.join(sorted(value))}" for label, value in zip(results, values, strict=True)
            )
            yield f"The systems ran with different {name}: {told}."


def _results(outcome: SuiteOutcome, model: str) -> list[RunResult]:
    return [result for planned, result in outcome.results.items() if planned.model == model]
