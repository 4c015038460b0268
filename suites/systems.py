"""Which systems somebody means: suite runs by id or folder, and one model of a suite run as `ID:MODEL`."""

from collections.abc import Sequence
from pathlib import Path

from fbench.engine.errors import UnknownNameError, UsageError
from fbench.suites.compare import System
from fbench.suites.loading import load_suite_outcome
from fbench.suites.outcomes import SuiteOutcome


def find_suite_folder(runs_dir: Path, wanted: str, outcome: SuiteOutcome) -> Path:
    """The folder of a suite run that was loaded as `wanted`."""
    named = Path(wanted)
    is_folder = named.is_dir() and named.resolve().name == outcome.suite_run_id
    return named if is_folder else runs_dir / outcome.suite_run_id


def find_systems(runs_dir: Path, wanted: Sequence[str]) -> list[System]:
    """The systems named, in order. One suite run by itself stands for all its models.

    Raises:
        UnknownNameError: there is no such suite run or model.
        UsageError: fewer than two systems, one twice, or a suite run of several models where one was to be named.
    """
    found = [_resolve(runs_dir, name) for name in wanted]
    if len(found) == 1 and found[0][1] is None:
        outcome = found[0][0]
        systems = [_system(outcome, model) for model in outcome.models]
    else:
        systems = [_system(outcome, model or _only_model(outcome)) for outcome, model in found]
    if len(systems) < 2:  # noqa: PLR2004 - a comparison takes two
        msg = f"{systems[0].label} is one system; name another suite run or ID:MODEL to compare it with"
        raise UsageError(msg)
    labels = [system.label for system in systems]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        msg = f"{twice} is named twice; a system is compared with others"
        raise UsageError(msg)
    return systems


def _resolve(runs_dir: Path, name: str) -> tuple[SuiteOutcome, str | None]:
    """The suite run and the model, if one is named. Models and folders may have colons in their names, ids none."""
    places = [place for place, letter in enumerate(name) if letter == ":"]
    refusals: list[UnknownNameError] = []
    for suite_run, model in [(name, None), *((name[:place], name[place + 1 :]) for place in places)]:
        try:
            outcome = load_suite_outcome(runs_dir, suite_run)
        except UnknownNameError as error:
            refusals.append(error)
            continue
        if model is not None and model not in outcome.models:
            msg = f"{outcome.suite_run_id} has no model {model!r}; its models are {', '.join(outcome.models)}"
            raise UnknownNameError(msg)
        return outcome, model
    raise refusals[1 if places else 0]  # an id ends where the first colon is


def _only_model(outcome: SuiteOutcome) -> str:
    if len(outcome.models) == 1:
        return outcome.models[0]
    choices = ", ".join(f"{outcome.suite_run_id}:{model}" for model in outcome.models)
    msg = f"{outcome.suite_run_id} has {len(outcome.models)} models; name one: {choices}"
    raise UsageError(msg)


def _system(outcome: SuiteOutcome, model: str) -> System:
    return System(f"{outcome.suite_run_id}:{model}", outcome, model)
