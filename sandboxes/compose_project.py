"""The Compose project of a task's services: the document, and the files of the task that it mounts."""

import json
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fbench.engine.errors import SandboxFailed
from fbench.tasks.manifest import Healthcheck, Service

HEALTHCHECK_TIMEOUT_S = 10.0
"""For one look at a service; what hangs longer counts as a failed look, and the engine's own 30 s is a long wait."""
START_GRACE_S = 60.0
"""For creating and starting all services, on top of what their health checks may take."""
LOG_BYTES = "10m"
"""Of one service's log, which the engine keeps on its disk: the last lines are what an error shows."""
PROJECT_FILE = "compose.json"


def write_project(
    folder: Path,
    *,
    name: str,
    services: Mapping[str, Service],
    images: Mapping[str, str],
    network: str,
    labels: Mapping[str, str],
    task_folder: Path,
    is_internal: bool,
) -> Path:
    """Write the project's file into `folder`, with copies of the task's files that its services mount.

    Args:
        images: the image of each service, by its id.
        network: an existing network, which the project joins and does not own.
        is_internal: whether names outside of the network are not asked for.

    Raises:
        SandboxFailed: a file of the task cannot be copied, or a service's command cannot be read.
    """
    document = {
        "name": name,
        "services": {
            service: _service(
                service,
                services[service],
                image=images[service],
                labels=labels,
                files=_copy_files(folder / "files" / service, task_folder, service, services[service]),
                is_internal=is_internal,
            )
            for service in services
        },
        "networks": {"default": {"name": network, "external": True}},
    }
    path = folder / PROJECT_FILE
    path.write_text(json.dumps(_escaped(document), indent=1), encoding="utf-8")
    path.chmod(0o600)
    return path


def patience_s(services: Mapping[str, Service]) -> float:
    """The longest that services may take until all are healthy or one is found not to be, seconds."""
    longest = max((_health_s(service.healthcheck) for service in services.values()), default=0.0)
    return START_GRACE_S + longest


def _health_s(check: Healthcheck | None) -> float:
    return 0.0 if check is None else check.retries * (check.interval_s + HEALTHCHECK_TIMEOUT_S)


def _service(
    name: str,
    service: Service,
    *,
    image: str,
    labels: Mapping[str, str],
    files: list[dict[str, Any]],
    is_internal: bool,
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "image": image,
        "pull_policy": "never",
        "init": True,
        "restart": "no",
        "stop_grace_period": "0s",
        "labels": dict(labels),
        "environment": dict(service.env),
        "volumes": files,
        "security_opt": ["no-new-privileges:true"],
        "logging": {"driver": "json-file", "options": {"max-size": LOG_BYTES, "max-file": "1"}},
    }
    if is_internal:
        # The engine's own resolver would ask the host's for every other name, and so carry words out of the network.
        document["dns"] = ["127.0.0.1"]
        document["dns_search"] = ["."]
        document["dns_opt"] = ["timeout:1", "attempts:2"]  # nobody answers, and programs would wait 10 s for it
    if service.command is not None:
        document["command"] = _split(name, service.command)
    if service.healthcheck is not None:
        document["healthcheck"] = {
            "test": ["CMD-SHELL", service.healthcheck.command],
            "interval": _duration(service.healthcheck.interval_s),
            "timeout": _duration(HEALTHCHECK_TIMEOUT_S),
            "retries": service.healthcheck.retries,
        }
    resources = service.resources
    if resources.cpus is not None:
        document["cpus"] = resources.cpus
    if resources.memory is not None:
        document["mem_limit"] = document["memswap_limit"] = resources.memory
    if resources.pids is not None:
        document["pids_limit"] = resources.pids
    if resources.disk is not None:
        document["ulimits"] = {"fsize": resources.disk}  # of each file: what a service holds in all nobody adds up
    return document


def _split(name: str, command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        msg = f"the command of the service {name!r} cannot be read: {error}; mend its quotes in task.yaml"
        raise SandboxFailed(msg) from error


def _duration(seconds: float) -> str:
    """Go's way to write a duration; the engine takes no interval below 1 ms."""
    return f"{max(1, round(seconds * 1000))}ms"


def _copy_files(folder: Path, task_folder: Path, name: str, service: Service) -> list[dict[str, Any]]:
    """Copies of the files a service mounts, readable by every uid: a service runs as whom its image says."""
    mounts = []
    root = task_folder.resolve()
    for number, (file, place) in enumerate(service.files.items()):
        source = (task_folder / file).resolve()
        copy = folder / f"{number}-{Path(file).name}"
        if not source.is_relative_to(root):
            msg = f"{file} of the service {name!r} leads out of the task's folder: put the file itself there"
            raise SandboxFailed(msg)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            copy.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
        except OSError as error:
            msg = f"{file} of the service {name!r} cannot be copied for it: {error.strerror or error}; check the task"
            raise SandboxFailed(msg) from error
        mounts.append(
            {
                "type": "bind",
                "source": str(copy.absolute()),
                "target": place,
                "read_only": True,
                "bind": {"create_host_path": False},
            }
        )
    return mounts


def _escaped(value: Any) -> Any:  # noqa: ANN401 - any part of a JSON document
    """The document with every `$` doubled: Compose would put the host's environment in its place."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list) else value
