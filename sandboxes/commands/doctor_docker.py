"""What doctor asks the Docker engine: whether it answers, what it enforces, its images, leftovers; and Compose."""

import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from fbench.engine.errors import FbenchError, SandboxFailed
from fbench.sandboxes.commands.doctor_machine import Finding
from fbench.tasks.manifest import DEFAULT_IMAGE

if TYPE_CHECKING:
    from fbench.sandboxes.docker_engine import ContainerHost, EngineAddress

PATIENCE_S = 10.0
"""For all answers of one look: a local engine takes milliseconds."""

_ENFORCED = {"cpus": "CpuCfsQuota", "memory": "MemoryLimit", "pids": "PidsLimit"}
"""Limits by the names under which the engine's `info` says whether the kernel enforces them."""
_LEFTOVERS_SHOWN = 3


class _NotAsked(Exception):
    """There is no engine to ask; the item `docker` says why."""


async def look_at_docker(environ: Mapping[str, str]) -> Finding:
    """Whether the Docker engine answers."""
    from fbench.sandboxes.choose import ENGINE_HINT  # noqa: PLC0415 - late, as all of the sandboxes: help stays cheap

    address, fault = _find(environ)
    if address is None:
        return Finding(name="docker", status="fault", detail=fault, advice="`docker context ls` shows what there is")
    if not _may_exist(address):
        advice = f"{ENGINE_HINT}; tasks with services, and those that are `container_only`, need it"
        return Finding(
            name="docker", status="missing", detail=f"no engine: there is no {address.socket}", advice=advice
        )
    try:
        async with _open(address) as host:
            info = host.info
    except SandboxFailed as error:
        advice = "is the engine running? `docker info` says more"
        if address.socket is not None and address.socket.exists() and not os.access(address.socket, os.R_OK | os.W_OK):
            advice = "add yourself to the group that owns the socket (usually `docker`) and log in again"
        return Finding(name="docker", status="fault", detail=str(error), advice=advice)
    if "ServerVersion" not in info:
        detail = f"{address.url} (named by {address.source}) is no Docker engine"
        return Finding(name="docker", status="fault", detail=detail, advice="`docker context ls` shows what there is")
    detail = f"Docker Engine {info['ServerVersion']} at {address.url} (named by {address.source})"
    return Finding(name="docker", status="ok", detail=detail)


async def look_at_docker_limits(environ: Mapping[str, str]) -> Finding:
    """What the engine enforces of a sandbox's limits."""
    name = "docker limits"
    try:
        async with _ask(environ) as host:
            info = host.info
    except (_NotAsked, SandboxFailed) as error:
        return Finding(name=name, status="missing", detail=str(error))
    how = {limit: "cgroup" if info.get(key) else "" for limit, key in _ENFORCED.items()}
    how |= {"disk": "watched", "network": "namespace"}
    groups = (
        f"control groups version {info['CgroupVersion']}" if info.get("CgroupVersion") else "no control groups told"
    )
    detail = ", ".join(f"{limit}: {by or 'not enforced'}" for limit, by in how.items()) + f" ({groups})"
    without = [limit for limit, by in how.items() if not by]
    if not without:
        return Finding(name=name, status="ok", detail=detail, facts=how)
    advice = f"for {', '.join(without)}: give the engine the control groups' controllers; `docker info` warns of them"
    return Finding(name=name, status="missing", detail=detail, advice=advice, facts=how)


async def look_at_compose() -> Finding:
    """Whether `docker compose` is there."""
    from fbench.sandboxes.compose_client import INSTALL_HINT, ComposeCallFailed, compose_version  # noqa: PLC0415 - late

    advice = f"{INSTALL_HINT}; tasks with services need it"
    program = shutil.which("docker")
    if program is None:
        return Finding(name="compose", status="missing", detail="no `docker` in PATH", advice=advice)
    try:
        version = await compose_version(program)
    except ComposeCallFailed as error:
        if error.is_broken:
            return Finding(name="compose", status="fault", detail=str(error), advice=advice)
        return Finding(name="compose", status="missing", detail=str(error), advice="tasks with services need it")
    return Finding(name="compose", status="ok", detail=f"Docker Compose {version}")


