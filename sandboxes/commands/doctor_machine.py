"""What doctor asks the machine itself: Python, sandboxes, limits, disk, extras, leftovers."""

import importlib
import importlib.util
import os
import platform
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread
from pydantic import Field

from fbench.engine.results import Record

LOW_DISK_BYTES = 1 << 30
"""Less free disk than this ends runs: a task's default cap is 5 GiB, and a few files more than a GiB are common."""

PATIENCE_S = 20.0
"""For one look at anything; a machine that takes longer is told to be broken."""

_GIB = 1 << 30


class Finding(Record):
    """One line of doctor. `missing` is not there and not needed by everybody; `fault` is there, but broken."""

    name: str
    status: Literal["ok", "missing", "fault"]
    detail: str
    advice: str = ""
    facts: dict[str, Any] = Field(default_factory=dict)


async def look_at_python() -> Finding:
    """The interpreter and fbench's own version."""
    detail = (
        f"{platform.python_implementation()} {platform.python_version()}, fbench {metadata.version('factory-bench')}"
    )
    return Finding(name="python", status="ok", detail=detail)


async def look_at_platform() -> Finding:
    """The system; bubblewrap and local need Linux."""
    detail = f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} processors"
    if platform.system() == "Linux":
        return Finding(name="platform", status="ok", detail=detail)
    advice = "the sandboxes bubblewrap and local need Linux: elsewhere use Docker"
    return Finding(name="platform", status="missing", detail=detail, advice=advice)


async def look_at_bubblewrap() -> Finding:
    """Whether the bubblewrap sandbox works here, found by trying."""
    try:
        probe = importlib.import_module("fbench.sandboxes.bubblewrap").probe
        with anyio.fail_after(PATIENCE_S):
            problem = await probe()
    except TimeoutError:
        problem = f"no answer within {PATIENCE_S:g} s"
    except (ImportError, AttributeError, OSError) as error:
        problem = f"it could not be tried: {error}"
    if problem is None:
        return Finding(name="bubblewrap", status="ok", detail="usable: agents run isolated")
    if shutil.which("bwrap") is None:
        advice = "install it, on Debian or Ubuntu: apt-get install bubblewrap; without it, real models need Docker"
        return Finding(name="bubblewrap", status="missing", detail="no `bwrap` in PATH", advice=advice)
    advice = "without a working one, real models need Docker"
    return Finding(name="bubblewrap", status="fault", detail=problem, advice=advice)


async def look_at_limits() -> Finding:
    """How a sandbox's limits are enforced here."""
    if platform.system() != "Linux":
        return Finding(name="limits", status="missing", detail="limits of sandboxes need Linux")
    has_namespaces = shutil.which("bwrap") is not None
    try:
        describe = importlib.import_module("fbench.sandboxes.limits").describe_enforcement
        with anyio.fail_after(PATIENCE_S):
            how: dict[str, str] = dict(await describe(own_user_namespace=has_namespaces))
    except TimeoutError:
        return Finding(name="limits", status="fault", detail=f"control groups did not answer within {PATIENCE_S:g} s")
    except (ImportError, AttributeError, OSError) as error:
        return Finding(name="limits", status="fault", detail=f"they could not be looked at: {error}")
    detail = ", ".join(f"{limit}: {by or 'not enforced'}" for limit, by in how.items())
    without = [limit for limit, by in how.items() if not by]
    if not without:
        return Finding(name="limits", status="ok", detail=detail, facts=how)
    advice = (
        f"for {', '.join(without)}: install bubblewrap (network), run as root or with a delegated control group, like "
        f"`systemd-run --user --scope -p Delegate=yes fbench ...`"
    )
    return Finding(name="limits", status="missing", detail=detail, advice=advice, facts=how)


async def look_at_disk(name: str, folder: Path) -> Finding:
    """Room and the right to write where `folder` is or would be made."""
    return await anyio.to_thread.run_sync(_disk, name, folder)


async def look_at_temporary_disk() -> Finding:
    """Room for the scratch folders of runs."""
    try:
        folder = Path(tempfile.gettempdir())
    except OSError as error:
        advice = "set TMPDIR to a folder that you may write to"
        return Finding(name="temporary folder", status="fault", detail=str(error), advice=advice)
    return await look_at_disk("temporary folder", folder)


async def look_at_mle() -> Finding:
    """Whether tasks that need pandas and scikit-learn find them."""
    packages = {"pandas": "pandas", "sklearn": "scikit-learn"}
    there = {name: _version_of(name) for module, name in packages.items() if importlib.util.find_spec(module)}
    detail = ", ".join(f"{name} {there[name]}" if name in there else f"no {name}" for name in packages.values())
    if len(there) == len(packages):
        return Finding(name="extra mle", status="ok", detail=detail)
    advice = (
        "for the tasks that need them: `uv sync --extra mle` in a checkout, else `pip install 'factory-bench[mle]'`"
    )
    return Finding(name="extra mle", status="missing", detail=detail, advice=advice)


async def look_at_index(runs_dir: Path) -> Finding:
    """Whether the index of the runs can be read."""
    from fbench.engine.records.index_schema import (  # noqa: PLC0415 - it alone needs the index
        INDEX,
        IndexOutdated,
        IndexUnusable,
        connect,
    )

    path = runs_dir / INDEX
    if not await anyio.Path(path).exists():
        return Finding(name="index", status="ok", detail=f"none yet in {runs_dir}")
    try:
        async with connect(path, read_only=True) as connection:
            rows = list(await connection.execute_fetchall("select count(*) from runs"))
    except IndexOutdated as error:
        return Finding(name="index", status="ok", detail=str(error))
    except IndexUnusable as error:
        return Finding(name="index", status="fault", detail=str(error))
    return Finding(name="index", status="ok", detail=f"{rows[0][0]} runs in {path}")


async def look_at_leftovers() -> Finding:
    """Scratch folders whose run is dead."""
    dead = await anyio.to_thread.run_sync(_dead_folders)
    if not dead:
        return Finding(name="leftovers", status="ok", detail="none")
    detail = f"{len(dead)} scratch folders of dead runs, the first is {dead[0]}"
    return Finding(name="leftovers", status="ok", detail=detail, advice="`fbench clean` removes them")


def _disk(name: str, folder: Path) -> Finding:
    place = folder
    try:
        place = folder.absolute()
        while not place.exists() and place != place.parent:
            place = place.parent
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding(name=name, status="fault", detail=f"{place} cannot be looked at: {error.strerror or error}")
    detail = f"{free / _GIB:.1f} GiB free in {place}"
    if not place.is_dir():
        advice = f"{place} is no folder: name another place"
        return Finding(name=name, status="fault", detail=detail, advice=advice)
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding(
            name=name, status="fault", detail=detail, advice=f"you may not write to {place}: name another place"
        )
    if free < LOW_DISK_BYTES:
        return Finding(name=name, status="fault", detail=detail, advice="make room: runs end when the disk is full")
    return Finding(name=name, status="ok", detail=detail, facts={"free_bytes": free})


def _version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "of unknown version"


def _dead_folders() -> list[str]:
    from fbench.sandboxes.sweep import dead_folders  # noqa: PLC0415 - it alone needs this

    return [str(folder) for folder in dead_folders()]
