"""The `docker` sandbox: one container a sandbox on the engine that DOCKER_HOST or the docker context names.

Its files are those of the run: the workspace, home and /tmp are host folders (so that a grading sandbox can have the
agent's home, and the disk limit sees them), everything else is read-only or in memory. Commands are started by the
supervisor of the other sandboxes, as the container's first process, or, where that cannot be, through the engine.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from uuid import uuid4

import anyio
import anyio.to_thread

from fbench.engine.errors import SandboxFailed
from fbench.engine.logs import get_logger
from fbench.engine.records.copying import copy_tree
from fbench.engine.seams import Capabilities, ExecRequest, Limits, OpenSandbox, Sandbox, SandboxSpec, SiteSpec
from fbench.sandboxes.docker_container import (
    TMPFS_BYTES,
    Bind,
    ContainerNotStarted,
    ContainerPlan,
    Image,
    container_name,
    inspect_image,
    running_container,
)
from fbench.sandboxes.docker_engine import ContainerHost, open_container_host
from fbench.sandboxes.docker_link import COMMAND as SUPERVISOR_COMMAND
from fbench.sandboxes.docker_link import PLACE, ContainerGroups, Listener, SupervisorAbsent
from fbench.sandboxes.docker_ownership import (
    Account,
    container_account,
    give_tree,
    is_readable_by_all,
    own_account,
)
from fbench.sandboxes.docker_plain import COMMAND as PLAIN_COMMAND
from fbench.sandboxes.docker_plain import open_plain
from fbench.sandboxes.docker_sweep import labels_of, sweep_at_start
from fbench.sandboxes.image_store import resolve_image
from fbench.sandboxes.limits import Enforcement
from fbench.sandboxes.supervised import Begun, Surroundings, open_supervised
from fbench.sandboxes.surroundings import (
    SYSTEM_PATH,
    USER,
    base_environment,
    check_folders,
    make_scratch,
    real,
    split_workdir,
)
from fbench.sandboxes.visible import covered
from fbench.sandboxes.watching import DiskWatch

HOME, TMP = "/home/agent", "/tmp"  # noqa: S108 - the container's own, folders of the run on the host
TAKEN = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "sys", "usr", PLACE[1:])
"""First parts of paths at which no workspace can appear."""
GIVE_BACK_PATIENCE_S = 60.0
COVER = "ro,nosuid,nodev,noexec,mode=0555,size=4k"

log = get_logger(__name__)

_without_supervisor: set[tuple[str, str]] = set()
"""Engines and images, by address and id, whose containers had no supervisor and worked without: not tried again."""


@asynccontextmanager
async def open_site(spec: SiteSpec) -> AsyncIterator[OpenSandbox]:
    """The engine at hand and the image there, built first if need be. Raises SandboxFailed, UsageError."""
    if spec.environment.needs_compose:
        msg = "the docker sandbox has neither services nor a network, and the task asks for them: use Compose"
        raise SandboxFailed(msg)
    async with open_container_host() as host:
        await sweep_at_start(host.client, host.address.url)
        image = await resolve_image(host.client, spec.environment, spec.task_folder, spec.image_map)

        def open_sandbox(sandbox: SandboxSpec) -> AbstractAsyncContextManager[Sandbox]:
            return open_container_sandbox(host, sandbox, image=image.id, owner=spec.owner)

        yield open_sandbox


@asynccontextmanager
async def open_container_sandbox(
    host: ContainerHost,
    spec: SandboxSpec,
    *,
    image: str,
    owner: str,
    network: str | None = None,
    network_limit: str = "namespace",
    kind: str = "docker",
    has_supervisor: bool = True,
) -> AsyncIterator[Sandbox]:
    """A sandbox in a container of its own, which is gone on exit.

    Args:
        host: the engine.
        spec: workspace, limits, environment.
        image: name or id of an image the engine has.
        owner: `host:pid:start` of this process, for the label.
        network: the name of the network it is on; None for no network.
        network_limit: what its capabilities say of the network, "" where it is open.
        kind: what the sandbox calls itself.
        has_supervisor: whether to try a supervisor as the first process, which makes commands start ten times faster.

    Raises:
        SandboxFailed: it could not be made ready; nothing is left of it.
    """
    check_folders(spec)
    make_scratch(spec.scratch)
    facts = await inspect_image(host, image)
    making = _Making(host, spec, facts, owner, network, network_limit, kind, container_account())
    making.check_place()
    async with _given(spec, making.account), AsyncExitStack() as stack:
        key = (host.address.url, facts.id)
        sandbox: Sandbox | None = None
        if has_supervisor and host.address.socket is not None and key not in _without_supervisor:
            try:
                sandbox = await stack.enter_async_context(making.supervised())
            except (ContainerNotStarted, SupervisorAbsent) as error:
                log.warning("sandbox.without_supervisor", image=image, run_id=spec.run_id, why=str(error))
        if sandbox is None:
            sandbox = await stack.enter_async_context(making.plain())
            if has_supervisor:
                _without_supervisor.add(key)
        await making.make_workdir(sandbox)
        yield sandbox


@dataclass(frozen=True, slots=True)
class _Making:
    """What both ways of opening a container share."""

    host: ContainerHost
    spec: SandboxSpec
    image: Image
    owner: str
    network: str | None
    network_limit: str
    kind: str
    account: Account

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[Sandbox]:
        """A container whose first process is the supervisor."""
        folder = self._control_folder()
        listener = Listener(folder)
        try:
            plan = await self._plan(folder, SUPERVISOR_COMMAND, self.account, init=False)
            async with running_container(self.host, plan, container_name(self.spec.run_id)) as container:
                link = await listener.accept(container)
                listener.close()
                surroundings = self._surroundings()
                how = surroundings.capabilities.limits
                found = Enforcement(ContainerGroups(container.groups), {}, frozenset(), how)

                async def begin() -> Begun:
                    return Begun(link, found)

                async with open_supervised(surroundings, begin, self._watch()) as sandbox:
                    await sandbox.begin()
                    yield sandbox
        finally:
            listener.close()

    @asynccontextmanager
    async def plain(self) -> AsyncIterator[Sandbox]:
        """A container whose commands the engine starts."""
        folder = self._control_folder()
        folder.mkdir(mode=0o755, parents=True)
        folder.chmod(0o755)
        plan = await self._plan(folder, PLAIN_COMMAND, Account(0, 0), init=True)
        async with (
            running_container(self.host, plan, container_name(self.spec.run_id)) as container,
            open_plain(self._surroundings(), container, self.account, folder, self._watch()) as sandbox,
        ):
            yield sandbox

    def check_place(self) -> None:
        """Raises SandboxFailed for a workspace on top of what programs need, or one with a hole in it."""
        workspace = split_workdir(self.spec.workdir)[0]
        parts = PurePosixPath(workspace).parts
        if len(parts) < 2 or parts[1] in TAKEN or workspace in {TMP, HOME, "/home", "/run", "/var"}:  # noqa: PLR2004 - the root and a name
            msg = (
                f"the workspace cannot appear at {workspace} in a container, where programs or its own files are: set "
                f"`environment.workdir` to /workspace"
            )
            raise SandboxFailed(msg)
        for place in self.image.volumes:
            if PurePosixPath(workspace) in PurePosixPath(place).parents:
                msg = (
                    f"the image declares the volume {place}, which would keep a part of the workspace from being "
                    f"judged: build it without that VOLUME"
                )
                raise SandboxFailed(msg)

    async def make_workdir(self, sandbox: Sandbox) -> None:
        """Make a workdir that lies below the workspace, from inside, where links lead nowhere but inside."""
        workspace, below = split_workdir(self.spec.workdir)
        if not below:
            return
        request = ExecRequest(("mkdir", "-p", "--", f"{workspace}/{below}"), cwd=workspace)
        async with sandbox.exec(request) as running:
            said = b"".join([chunk.data async for chunk in running])
            outcome = await running.wait()
        if outcome.exit_code != 0:
            why = outcome.reason or said.decode(errors="replace")
            msg = f"the workdir {workspace}/{below} could not be made: {why}"
            raise SandboxFailed(msg)

    def _surroundings(self) -> Surroundings:
        spec = self.spec
        workspace, below = split_workdir(spec.workdir)
        mounts = {mount.name: f"/{mount.name}" for mount in spec.mounts}
        env = {
            **self.image.env,
            **base_environment(spec, path=[], home=HOME, tmp=TMP, workspace=workspace, mounts=mounts),
        }
        env["PATH"] = spec.env.get("PATH") or self.image.env.get("PATH") or SYSTEM_PATH
        return Surroundings(
            kind=self.kind,
            workspace=workspace,
            workdir=f"{workspace}/{below}" if below else workspace,
            env=env,
            capabilities=capabilities_of(self.host.info, spec.limits, self.network_limit),
        )

    async def _plan(self, folder: Path, command: tuple[str, ...], account: Account, *, init: bool) -> ContainerPlan:
        spec = self.spec
        workspace = split_workdir(spec.workdir)[0]
        binds = [
            Bind(Path(real(spec.scratch / "home")), HOME),
            Bind(Path(real(spec.scratch / "tmp")), TMP),
            Bind(Path(real(spec.workspace)), workspace),
            Bind(Path(real(folder)), PLACE, is_read_only=True),
        ]
        for name, text in _accounts(self.account).items():
            file = spec.scratch / "state" / "etc" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            file.chmod(0o644)
            binds.append(Bind(Path(real(file)), f"/etc/{name}", is_read_only=True))
        for mount in spec.mounts:
            source = mount.source
            if os.geteuid() == 0 and not await anyio.to_thread.run_sync(is_readable_by_all, source):
                source = spec.scratch / "state" / "mounts" / f"{mount.name}-{uuid4().hex[:8]}"
                await anyio.to_thread.run_sync(_copy_for, mount.source, source, self.account)
            binds.append(Bind(Path(real(source)), f"/{mount.name}", is_read_only=True))
        tmpfs: dict[str, str] = {}
        shown = [(mount.source, f"/{mount.name}") for mount in spec.mounts]  # what is hidden stands in its copy too
        for place, is_folder in covered(spec.hidden, [*shown, *((bind.source, bind.target) for bind in binds)]):
            if is_folder:
                tmpfs[place] = COVER
            else:
                binds.append(Bind(Path(os.devnull), place, is_read_only=True))
        return ContainerPlan(
            image=self.image.id,
            command=command,
            account=account,
            user=self.account,
            env={"PATH": self.image.env.get("PATH") or SYSTEM_PATH},
            labels=labels_of(spec.run_id, self.owner),
            binds=binds,
            limits=spec.limits,
            network=self.network or "none",
            has_outside=not self.network_limit,
            init=init,
            tmpfs=tmpfs,
            volumes={
                f"fbench-{uuid4().hex}": place
                for place in self.image.volumes
                if place not in {*TMPFS_BYTES, *(bind.target for bind in binds)}
            },
        )

    def _control_folder(self) -> Path:
        return self.spec.scratch / "state" / f"control-{uuid4().hex[:12]}"

    def _watch(self) -> DiskWatch:
        return DiskWatch((self.spec.workspace, self.spec.scratch), self.spec.limits.disk_bytes)


def capabilities_of(info: Mapping[str, object], limits: Limits, network_limit: str) -> Capabilities:
    """What an engine that says `info` of itself enforces of `limits`."""
    how = dict.fromkeys(("cpus", "memory", "pids", "disk"), "")
    if limits.cpus is not None and info.get("CpuCfsQuota"):
        how["cpus"] = "cgroup"
    if limits.memory_bytes is not None and info.get("MemoryLimit"):
        how["memory"] = "cgroup"
    if limits.pids is not None and info.get("PidsLimit"):
        how["pids"] = "cgroup"
    if limits.disk_bytes is not None:
        how["disk"] = "watched"
    return Capabilities(isolated=True, limits={**how, "network": network_limit})


@asynccontextmanager
async def _given(spec: SandboxSpec, account: Account) -> AsyncIterator[None]:
    """The workspace, home and /tmp in the hands of the container's user; given back at the end."""
    trees = (spec.workspace, spec.scratch / "home", spec.scratch / "tmp")

    async def give(to: Account) -> None:
        for tree in trees:
            await anyio.to_thread.run_sync(give_tree, tree, to)

    try:
        try:
            await give(account)
        except OSError as error:
            msg = f"the workspace cannot be given to the container's user: {error}; use a TMPDIR that allows chown"
            raise SandboxFailed(msg) from error
        yield
    finally:
        with anyio.move_on_after(GIVE_BACK_PATIENCE_S, shield=True) as grace:
            try:
                await give(own_account())
            except OSError as error:
                log.warning("workspace.not_given_back", workspace=str(spec.workspace), why=str(error))
        if grace.cancelled_caught:
            log.error("workspace.give_back_timed_out", workspace=str(spec.workspace), grace_s=GIVE_BACK_PATIENCE_S)


def _accounts(account: Account) -> dict[str, str]:
    """The files that give the commands' user a name and a home."""
    uid, gid = account
    return {
        "passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\n"
        f"{USER}:x:{uid}:{gid}:{USER}:{HOME}:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        "group": f"root:x:0:\n{USER}:x:{gid}:\nnogroup:x:65534:\n",
    }


def _copy_for(source: Path, target: Path, account: Account) -> None:
    """A copy that only `account` reads, of what was closed to it. Blocking."""
    target.parent.mkdir(parents=True, exist_ok=True)
    copy_tree(source, target)
    give_tree(target, account)
