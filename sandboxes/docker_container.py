"""One container of the engine: what it is made of, and its life from create to removal."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

import anyio
import anyio.lowlevel

from fbench.engine.errors import SandboxFailed
from fbench.engine.logs import get_logger
from fbench.engine.seams import Limits
from fbench.sandboxes.docker_engine import CONFLICT, NO_SUCH, REQUEST_PATIENCE_S, ContainerHost, status_of
from fbench.sandboxes.docker_ownership import Account
from fbench.sandboxes.docker_sweep import delete_at

REMOVE_PATIENCE_S = 30.0
"""How long removing a container may take; seen are 0.1 s."""
REMOVE_PAUSE_S = 0.02
SHARED_MEMORY_BYTES = 256 * 1024**2
"""Size of /dev/shm where no memory limit is given; with one, it is at most half of that."""
OWN_PIDS = 8
"""Processes that are ours and no command's."""
TMPFS_BYTES = {"/run": 16 * 1024**2, "/var/tmp": 256 * 1024**2}  # noqa: S108 - inside the container
"""Where programs expect to write besides home, /tmp and the workspace, and how much at most; with a memory limit no
more than an eighth of it each. What lies there counts as memory, of which the command that deletes it needs some."""

log = get_logger(__name__)


class ContainerNotStarted(SandboxFailed):
    """The engine made the container, and its first process did not come up or ended at once."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image the engine has: its content id, the variables it brings, and the folders it calls volumes."""

    id: str
    env: Mapping[str, str]
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bind:
    """A host path shown inside."""

    source: Path
    target: str
    is_read_only: bool = False


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """What a container is made of.

    Attributes:
        account: whom its first process runs as.
        user: whom its commands run as.
        labels: besides them it carries nothing that could be found again.
        network: a network's name, or `none`.
        has_outside: whether the network leads out; else only names of its own are asked for anywhere.
        init: whether the engine's init is its first process.
        tmpfs: places with a file system in memory besides those of every container, and its options.
        volumes: volumes to make, by their names, at places that the image calls volumes; with what the image has there,
            and read-only like the rest of it. The engine's own could be written, on its disk and without a bound.
    """

    image: str
    command: Sequence[str]
    account: Account
    user: Account
    env: Mapping[str, str]
    labels: Mapping[str, str]
    binds: Sequence[Bind]
    limits: Limits
    network: str
    has_outside: bool
    init: bool
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)

    def config(self) -> dict[str, Any]:
        """As the engine's API takes it."""
        limits = self.limits
        shared = min(SHARED_MEMORY_BYTES, (limits.memory_bytes or 2 * SHARED_MEMORY_BYTES) // 2)
        ulimits = [{"Name": "core", "Soft": 0, "Hard": 0}]
        if limits.disk_bytes is not None:
            ulimits.append({"Name": "fsize", "Soft": limits.disk_bytes, "Hard": limits.disk_bytes})
        uid, gid = self.user
        # By its owner: the engine gives it the mode of the image's folder of that name, whatever is asked for.
        most = limits.memory_bytes // 8 if limits.memory_bytes is not None else max(TMPFS_BYTES.values())
        own_tmpfs = {
            place: f"rw,nosuid,nodev,size={min(size, most)},uid={uid},gid={gid}" for place, size in TMPFS_BYTES.items()
        }
        host: dict[str, Any] = {
            "Init": self.init,
            "AutoRemove": True,
            "NetworkMode": self.network,
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "IpcMode": "private",
            "ShmSize": shared,
            "LogConfig": {"Type": "none", "Config": {}},
            "Tmpfs": {**own_tmpfs, **self.tmpfs},
            "Ulimits": ulimits,
            "Mounts": [
                {"Type": "bind", "Source": str(bind.source), "Target": bind.target, "ReadOnly": bind.is_read_only}
                for bind in self.binds
            ]
            + [
                {
                    "Type": "volume",
                    "Source": name,
                    "Target": place,
                    "ReadOnly": True,
                    "VolumeOptions": {"Labels": dict(self.labels)},
                }
                for name, place in self.volumes.items()
            ],
        }
        if not self.has_outside:
            # The engine's own name service asks the host's for every name it does not know, on a closed network too.
            # Nobody answers at the address that is put in its place; programs would wait 10 s for it by default.
            host |= {"Dns": ["127.0.0.1"], "DnsSearch": ["."], "DnsOptions": ["timeout:1", "attempts:2"]}
        if limits.memory_bytes is not None:
            host["Memory"] = host["MemorySwap"] = limits.memory_bytes
        if limits.cpus is not None:
            host["NanoCpus"] = int(limits.cpus * 1e9)
        if limits.pids is not None:
            host["PidsLimit"] = limits.pids + OWN_PIDS
        return {
            "Image": self.image,
            "Entrypoint": [],
            "Cmd": list(self.command),
            "User": f"{self.account.uid}:{self.account.gid}",
            "WorkingDir": "/",
            "Hostname": "fbench",
            "Env": [f"{name}={value}" for name, value in self.env.items()],
            "Labels": dict(self.labels),
            "Healthcheck": {"Test": ["NONE"]},
            "StopSignal": "SIGKILL",
            "HostConfig": host,
        }


@dataclass(frozen=True, slots=True)
class Container:
    """A container that runs.

    Attributes:
        pid: its first process as the engine's machine counts.
        groups: controller -> its control group's folder on this machine; empty where the engine is another machine's.
    """

    host: ContainerHost
    name: str
    id: str
    pid: int
    groups: Mapping[str, Path]

    @property
    def is_local(self) -> bool:
        """Whether its processes are processes of this machine."""
        return bool(self.groups)

    async def is_running(self) -> bool:
        """Whether it still runs. Raises SandboxFailed when the engine does not say."""
        with self.host.errors("did not say how a container is"), anyio.fail_after(REQUEST_PATIENCE_S):
            try:
                facts = await self.host.client.containers.container(self.id).show()
            except Exception as error:
                if status_of(error) == NO_SUCH:
                    return False
                raise
        return bool(facts["State"]["Running"])


def container_name(run_id: str) -> str:
    """A name nothing else has, from which the run can be told."""
    return f"fbench-{re.sub(r'[^a-zA-Z0-9_.-]', '-', run_id)[:80]}-{uuid4().hex[:12]}"


async def inspect_image(host: ContainerHost, name: str) -> Image:
    """What the engine knows of an image. Raises SandboxFailed when it has none of that name."""
    with host.errors(f"could not describe the image {name!r}"), anyio.fail_after(REQUEST_PATIENCE_S):
        try:
            facts = await host.client.images.inspect(name)
        except Exception as error:
            if status_of(error) == NO_SUCH:
                msg = f"the Docker engine has no image {name!r}: `docker pull {name}`, or map it with --image-map"
                raise SandboxFailed(msg) from error
            raise
    config = facts.get("Config") or {}
    pairs = (text.partition("=") for text in config.get("Env") or ())
    volumes = tuple(str(PurePosixPath(place)) for place in config.get("Volumes") or ())
    return Image(facts["Id"], {key: value for key, _, value in pairs}, volumes)


@asynccontextmanager
async def running_container(host: ContainerHost, plan: ContainerPlan, name: str) -> AsyncIterator[Container]:
    """A container that was started; gone at the end, whatever became of it. Raises SandboxFailed."""
    try:
        yield await _start(host, plan, name)
    finally:
        await remove_container(host, name)
        for volume in plan.volumes:
            await _remove_volume(host, volume)


async def _start(host: ContainerHost, plan: ContainerPlan, name: str) -> Container:
    client = host.client
    with (
        host.errors(f"could not make the container {name}"),
        # A request that is cut off is carried out all the same, and sometimes only after the removal that follows.
        anyio.fail_after(REQUEST_PATIENCE_S, shield=True),
    ):
        made = await client.containers.create(plan.config(), name=name)
    await anyio.lowlevel.checkpoint()
    try:
        with host.errors(f"could not start the container {name}"), anyio.fail_after(REQUEST_PATIENCE_S):
            await made.start()
    except SandboxFailed as error:
        raise ContainerNotStarted(str(error)) from error
    with host.errors(f"did not say how the container {name} is"), anyio.fail_after(REQUEST_PATIENCE_S):
        try:
            state = (await made.show())["State"]
        except Exception as error:
            if status_of(error) == NO_SUCH:
                raise ContainerNotStarted(_ended(name)) from error
            raise
    if not state["Running"]:
        raise ContainerNotStarted(_ended(name))
    return Container(host, name, made.id, state["Pid"], _groups_of(host, made.id, state["Pid"]))


async def remove_container(host: ContainerHost, name: str) -> bool:
    """Remove a container, running or not, and wait until it is gone; whether it is. Shielded and bounded."""
    trouble: BaseException | None = None
    with anyio.move_on_after(REMOVE_PATIENCE_S, shield=True):
        while True:
            try:
                await host.client.containers.container(name).delete(force=True, v=True)
            except Exception as error:  # noqa: BLE001 - the engine may be gone; that must not hide how the run went
                if status_of(error) == NO_SUCH:
                    return True
                trouble = error
                if status_of(error) != CONFLICT:  # a conflict: it is being removed already, by itself
                    break
                await anyio.sleep(REMOVE_PAUSE_S)
            else:
                return True
    log.error("container.not_removed", container=name, why=str(trouble or f"not within {REMOVE_PATIENCE_S} s"))
    return False


async def _remove_volume(host: ContainerHost, name: str) -> None:
    """Remove a volume of a container that is gone. Shielded and bounded; what stays is left to the sweep."""
    with anyio.move_on_after(REQUEST_PATIENCE_S, shield=True):
        try:
            await delete_at(host.client, f"volumes/{name}")
        except Exception as error:  # noqa: BLE001 - as in `remove_container`
            if status_of(error) != NO_SUCH:
                log.warning("volume.not_removed", volume=name, why=str(error))


def _ended(name: str) -> str:
    return f"the container {name} ended as soon as it was started: try its image with `docker run`"


def _groups_of(host: ContainerHost, id_: str, pid: int) -> dict[str, Path]:
    """The container's control groups, when `pid` is a process of this machine and of that container."""
    found: dict[str, Path] = {}
    if host.address.socket is None:
        return found
    root = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if id_ not in path:
                continue
            if controllers == "":
                folder = root / path.lstrip("/")
                names = ["memory", "pids", "all"] if (folder / "cgroup.procs").exists() else []
            else:
                folder = root / controllers / path.lstrip("/")
                names = [*controllers.split(","), "all"] if (folder / "cgroup.procs").exists() else []
            for name in names:
                found.setdefault(name, folder)
    return found
