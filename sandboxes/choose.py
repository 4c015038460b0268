"""Which sandbox a run gets: what was asked for, what the task needs, what this machine has."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fbench.engine.errors import UsageError
from fbench.sandboxes.bubblewrap import INSTALL_HINT, probe
from fbench.tasks.manifest import Environment

KINDS = ("auto", "docker", "bubblewrap", "local")
NOT_SHIPPED = "which this version of fbench does not ship yet"


@dataclass(frozen=True, slots=True)
class SandboxChoice:
    """The kind to open; `warning` is for the user where the choice gives up isolation."""

    kind: str
    warning: str | None = None


async def choose_sandbox(
    requested: str,
    environment: Environment,
    *,
    model_is_fake: bool,
    probe_bubblewrap: Callable[[], Awaitable[str | None]] = probe,
) -> SandboxChoice:
    """The sandbox for a task. Nothing is ever weaker than what was asked for or than the task needs.

    Args:
        requested: `auto`, `docker`, `bubblewrap` or `local`.
        environment: the task's.
        model_is_fake: whether the model is a `fake/*` one, whose commands the task's author wrote.
        probe_bubblewrap: None when bubblewrap is usable, else why not.

    Raises:
        UsageError: nothing here fits; it says what would.
    """
    if requested not in KINDS:
        msg = f"there is no sandbox {requested!r}: use one of {', '.join(KINDS)}"
        raise UsageError(msg)
    if requested == "docker":
        msg = f"--sandbox docker needs the Docker sandbox, {NOT_SHIPPED}: use bubblewrap, or local without isolation"
        raise UsageError(msg)
    if environment.needs_compose:
        need = "services" if environment.services else "an opened network (environment.network.allow)"
        what = f"the task has {need} and needs Docker Compose, {NOT_SHIPPED}"
        msg = what if requested == "auto" else f"{what}; --sandbox {requested} cannot give it that"
        msg += ". Choose another task"
        raise UsageError(msg)
    if environment.container_only:
        msg = (
            f"the task is `container_only` and runs in Docker alone, {NOT_SHIPPED}; --sandbox {requested} would run "
            f"it on the host's own programs. Choose another task"
        )
        raise UsageError(msg)
    if requested == "local":
        warning = None if model_is_fake else "commands of the model run on this machine without isolation"
        return SandboxChoice("local", warning)
    trouble = await probe_bubblewrap()
    if trouble is None:
        return SandboxChoice("bubblewrap")
    if requested == "bubblewrap":
        msg = f"--sandbox bubblewrap cannot be used: {trouble}"
        raise UsageError(msg)
    if model_is_fake:
        return SandboxChoice(
            "local", f"no isolation: {trouble}. The commands of this fake model run on this machine itself"
        )
    msg = (
        f"a real model needs a sandbox that isolates it, and there is none: {trouble}. For bubblewrap, {INSTALL_HINT}; "
        f"to run without any isolation all the same, say --sandbox local"
    )
    raise UsageError(msg)
