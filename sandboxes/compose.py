"""The `compose` sandbox: containers of their own beside the task's services, which they reach by name and nothing else.

A site is one network and one Compose project. Compose starts the services and takes them down; the agent's container
and those that judge come and go on the same network (see `fbench.sandboxes.docker`), and the services keep their data
from one to the next.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import anyio

from fbench.engine.errors import SandboxFailed
from fbench.engine.logs import get_logger
from fbench.sandboxes.compose_client import ComposeCallFailed, ComposeClient
from fbench.sandboxes.compose_network import open_network
from fbench.sandboxes.compose_project import patience_s, write_project
from fbench.sandboxes.compose_trouble import PROJECT_LABEL, explain_failure
from fbench.sandboxes.docker import open_container_sandbox
from fbench.sandboxes.docker_engine import ContainerHost, engine_errors, open_container_host
from fbench.sandboxes.docker_sweep import labels_of, sweep_at_start, sweep_docker

if TYPE_CHECKING:
    from fbench.engine.seams import OpenSandbox, Sandbox, SandboxSpec, SiteSpec
    from fbench.sandboxes.image_store import NeedsImage

DOWN_GRACE_S = 45.0
"""For taking down: 0.5 s on an idle machine; what takes longer is left to `fbench clean`."""
SETTLE_S = 0.5
"""After a start that was cut short: a container takes the engine 0.05 to 0.3 s to create."""

log = get_logger(__name__)


@asynccontextmanager
async def open_site(spec: "SiteSpec") -> "AsyncIterator[OpenSandbox]":
    """The task's network, its services up and healthy; gives what opens containers beside them.

    Raises:
        SandboxFailed: the engine, an image, the network or a service is not as the task needs it.
    """
    environment = spec.environment
    is_internal = not environment.network.allow
    labels = labels_of(spec.run_id, spec.owner)
    project = f"fbench-{uuid4().hex[:16]}"
    async with open_container_host() as host:
        await sweep_at_start(host.client, host.address.url)
        images = await _resolve_images(host, spec)
        async with (
            open_network(
                host.client, project, labels=labels, is_internal=is_internal, members=len(environment.services)
            ) as network,
            _open_services(host, spec, project=project, network=network, images=images, labels=labels),
        ):

            def open_sandbox(sandbox: "SandboxSpec") -> "AbstractAsyncContextManager[Sandbox]":
                return open_container_sandbox(
                    host,
                    sandbox,
                    image=images[""],
                    owner=spec.owner,
                    network=network,
                    network_limit="namespace" if is_internal else "",
                    kind="compose",
                )

            yield open_sandbox


async def _resolve_images(host: ContainerHost, spec: "SiteSpec") -> dict[str, str]:
    """The images of the services by their names, and that of the sandboxes under the empty name."""
    from fbench.sandboxes.image_store import resolve_image  # noqa: PLC0415 - late: it loads what builds

    needs: dict[str, NeedsImage] = {"": spec.environment, **spec.environment.services}
    return {
        name: (await resolve_image(host.client, need, spec.task_folder, spec.image_map)).id
        for name, need in needs.items()
    }


@asynccontextmanager
async def _open_services(
    host: ContainerHost,
    spec: "SiteSpec",
    *,
    project: str,
    network: str,
    images: Mapping[str, str],
    labels: Mapping[str, str],
) -> AsyncIterator[None]:
    """The project's services up and healthy; gone on exit, however far they came."""
    services = spec.environment.services
    if not services:
        yield
        return
    folder = spec.scratch
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = write_project(
            folder,
            name=project,
            services=services,
            images=images,
            network=network,
            labels=labels,
            task_folder=spec.task_folder,
            is_internal=not spec.environment.network.allow,
        )
    except OSError as error:
        msg = f"the Compose project cannot be written to {folder}: {error.strerror or error}; check TMPDIR and the disk"
        raise SandboxFailed(msg) from error
    client = ComposeClient(host.address, project, file)
    was_cut = True
    try:
        try:
            await client.up(patience_s(services))
        except ComposeCallFailed as error:
            was_cut = error.is_broken
            raise await explain_failure(host, project, str(error)) from error
        was_cut = False
        yield
    finally:
        with anyio.move_on_after(DOWN_GRACE_S, shield=True) as grace:
            await _take_down(host, client, is_settled=not was_cut)
        if grace.cancelled_caught:
            log.error("services.down_timed_out", project=project, run_id=spec.run_id, grace_s=DOWN_GRACE_S)


async def _take_down(host: ContainerHost, client: ComposeClient, *, is_settled: bool) -> None:
    """Compose's own way, then a look at what it did not know of: after a start that was cut short the engine may
    still be making what it was last asked for."""
    try:
        await client.down()
    except ComposeCallFailed as error:
        log.warning("services.down_failed", project=client.project, error=str(error))
    if not is_settled:
        await anyio.sleep(SETTLE_S)
    try:
        with engine_errors(host.address, "did not remove the services"):
            await sweep_docker(host.client, lambda labels: labels.get(PROJECT_LABEL) == client.project)
    except SandboxFailed as error:
        log.warning("services.not_removed", project=client.project, error=str(error))
