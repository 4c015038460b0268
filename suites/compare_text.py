"""A comparison as text for a terminal."""

from collections.abc import Callable, Iterator
from functools import partial

from fbench.engine.records.showing import clean, table
from fbench.suites.compare import Comparison, Difference, McNemar, PairComparison
from fbench.suites.wording import NOTHING, say_duration, say_number, say_p, say_signed, say_usd

_HEAD = (
    *("", "FIRST", "SECOND", "DIFFERENCE", "95% (T)", "95% (BOOTSTRAP)", "P", "P (HOLM)", "DETECTABLE", "TASKS"),
    "NOTE",
)


def comparison_text(comparison: Comparison) -> str:
    """The whole comparison."""
    return "\n".join(_lines(comparison))


def _lines(comparison: Comparison) -> Iterator[str]:
    for number, system in enumerate(comparison.systems):
        yield f"{'first' if number == 0 else 'other':<7}{clean(system.label)}"
    for note in comparison.notes:
        yield f"note   {clean(note)}"
    for pair in comparison.pairs:
        yield ""
        yield from _pair(pair)
    yield ""
    yield (
        f"A difference is second minus first. 95% (T): Student's t over the tasks' differences; 95% (BOOTSTRAP): "
        f"{comparison.bootstrap_draws} draws of whole tasks, seed {comparison.bootstrap_seed}. P (HOLM): adjusted for "
        f"{len(comparison.pairs)} comparisons. DETECTABLE: the smallest true difference that this many tasks, "
        f"differing as these do, show with 80% power."
    )


def _pair(pair: PairComparison) -> Iterator[str]:
    yield clean(f"{pair.second} against {pair.first}")
    left_out, as_failures = pair.errors_left_out, pair.errors_as_failures
    rows = [_HEAD, _row("score", left_out.score), _row("pass rate", left_out.pass_rate)]
    have_errors = left_out.model_copy(update={"tasks": ()}) != as_failures.model_copy(update={"tasks": ()})
    if have_errors:
        rows.append(_row("score, errors 0", as_failures.score))
        rows.append(_row("pass rate, errors failed", as_failures.pass_rate))
    rows.append(_row("dollars a run", pair.usd, _say_signed_usd, say_usd))
    rows.append(_row("time a run", pair.duration_s, _say_signed_time, say_duration))
    rows.append(_row("tokens a run", pair.tokens, partial(say_signed, digits=0), partial(say_number, digits=0)))
    yield table(rows)
    yield _mcnemar(left_out.mcnemar)
    if have_errors:
        yield f"{_mcnemar(as_failures.mcnemar)}, errors as failures"
    for word, told in (("gained", "solved by the second only"), ("lost", "solved by the first only")):
        flipped = [task for task in pair.tasks if task.flipped == word]
        names = ", ".join(
            f"{task.task_id} ({task.first_passes}/{task.first_runs} to {task.second_passes}/{task.second_runs})"
            for task in flipped
        )
        yield clean(f"{told}: {names or 'none'}")


def _row(
    name: str,
    found: Difference,
    say_difference: Callable[[float | None], str] = say_signed,
    say_mean: Callable[[float | None], str] = say_number,
) -> tuple[str, ...]:
    def interval(limits: tuple[float, float] | None) -> str:
        return NOTHING if limits is None else f"[{say_difference(limits[0])}, {say_difference(limits[1])}]"

    return (
        name,
        NOTHING if found.first is None else say_mean(found.first),
        NOTHING if found.second is None else say_mean(found.second),
        say_difference(found.difference),
        interval(found.interval),
        interval(found.bootstrap),
        say_p(found.p_value),
        say_p(found.p_holm),
        NOTHING if found.smallest_detectable is None else say_mean(found.smallest_detectable),
        str(found.tasks),
        found.note,
    )


def _mcnemar(found: McNemar) -> str:
    ties = f", {found.ties} tied and left out" if found.ties else ""
    adjusted = "" if found.p_holm is None else f" ({say_p(found.p_holm)} by Holm)"
    return (
        f"exact McNemar, a task being solved when {found.rule}: {found.both} both, {found.only_first} first only, "
        f"{found.only_second} second only, {found.neither} neither{ties}; p = {say_p(found.p_value)}{adjusted}"
    )


def _say_signed_usd(usd: float | None) -> str:
    return NOTHING if usd is None else f"{'-' if usd < 0 else '+'}{say_usd(abs(usd))}"


def _say_signed_time(seconds: float | None) -> str:
    return NOTHING if seconds is None else f"{'-' if seconds < 0 else '+'}{say_duration(abs(seconds))}"
