"""What a resume has to know before it goes on: whether tasks and settings are still those of the plan."""

from decimal import Decimal
from pathlib import Path

from fbench.engine.errors import UsageError
from fbench.engine.records.transcript import utc_now
from fbench.suites.plan import PlannedTask, SuitePlan, digest_of
from fbench.suites.planning import digest_file
from fbench.tasks.errors import TaskError
from fbench.tasks.hashing import hash_task
from fbench.tasks.loading import load_task


def find_changes(plan: SuitePlan) -> list[str]:
    """What differs from what the plan was made of, in words. Blocking."""
    changes = []
    for task in plan.tasks:
        try:
            is_same = hash_task(Path(task.folder)) == task.task_hash
        except (TaskError, OSError) as error:
            changes.append(f"the task {task.task_id} cannot be read any more: {error}")
            continue
        if not is_same:
            changes.append(f"the task {task.task_id} in {task.folder} has changed")
    for path, digest in plan.files.items():
        now = digest_file(Path(path))
        if now != digest:
            changes.append(f"the file {path} {'is gone or unreadable' if now is None else 'has changed'}")
    return changes


def refuse_changes(plan: SuitePlan, changes: list[str]) -> None:
    """Raises UsageError where something has changed."""
    if changes:
        listed = "\n".join(f"  {change}" for change in changes)
        msg = (
            f"{plan.suite_run_id} was planned with other tasks or settings:\n{listed}\nPut them back as they were, "
            f"begin a new suite run, or say --accept-changes: what ran with a task as it was is then run again"
        )
        raise UsageError(msg)


def accept_changes(plan: SuitePlan) -> SuitePlan:
    """The plan with tasks and files as they are now; its options stay. Blocking.

    Raises:
        TaskError: a task is broken or gone.
    """
    tasks = tuple(_as_it_is_now(task) for task in plan.tasks)
    files = {path: digest for path in plan.files if (digest := digest_file(Path(path))) is not None}
    # Parts that have taken the same changes are parts of one suite again.
    digest = digest_of([plan.settings_digest, [task.task_hash for task in tasks], sorted(files.values())])
    return plan.model_copy(update={"tasks": tasks, "files": files, "settings_digest": digest})


def with_cap(plan: SuitePlan, cap: Decimal | None, spent_usd: Decimal) -> SuitePlan:
    """The plan with other dollars for all runs together, None for no cap. What the old cap ended is owed again only
    where there is more to spend now: a run that no dollar is left for would replace what stands by nothing."""
    before = plan.max_suite_cost
    is_more = before is not None and (cap is None or cap > max(before, spent_usd))
    changed = {"cap_changed_at": utc_now()} if is_more else {}
    return plan.model_copy(update={"max_suite_cost": cap, **changed})


def _as_it_is_now(task: PlannedTask) -> PlannedTask:
    found = load_task(Path(task.folder))
    manifest = found.manifest
    return task.model_copy(
        update={
            "title": manifest.title,
            "difficulty": manifest.difficulty,
            "domain": manifest.domain,
            "tags": manifest.tags,
            "task_hash": found.task_hash,
        }
    )
