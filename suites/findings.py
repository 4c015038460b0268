"""What a reader of a suite run's figures has to know before trusting them, in sentences."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from fbench.engine.results import RunResult
from fbench.suites.intervals import FEW_TASKS
from fbench.suites.outcomes import SuiteOutcome
from fbench.suites.standing import Standing, spend_of, standing_of

_NAMED = 5
"""Tasks named in one sentence; more are counted."""


def notes_on(outcome: SuiteOutcome) -> tuple[str, ...]:
    """The sentences; none when there is nothing to say."""
    notes = (_on_standings, _on_sample, _on_money, _on_isolation, _on_checks, _on_mixtures)
    return tuple(sentence for note in notes for sentence in note(outcome))


def task_hashes(results: Iterable[RunResult]) -> dict[str, set[str]]:
    """Each task's hashes among the results that know one."""
    found: dict[str, set[str]] = defaultdict(set)
    for result in results:
        if result.task_hash:
            found[result.task_id].add(result.task_hash)
    return found


def name_some(names: Iterable[str]) -> str:
    """The first few names, sorted, and how many more there are.

    >>> name_some("gfedcba")
    'a, b, c, d, e and 2 more'
    """
    ordered = sorted(names)
    more = len(ordered) - _NAMED
    return ", ".join(ordered[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _on_standings(outcome: SuiteOutcome) -> Iterator[str]:
    standings = Counter(standing_of(outcome.results.get(planned)) for planned in outcome.planned)
    planned = len(outcome.planned)
    if owed := standings[Standing.OWED]:
        cancelled = sum(result.status == "cancelled" for result in outcome.results.values())
        yield (
            f"Unfinished: {owed} of {planned} runs are owed, {cancelled} cancelled and {owed - cancelled} without "
            f"a result. No rate counts them; the suite run can be resumed."
        )
    if errors := standings[Standing.ERROR]:
        yield (
            f"{errors} of {planned} runs ended in an infrastructure error, which is no score. Rates are given "
            f"twice: with these runs left out, and with each counted as a failure of score 0."
        )


def _on_sample(outcome: SuiteOutcome) -> Iterator[str]:
    if len(outcome.tasks) < FEW_TASKS:
        yield (
            f"Small sample: {len(outcome.tasks)} tasks. Intervals are wide, and may still be too narrow; differences "
            f"between models need more tasks, not more attempts."
        )


def _on_money(outcome: SuiteOutcome) -> Iterator[str]:
    spend = spend_of([*outcome.results.values(), *outcome.earlier])
    if spend.unknown_runs:
        yield f"The dollars of {spend.unknown_runs} of {spend.runs} runs are unknown: totals that hold them are, too."
    if spend.estimated_runs:
        yield f"The dollars of {spend.estimated_runs} of {spend.runs} runs rest on estimated tokens (marked ~)."
    if outcome.earlier:
        yield (
            f"Earlier tries that later ones replaced: {len(outcome.earlier)}. Their scores count nowhere, "
            f"what they spent is in every total."
        )
    if outcome.lost_cost_usd is None:
        yield "Some runs ended without a result, and what they spent is not known: no total of dollars is."
    elif outcome.lost_cost_usd:
        lost = f"${outcome.lost_cost_usd:.4f}"
        yield f"Runs that ended without a result spent {lost}: in the suite run's total, in no model's."


def _on_isolation(outcome: SuiteOutcome) -> Iterator[str]:
    if count := sum(result.isolated is False for result in outcome.results.values()):
        yield f"{count} runs were not isolated: their agents could see this machine and the grader."


def _on_checks(outcome: SuiteOutcome) -> Iterator[str]:
    broken = [
        result.task_id
        for result in outcome.results.values()
        if standing_of(result) is Standing.JUDGED and any(check.status == "error" for check in result.checks)
    ]
    if broken:
        yield (
            f"{len(broken)} judged runs have checks that could not be evaluated and count 0 in their scores: "
            f"{name_some(set(broken))}."
        )


def _on_mixtures(outcome: SuiteOutcome) -> Iterator[str]:
    results = list(outcome.results.values())
    changed = [task for task, hashes in task_hashes(results).items() if len(hashes) > 1]
    if changed:
        yield f"These tasks changed while the suite ran, so their runs are not alike: {name_some(changed)}."
    versions = {result.fbench_version for result in results}
    if len(versions) > 1:
        yield f"Runs are of several versions of fbench: {', '.join(sorted(versions))}."
    by_task: dict[str, set[str]] = defaultdict(set)
    for result in results:
        if result.sandbox is not None:
            by_task[result.task_id].add(result.sandbox)
    mixed = [task for task, sandboxes in by_task.items() if len(sandboxes) > 1]
    if mixed:
        yield f"These tasks ran in more than one kind of sandbox: {name_some(mixed)}."
