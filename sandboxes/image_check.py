"""Whether one of fbench's images works: its probe, run in a container as confined as an agent's."""

import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from fbench.engine.errors import SandboxFailed
from fbench.engine.logs import get_logger
from fbench.engine.owner import owner_identity
from fbench.sandboxes.image_catalog import OwnImage
from fbench.sandboxes.image_store import ImageRef

if TYPE_CHECKING:
    from aiodocker import Docker

CHECK_PATIENCE_S = 120.0
CREATE_PATIENCE_S = 60.0
REMOVE_GRACE_S = 30.0
MEMORY_BYTES = 1024**3
PIDS = 256
CHECK_RUN = "images-check"
"""Stands in the label `fbench.run` of a probe's container."""

log = get_logger(__name__)


class Finding(NamedTuple):
    """One thing looked at: what was found, or what is wrong."""

    name: str
    text: str
    is_fault: bool


async def check_image(
    docker: "Docker", image: OwnImage, found: ImageRef, *, patience_s: float = CHECK_PATIENCE_S
) -> list[Finding]:
    """What the image's probe found. Nothing remains on the engine, also when cancelled.

    Raises:
        SandboxFailed: the engine cannot run a container of it.
    """
    from aiodocker import DockerError  # noqa: PLC0415 - costs 0.3 s

    name = f"fbench-check-{uuid.uuid4().hex[:12]}"
    try:
        with anyio.fail_after(patience_s):
            output, exit_code = await _run_probe(docker, name, image, found)
    except TimeoutError:
        return [Finding("probe", f"did not end within {patience_s:.0f} s", is_fault=True)]
    except DockerError as error:
        msg = f"cannot run a container of {image.name}: {error.message}; see `docker run --rm {image.name} true`"
        raise SandboxFailed(msg) from error
    findings = [_finding(line) for line in output.splitlines() if "\t" in line]
    if exit_code != 0 or not findings:
        last = output.strip().splitlines()[-1:] or ["no output"]
        findings.append(Finding("probe", f"ended with {exit_code}: {last[0]}", is_fault=True))
    return findings


async def _run_probe(docker: "Docker", name: str, image: OwnImage, found: ImageRef) -> tuple[str, int]:
    """The output and exit code of the probe's container."""
    config = _container_config(image, found)
    try:
        with anyio.fail_after(CREATE_PATIENCE_S, shield=True):  # a cancelled create would leave its container
            await docker.containers.create(config, name=name)
        container = docker.containers.container(name)
        await container.start()
        exit_code = int((await container.wait())["StatusCode"])
        return "".join(await container.log(stdout=True, stderr=True)), exit_code
    finally:
        with anyio.move_on_after(REMOVE_GRACE_S, shield=True) as grace:
            await _remove(docker, name)
        if grace.cancelled_caught:
            log.error("image.check_not_removed", container=name, grace_s=REMOVE_GRACE_S)


async def _remove(docker: "Docker", name: str) -> None:
    from aiodocker import DockerError  # noqa: PLC0415

    try:
        await docker.containers.container(name).delete(force=True, v=True)
    except DockerError as error:
        if error.status != 404:  # noqa: PLR2004 - it never came to be
            log.error("image.check_not_removed", container=name, why=error.message)  # noqa: TRY400 - no fault of ours


def _container_config(image: OwnImage, found: ImageRef) -> dict[str, Any]:
    return {
        "Image": found.id,
        "Entrypoint": ["bash", "-c", image.probe],
        "Cmd": [],
        "User": image.user,
        "Env": ["HOME=/tmp", "POSTGRES_USER=tester", "POSTGRES_PASSWORD=check", "POSTGRES_DB=things"],
        "Labels": {"fbench.run": CHECK_RUN, "fbench.owner": owner_identity()},
        "HostConfig": {
            "NetworkMode": "none",
            "ReadonlyRootfs": image.is_read_only,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Init": True,
            "Memory": MEMORY_BYTES,
            "MemorySwap": MEMORY_BYTES,
            "PidsLimit": PIDS,
            "Tmpfs": {"/tmp": "mode=1777"},  # noqa: S108 - the container's
        },
    }


def _finding(line: str) -> Finding:
    name, _, text = line.partition("\t")
    return Finding(name.strip(), text.strip().removeprefix("!"), is_fault=text.strip().startswith("!"))
