"""Removes what fbench processes that are dead left on the Docker engine: containers, networks, volumes.

Everything fbench makes there is labelled with its owner (`host:pid:start`). What has no such label, or one whose
owner lives or is of another host, is never touched.
"""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from fbench.engine.logs import get_logger
from fbench.engine.owner import Owner

if TYPE_CHECKING:
    from aiodocker import Docker

RUN_LABEL, OWNER_LABEL = "fbench.run", "fbench.owner"
SWEEP_PATIENCE_S = 120.0
"""For all of it: a slow engine removes some ten containers a second."""
START_PATIENCE_S = 20.0
"""For the sweep that a run begins with; the rest is left to the next one."""
LOOK_PATIENCE_S = 10.0
MOST_AT_ONCE = 16
SECOND_LOOK_S = 0.3
"""What an owner had asked the engine for when it died may come into being after the first look."""
ENOUGH_LOOKS, MOST_LOOKS = 2, 6
"""What cannot be removed is tried again: another sweep may be removing the container that holds a network."""
REST_S = 300.0
"""Between two sweeps of one process that a run's start sets off."""
PROC = Path("/proc/self/stat")
GONE, CONFLICT = 404, 409

log = get_logger(__name__)

_last_sweeps: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class Leftover:
    """A thing on the engine; `id` is what the engine takes, `name` what a reader knows."""

    kind: str
    id: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(slots=True)
class Swept:
    """What a sweep removed, and what stayed, each with the reason."""

    removed: list[Leftover] = field(default_factory=list)
    stuck: dict[Leftover, str] = field(default_factory=dict)


IsLeftover = Callable[[Mapping[str, str]], bool]


def labels_of(run_id: str, owner: str) -> dict[str, str]:
    """The labels of everything a run makes."""
    return {RUN_LABEL: run_id, OWNER_LABEL: owner}


def is_of_dead_owner(labels: Mapping[str, str]) -> bool:
    """Whether a thing with these labels is ours and its owner has died on this host. Where there is no /proc nobody can
    be told dead, and nothing is."""
    if not PROC.exists():
        return False
    owner = Owner.parse(labels.get(OWNER_LABEL, ""))
    return owner is not None and not owner.is_alive()


async def sweep_docker(docker: "Docker", is_leftover: IsLeftover = is_of_dead_owner) -> Swept:
    """Remove what dead owners left, or what `is_leftover` says, looking again until nothing more turns up."""
    swept = Swept()
    with anyio.move_on_after(SWEEP_PATIENCE_S) as patience:
        for look in range(MOST_LOOKS):
            found = await find_leftovers(docker, is_leftover)
            swept.stuck = {item: why for item, why in swept.stuck.items() if item in found}
            if not found or (look >= ENOUGH_LOOKS and len(swept.stuck) == len(found)):
                break
            await _remove_all(docker, found, swept)
            if look + 1 < MOST_LOOKS:
                await anyio.sleep(SECOND_LOOK_S)
    if patience.cancelled_caught:
        log.warning("docker.sweep_timed_out", patience_s=SWEEP_PATIENCE_S, removed=len(swept.removed))
    for item, why in swept.stuck.items():
        log.warning("leftover.not_removed", leftover=str(item), why=why)
    return swept


async def sweep_at_start(docker: "Docker", address: str) -> None:
    """The sweep that a run begins with: at most one in five minutes for an engine, and no error."""
    from aiodocker import DockerError  # noqa: PLC0415 - heavy, and for containers only
    from aiohttp import ClientError  # noqa: PLC0415

    now = time.monotonic()
    if now - _last_sweeps.get(address, -REST_S) < REST_S:
        return
    _last_sweeps[address] = now
    swept = Swept()
    try:
        with anyio.move_on_after(START_PATIENCE_S):
            swept = await sweep_docker(docker)
    except (DockerError, ClientError, OSError, ValueError, TypeError, LookupError) as error:  # as in `engine_errors`
        log.warning("docker.not_swept", error=str(error) or type(error).__name__)
        return
    if swept.removed:
        log.info("leftovers.removed", count=len(swept.removed))