async def look_at_images(environ: Mapping[str, str]) -> Finding:
    """Whether the image is there that tasks use unless they name another."""
    from fbench.sandboxes.image_store import find_image, missing_image  # noqa: PLC0415 - late

    try:
        async with _ask(environ) as host:
            found = await find_image(host.client, DEFAULT_IMAGE)
    except (_NotAsked, SandboxFailed) as error:
        return Finding(name="images", status="missing", detail=str(error))
    if found is None:
        return Finding(name="images", status="missing", detail=str(missing_image(DEFAULT_IMAGE)))
    return Finding(
        name="images", status="ok", detail=f"{found.name} is there ({found.id.removeprefix('sha256:')[:12]})"
    )


async def look_at_docker_leftovers(environ: Mapping[str, str]) -> Finding:
    """Containers, networks and volumes whose run is dead."""
    from fbench.sandboxes.docker_sweep import find_leftovers  # noqa: PLC0415 - late

    name = "docker leftovers"
    try:
        async with _ask(environ) as host:
            dead = await find_leftovers(host.client)
    except (_NotAsked, SandboxFailed) as error:
        return Finding(name=name, status="missing", detail=str(error))
    if not dead:
        return Finding(name=name, status="ok", detail="none")
    kinds = [item.kind for item in dead]
    counts = ", ".join(f"{kinds.count(kind)} {kind}s" for kind in dict.fromkeys(kinds))
    first = ", ".join(item.name for item in dead[:_LEFTOVERS_SHOWN])
    detail = f"{counts} of dead runs, as {first}"
    facts = {"leftovers": [str(item) for item in dead]}
    return Finding(name=name, status="ok", detail=detail, advice="`fbench clean` removes them", facts=facts)


def _find(environ: Mapping[str, str]) -> "tuple[EngineAddress | None, str]":
    """The engine's address, or why what is configured names none."""
    from fbench.sandboxes.docker_engine import find_engine  # noqa: PLC0415 - late

    try:
        return find_engine(environ), ""
    except (FbenchError, OSError, ValueError) as error:
        return None, f"the configured engine cannot be found: {error}"


def _may_exist(address: "EngineAddress") -> bool:
    """False for the default socket where there is none: nobody asked for an engine, and none is installed."""
    from fbench.sandboxes.docker_engine import DEFAULT_ENGINE  # noqa: PLC0415 - late

    return address.url != DEFAULT_ENGINE or address.socket is None or address.socket.exists()


@asynccontextmanager
async def _ask(environ: Mapping[str, str]) -> "AsyncIterator[ContainerHost]":
    """A client for a look that needs an engine. Raises _NotAsked, SandboxFailed."""
    address, _ = _find(environ)
    if address is None or not _may_exist(address):
        msg = "not asked: there is no engine (see docker)"
        raise _NotAsked(msg)
    try:
        async with _open(address) as host:
            yield host
    except SandboxFailed as error:
        msg = "not asked: the engine does not answer (see docker)"
        raise _NotAsked(msg) from error


@asynccontextmanager
async def _open(address: "EngineAddress") -> "AsyncIterator[ContainerHost]":
    from fbench.sandboxes.docker_engine import open_container_host  # noqa: PLC0415 - late

    try:
        async with open_container_host(address, patience_s=PATIENCE_S) as host:
            with host.errors("did not answer"), anyio.fail_after(PATIENCE_S):
                yield host
    except TypeError as error:  # the client's own, for an answer that is no JSON
        msg = f"{address.url} (named by {address.source}) is no Docker engine: {error}"
        raise SandboxFailed(msg) from error
