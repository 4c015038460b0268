"""What kept a project's services from being healthy: which one, how it is, and what it said last."""

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import anyio

from fbench.engine.errors import SandboxFailed
from fbench.sandboxes.docker_engine import ContainerHost, engine_errors

if TYPE_CHECKING:
    from aiodocker.containers import DockerContainer

LOOK_PATIENCE_S = 15.0
LOG_LINES = 15
MOST_CHARS = 2000
"""Of one service's last lines in an error's text; a line may be long."""
PROJECT_LABEL, SERVICE_LABEL = "com.docker.compose.project", "com.docker.compose.service"


class ServiceUnhealthy(SandboxFailed):
    """A service of the task did not become healthy, or ended."""

    kind: ClassVar[str] = "service_unhealthy"


class _Trouble(NamedTuple):
    service: str
    what: str
    container: "DockerContainer"


async def explain_failure(host: ContainerHost, project: str, said: str) -> SandboxFailed:
    """The error to raise for a project that did not come up; `said` are Compose's own words.

    It is ServiceUnhealthy when a service is to blame: with its name and its last lines.
    """
    try:
        with (
            engine_errors(host.address, "did not say how the services are", LOOK_PATIENCE_S),
            anyio.fail_after(LOOK_PATIENCE_S),
        ):
            troubles = await _find_troubles(host, project)
            texts = [f"{trouble.what}{await _last_lines(trouble.container)}" for trouble in troubles]
    except SandboxFailed as error:
        return SandboxFailed(f"the services did not start: {said}\n{error}")
    if not texts:
        return SandboxFailed(f"the services did not start; `docker compose up` said: {said}")
    return ServiceUnhealthy("\n".join([*texts, "Mend the service in task.yaml (`environment.services`) or its files"]))


async def _find_troubles(host: ContainerHost, project: str) -> list[_Trouble]:
    filters = {"label": [f"{PROJECT_LABEL}={project}"]}
    troubles = []
    for container in await host.client.containers.list(all=True, filters=filters):
        details = await container.show()
        service = details["Config"]["Labels"].get(SERVICE_LABEL, "?")
        what = _describe(service, details["State"])
        if what is not None:
            troubles.append(_Trouble(service, what, container))
    return sorted(troubles, key=lambda trouble: trouble.service)


def _describe(service: str, state: dict[str, Any]) -> str | None:
    """How a service is, None for one that is well."""
    name = f"the service {service!r}"
    if state.get("OOMKilled"):
        return f"{name} ran out of memory (its `resources.memory`)"
    if state.get("Status") in {"exited", "dead"}:
        return f"{name} ended with exit code {state.get('ExitCode')}"
    if state.get("Status") == "created":
        why = state.get("Error")
        return f"{name} could not be started: {why}" if why else None
    health = state.get("Health") or {}
    if health.get("Status") in {"unhealthy", "starting"}:
        looks = health.get("Log") or []
        last = (
            f"; its health check said last (exit code {looks[-1].get('ExitCode')}): "
            f"{_end_of(str(looks[-1].get('Output', '')), 1)}"
            if looks
            else ""
        )
        return f"{name} is not healthy{last}"
    return None


async def _last_lines(container: "DockerContainer") -> str:
    lines = await container.log(stdout=True, stderr=True, tail=LOG_LINES)
    text = _end_of("".join(lines), LOG_LINES)
    return f". Its last lines:\n{text}" if text else ". It wrote nothing"


def _end_of(text: str, lines: int) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])[-MOST_CHARS:]
