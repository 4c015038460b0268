"""Removes what runs of dead owners left on this machine: containers, networks, volumes, scratch folders, groups."""

from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread

from fbench.engine.errors import SandboxFailed, UsageError
from fbench.engine.logs import get_logger
from fbench.engine.records.copying import remove_tree
from fbench.engine.scratch import is_dead, scratch_root
from fbench.sandboxes.cgroups import sweep_groups

log = get_logger(__name__)


@dataclass(slots=True)
class Cleaned:
    """What a sweep of everything did, in words.

    Attributes:
        removed: what is gone.
        stuck: what stayed, and why.
        not_asked: why the Docker engine was not swept; empty when it was, or when this machine has none.
    """

    removed: list[str] = field(default_factory=list)
    stuck: dict[str, str] = field(default_factory=dict)
    not_asked: str = ""


async def sweep_all() -> Cleaned:
    """Remove everything of dead owners. Containers go before the folders that are mounted in them."""
    cleaned = Cleaned()
    await _sweep_engine(cleaned)
    folders, stuck = await anyio.to_thread.run_sync(_sweep_folders, None)
    cleaned.removed += [str(path) for path in (*folders, *sweep_groups())]
    cleaned.stuck |= {str(path): why for path, why in stuck.items()}
    return cleaned


def dead_folders(root: Path | None = None) -> list[Path]:
    """Scratch folders whose owner is dead. `root` is where they lie, this user's if None. Reads only."""
    try:
        folders = sorted((root or scratch_root()).iterdir())
    except OSError:
        return []
    return [folder for folder in folders if is_dead(folder)]


def sweep_scratch(root: Path | None = None) -> list[Path]:
    """Remove the scratch folders and control groups of dead owners; gives those removed. Blocking."""
    removed, stuck = _sweep_folders(root)
    for folder, why in stuck.items():
        log.warning("scratch.not_removed", folder=str(folder), why=why)
    return [*removed, *sweep_groups()]


def _sweep_folders(root: Path | None) -> tuple[list[Path], dict[Path, str]]:
    """The dead folders that were removed, and those that were not, with the reason."""
    removed, stuck = [], {}
    for folder in dead_folders(root):
        if left := remove_tree(folder):
            stuck[folder] = left[0].why
        else:
            removed.append(folder)
    return removed, stuck


async def _sweep_engine(cleaned: Cleaned) -> None:
    from fbench.sandboxes.docker_engine import DEFAULT_ENGINE, find_engine, open_container_host  # noqa: PLC0415 - heavy
    from fbench.sandboxes.docker_sweep import sweep_docker  # noqa: PLC0415

    try:
        address = find_engine()
        if address.url == DEFAULT_ENGINE and address.socket is not None and not address.socket.exists():
            return  # no engine, and none was named
        async with open_container_host(address) as host:
            with host.errors("could not be swept"):
                swept = await sweep_docker(host.client)
    except (SandboxFailed, UsageError) as error:
        cleaned.not_asked = str(error)
        return
    cleaned.removed += [str(item) for item in swept.removed]
    cleaned.stuck |= {str(item): why for item, why in swept.stuck.items()}
