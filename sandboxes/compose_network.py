"""The network of one run: closed but for its members, in a small subnet that nobody else has."""

import random
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from fbench.engine.errors import SandboxFailed
from fbench.engine.logs import get_logger

if TYPE_CHECKING:
    from aiodocker import Docker

POOLS = (IPv4Network("10.0.0.0/8"), IPv4Network("172.16.0.0/12"), IPv4Network("192.168.0.0/16"))
"""Private addresses. The engine's own choice is out of networks after about 30; these hold a million small ones."""
SPARE_ADDRESSES = 8
"""Beside the services: the network's own two and the gateway, the agent's container and those that judge."""
MOST_TRIES = 30
"""Of subnets. With 1,000 networks on the engine a random one is taken with a chance of one in a thousand."""
CREATE_PATIENCE_S = 30.0
REMOVE_GRACE_S = 20.0
FORBIDDEN, NOT_FOUND, CONFLICT = 403, 404, 409
ROUTES_FILE = Path("/proc/net/route")

log = get_logger(__name__)


@asynccontextmanager
async def open_network(
    docker: "Docker", name: str, *, labels: Mapping[str, str], is_internal: bool, members: int
) -> AsyncIterator[str]:
    """A new bridge of that name, removed on exit with whoever is still connected to it cut off; gives the name.

    Args:
        is_internal: members reach each other and nobody else, not even this host through the bridge; else a bridge
            like any other.
        members: how many services will be in it.

    Raises:
        SandboxFailed: the engine makes none.
    """
    try:
        try:
            with anyio.fail_after(CREATE_PATIENCE_S, shield=True):  # a creation cut off is carried out all the same
                await _create(docker, name, labels=labels, is_internal=is_internal, members=members)
        except TimeoutError as error:
            msg = f"the Docker engine did not make a network within {CREATE_PATIENCE_S:.0f} s; look at its log"
            raise SandboxFailed(msg) from error
        yield name
    finally:
        with anyio.move_on_after(REMOVE_GRACE_S, shield=True) as grace:
            await remove_network(docker, name)
        if grace.cancelled_caught:
            log.error("network.remove_timed_out", network=name, grace_s=REMOVE_GRACE_S)


async def remove_network(docker: "Docker", name: str) -> bool:
    """Remove a network, its members cut off first; whether it is gone. What stands in the way is logged."""
    from aiodocker import DockerError  # noqa: PLC0415 - heavy, and for containers only

    try:
        network = await docker.networks.get(name)
        details = await network.show()
        for member in details.get("Containers") or {}:
            await network.disconnect({"Container": member, "Force": True})
        await network.delete()
    except DockerError as error:
        if error.status == NOT_FOUND:
            return True
        log.warning("network.not_removed", network=name, error=error.message)
        return False
    return True


def subnet_prefix(members: int) -> int:
    """The length of the prefix of the smallest subnet for so many services: 28 for up to 8."""
    return min(28, 32 - (members + SPARE_ADDRESSES - 1).bit_length())


def random_subnets(prefix: int, taken: tuple[IPv4Network, ...]) -> Iterator[IPv4Network]:
    """Subnets at random, without end, none of which overlaps one that is taken (but when all private ones are)."""
    pools = [pool for pool in POOLS if not any(pool.subnet_of(other) for other in taken)] or list(POOLS)
    tries = 0
    while True:
        pool = random.choice(pools)  # noqa: S311 - no secret
        count = 2 ** (prefix - pool.prefixlen)
        step = 2 ** (32 - prefix)
        subnet = IPv4Network((int(pool.network_address) + random.randrange(count) * step, prefix))  # noqa: S311
        tries += 1
        if tries > MOST_TRIES * 10 or not any(subnet.overlaps(other) for other in taken):
            tries = 0
            yield subnet


def host_routes(file: Path = ROUTES_FILE) -> tuple[IPv4Network, ...]:
    """Where this machine has routes to, so that a new bridge takes no address from a network that is in use."""
    found = []
    try:
        lines = file.read_text(encoding="ascii").splitlines()[1:]
        for line in lines:
            fields = line.split()
            address, mask = (int.from_bytes(bytes.fromhex(fields[place]), "little") for place in (1, 7))
            if mask:
                found.append(IPv4Network((address, mask.bit_count()), strict=False))
    except (OSError, ValueError, IndexError):
        return ()  # no Linux, or none of our business: the engine refuses what overlaps its own
    return tuple(found)


async def _create(docker: "Docker", name: str, *, labels: Mapping[str, str], is_internal: bool, members: int) -> None:
    from aiodocker import DockerError  # noqa: PLC0415 - heavy, and for containers only

    refused = ""
    subnets = random_subnets(subnet_prefix(members), host_routes())
    for _ in range(MOST_TRIES):
        subnet = str(next(subnets))
        try:
            await docker.networks.create(_config(name, subnet, labels=labels, is_internal=is_internal))
        except DockerError as error:
            refused = error.message
            if error.status not in {FORBIDDEN, CONFLICT} or "overlap" not in refused.lower():
                break
        else:
            return
    msg = f"the Docker engine makes no network: {refused}; `fbench clean` removes those that dead runs left"
    raise SandboxFailed(msg)


def _config(name: str, subnet: str, *, labels: Mapping[str, str], is_internal: bool) -> dict[str, Any]:
    # A bridge without an address of the host: what listens on this machine cannot be reached through the gateway.
    closed = {"com.docker.network.bridge.inhibit_ipv4": "true"} if is_internal else {}
    return {
        "Name": name,
        "Driver": "bridge",
        "Internal": is_internal,
        "CheckDuplicate": True,
        "Labels": dict(labels),
        "IPAM": {"Driver": "default", "Config": [{"Subnet": subnet}]},
        "Options": closed,
    }