async def find_leftovers(docker: "Docker", is_leftover: IsLeftover = is_of_dead_owner) -> list[Leftover]:
    """What there is of dead owners, in the order in which it can be removed. Reads only.

    Raises:
        DockerError, OSError, TimeoutError: the engine does not answer.
    """
    filters = {"label": [OWNER_LABEL]}
    with anyio.fail_after(LOOK_PATIENCE_S):
        # The bare answers, one request each: `containers.list` would ask for every container again.
        containers = await _ask(docker, "containers/json", filters, all="true")
        networks = await _ask(docker, "networks", filters)
        volumes = (await _ask(docker, "volumes", filters)).get("Volumes") or []
    found = [
        *_ours("container", containers, is_leftover, lambda item: (item["Id"], _name_of(item))),
        *_ours("network", networks, is_leftover, lambda item: (item["Id"], item["Name"])),
        *_ours("volume", volumes, is_leftover, lambda item: (item["Name"], item["Name"])),
    ]
    return list(found)


def _ours(
    kind: str, items: list[dict[str, Any]], is_leftover: IsLeftover, naming: Callable[[dict[str, Any]], tuple[str, str]]
) -> Iterator[Leftover]:
    for item in items:
        labels = item.get("Labels") or {}
        if OWNER_LABEL in labels and is_leftover(labels):
            yield Leftover(kind, *naming(item))


def _name_of(container: Mapping[str, Any]) -> str:
    names = container.get("Names") or [container["Id"][:12]]
    return str(names[0]).removeprefix("/")


async def _ask(docker: "Docker", path: str, filters: Mapping[str, Any], **more: str) -> Any:  # noqa: ANN401 - JSON
    from aiodocker.utils import clean_filters  # noqa: PLC0415 - see sweep_at_start

    return await docker._query_json(path, params={"filters": clean_filters(filters), **more})  # noqa: SLF001 - as its own lists do


async def _remove_all(docker: "Docker", found: list[Leftover], swept: Swept) -> None:
    """Containers first: a network or a volume that is in use cannot go."""
    limiter = anyio.CapacityLimiter(MOST_AT_ONCE)

    async def remove(item: Leftover) -> None:
        async with limiter:
            why = await _remove(docker, item)
        if why is None:
            swept.removed.append(item)
            swept.stuck.pop(item, None)
        else:
            swept.stuck[item] = why

    for kind in ("container", "network", "volume"):
        async with anyio.create_task_group() as group:
            for item in found:
                if item.kind == kind:
                    group.start_soon(remove, item)


async def _remove(docker: "Docker", item: Leftover) -> str | None:
    """None when it is gone, whoever removed it, else why not."""
    from aiodocker import DockerError  # noqa: PLC0415 - see sweep_at_start

    ways: dict[str, Callable[[], Awaitable[object]]] = {
        "container": lambda: docker.containers.container(item.id).delete(force=True, v=True),
        "network": lambda: _remove_network(docker, item),
        "volume": lambda: delete_at(docker, f"volumes/{item.id}", force="true"),
    }
    try:
        await ways[item.kind]()
    except DockerError as error:
        is_going = error.status == CONFLICT and "already in progress" in str(error.message)
        return None if error.status == GONE or is_going else str(error.message)
    except (OSError, TimeoutError) as error:
        return str(error)
    return None


async def _remove_network(docker: "Docker", item: Leftover) -> None:
    """A network whose members are none of ours keeps them and stays: the engine then says so."""
    await delete_at(docker, f"networks/{item.id}")


async def delete_at(docker: "Docker", path: str, **params: str) -> None:
    """One request to delete; the client's own ways ask for the thing first. Raises DockerError."""
    async with docker._query(path, method="DELETE", params=params):  # noqa: SLF001 - see above
        pass
