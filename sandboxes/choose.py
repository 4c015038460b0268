"""Which sandbox a run gets: what was asked for, what the task needs, what this machine has."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fbench.engine.errors import UsageError
from fbench.engine.sandbox_kinds import SANDBOX_CHOICES
from fbench.sandboxes import bubblewrap, compose_client
from fbench.sandboxes.docker_engine import find_engine, open_container_host, ping
from fbench.sandboxes.image_store import find_image
from fbench.tasks.manifest import DEFAULT_IMAGE, Environment

ENGINE_HINT = "install Docker Engine (`apt-get install docker.io`, or see docs.docker.com/engine/install) and start it"
KEEP_ANSWER_S = 5.0
"""How long an engine's answer holds: the plans of a suite are made together, and an engine that is far away or hung
takes seconds to say nothing."""

Probe = Callable[[], Awaitable[str | None]]
"""None when the thing is usable, else why not and what to do."""

_answers: dict[str, tuple[float, str | None]] = {}


@dataclass(frozen=True, slots=True)
class SandboxChoice:
    """The kind to open; `warning` is for the user where the choice gives up isolation."""

    kind: str
    warning: str | None = None


async def probe_engine() -> str | None:
    """None when the Docker engine answers that DOCKER_HOST or the docker context names, else why not."""
    try:
        address = find_engine()
    except UsageError as error:
        return str(error)
    asked_at, answer = _answers.get(address.url, (-KEEP_ANSWER_S, None))
    if time.monotonic() - asked_at >= KEEP_ANSWER_S:
        answer = await ping(address)
        _answers[address.url] = (time.monotonic(), answer)
    return answer


async def probe_image(name: str) -> bool:
    """Whether the engine has an image of that name. Raises SandboxFailed when it cannot say."""
    async with open_container_host() as host:
        return await find_image(host.client, name) is not None


async def choose_sandbox(
    requested: str,
    environment: Environment,
    *,
    model_is_fake: bool,
    probe_bubblewrap: Probe = bubblewrap.probe,
    probe_engine: Probe = probe_engine,
    probe_compose: Probe = compose_client.probe,
    probe_image: Callable[[str], Awaitable[bool]] = probe_image,
    image_map: Mapping[str, str] = MappingProxyType({}),
) -> SandboxChoice:
    """The sandbox for a task. Nothing is ever weaker than what was asked for or than the task needs.

    `auto` passes an engine by that has not our own image `DEFAULT_IMAGE`, when the task asks for nothing else: a
    machine with Docker and a machine without then run the first task alike. A missing image that a task chose is an
    error all the same.

    Args:
        requested: `auto`, `docker`, `bubblewrap` or `local`.
        environment: the task's.
        model_is_fake: whether the model is a `fake/*` one, whose commands the task's author wrote.
        probe_bubblewrap: None when bubblewrap is usable, else why not.
        probe_engine: the same of the Docker engine.
        probe_compose: the same of Docker's Compose plugin.
        probe_image: whether the engine has an image.
        image_map: images that stand for others.

    Raises:
        UsageError: nothing here fits; it says what would.
    """
    if requested not in SANDBOX_CHOICES:
        msg = f"there is no sandbox {requested!r}: use one of {', '.join(SANDBOX_CHOICES)}"
        raise UsageError(msg)
    need = _need_of_containers(environment)
    if requested in {"bubblewrap", "local"} and need:
        msg = f"{need}: --sandbox {requested} cannot give it that; use --sandbox docker, or leave the choice to auto"
        raise UsageError(msg)
    if requested == "local":
        warning = None if model_is_fake else "commands of the model run on this machine without isolation"
        return SandboxChoice("local", warning)
    no_engine = None
    if requested in {"auto", "docker"}:
        no_engine = await probe_engine()
        if no_engine is None:
            image = image_map.get(environment.image or "", environment.image)
            if requested == "docker" or need or image != DEFAULT_IMAGE or await probe_image(image):
                return await _choose_containers(environment, probe_compose)
            no_engine = f"its engine answers but has no image {image}; `fbench images build` makes it"
            choice = await _choose_without_containers(
                requested, no_engine, probe_bubblewrap, model_is_fake=model_is_fake
            )
            return SandboxChoice(choice.kind, choice.warning or f"runs in {choice.kind}. Docker: {no_engine}")
        if requested == "docker" or need:
            why = need or "--sandbox docker was asked for"
            msg = f"{why}, and there is no Docker engine to use: {no_engine}. If there is none yet, {ENGINE_HINT}"
            raise UsageError(msg)
    return await _choose_without_containers(requested, no_engine, probe_bubblewrap, model_is_fake=model_is_fake)


def _need_of_containers(environment: Environment) -> str | None:
    """Why a task runs in containers alone, None when it does not."""
    if environment.services:
        return "the task has services and needs Docker Compose"
    if environment.network.allow:
        return "the task opens the network (environment.network.allow) and needs Docker Compose"
    if environment.container_only:
        return "the task is `container_only`, so it never runs on the host's own programs"
    return None


async def _choose_containers(environment: Environment, probe_compose: Probe) -> SandboxChoice:
    if not environment.needs_compose:
        return SandboxChoice("docker")
    if environment.services and (trouble := await probe_compose()):
        msg = f"the task has services and needs Docker Compose: {trouble}"
        raise UsageError(msg)
    return SandboxChoice("compose")


async def _choose_without_containers(
    requested: str, no_engine: str | None, probe_bubblewrap: Probe, *, model_is_fake: bool
) -> SandboxChoice:
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
        f"a real model needs a sandbox that isolates it, and there is none. Docker: {no_engine}. Bubblewrap: {trouble}."
        f" Install one of them (bubblewrap: {bubblewrap.INSTALL_HINT}); to run without any isolation all the same, say "
        f"--sandbox local"
    )
    raise UsageError(msg)
