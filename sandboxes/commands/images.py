"""`fbench images`: the images tasks run in."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fbench.engine.commands.options import json_option, option, quiet_option

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiodocker import Docker

Answer = TypeVar("Answer")

MIB = 1024**2
SHORT_ID = slice(7, 19)
"""The digits of `sha256:...` that Docker shows."""

names_argument = click.argument("names", metavar="[NAME]...", nargs=-1)
image_map_option = option(
    "--image-map", multiple=True, metavar="NAME=OTHER", help="Use the image OTHER where NAME is named; repeatable."
)


@click.group()
def images() -> None:
    """The container images tasks run in: fbench's own, and those built from tasks."""


@images.command("list")
@json_option
def list_images(*, as_json: bool) -> None:
    """List fbench's images and those built from tasks: whether they are on the engine, their size and id."""
    rows = _on_engine(_rows)
    if as_json:
        click.echo(json.dumps({"images": rows}, indent=2))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        size = f"{row['size_bytes'] / MIB:.0f} MiB" if row["present"] else ""
        state = "missing" if not row["present"] else "here" if row["current"] else "outdated"
        identity = (row["id"] or "")[SHORT_ID]
        click.echo(f"{row['name']:<{width}}  {state:<8}  {size:>9}  {identity:<12}  {row['purpose']}")


@images.command()
@names_argument
@option("--base", metavar="IMAGE", help="Start from this image, of Debian's family with Python 3.11 or later.")
@option(
    "--ca-bundle",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="CA certificates (PEM) for the build's downloads [default: SSL_CERT_FILE, PIP_CERT].",
)
@click.option("--no-cache", is_flag=True, help="Use nothing that was built before.")
@image_map_option
@quiet_option
@json_option
def build(
    *,
    names: tuple[str, ...],
    base: str | None,
    ca_bundle: Path | None,
    no_cache: bool,
    image_map: tuple[str, ...],
    quiet: bool,
    as_json: bool,
) -> None:
    """Build fbench's images (mle and postgres, or those named) on the Docker engine. Nothing is pulled."""
    from fbench.engine.options import parse_image_map  # noqa: PLC0415
    from fbench.sandboxes.image_catalog import (  # noqa: PLC0415 - late, as all below: help stays cheap
        BUILT_UNASKED,
        build_own_image,
        find_own_image,
    )
    from fbench.sandboxes.image_machine import read_machine_settings  # noqa: PLC0415

    chosen = [find_own_image(name) for name in dict.fromkeys(names)] or list(BUILT_UNASKED)
    settings = read_machine_settings(ca_bundle)
    pairs = parse_image_map(image_map)

    def say(line: str) -> None:
        if not quiet:
            click.echo(line, err=True)

    async def build_all(docker: "Docker") -> list[dict[str, str]]:
        built = []
        for image in chosen:
            say(f"building {image.name}")
            made = await build_own_image(
                docker, image, base=base, settings=settings, image_map=pairs, use_cache=not no_cache, on_line=say
            )
            built.append({"name": made.name, "id": made.id})
        return built

    built = _on_engine(build_all)
    if as_json:
        click.echo(json.dumps({"built": built}, indent=2))
        return
    for image in built:
        click.echo(f"built {image['name']} {image['id'][SHORT_ID]}")


@images.command()
@names_argument
@json_option
def check(*, names: tuple[str, ...], as_json: bool) -> None:
    """Run fbench's images (mle and postgres, or those named) and say whether what tasks need works in them.

    Exit code 1 when something is missing or broken.
    """
    from fbench.sandboxes.image_catalog import BUILT_UNASKED, find_own_image, is_current  # noqa: PLC0415
    from fbench.sandboxes.image_check import Finding, check_image  # noqa: PLC0415
    from fbench.sandboxes.image_store import find_image, missing_image  # noqa: PLC0415

    chosen = [find_own_image(name) for name in dict.fromkeys(names)] or list(BUILT_UNASKED)

    async def check_all(docker: "Docker") -> dict[str, list[Finding]]:
        report = {}
        for image in chosen:
            found = await find_image(docker, image.name)
            if found is None:
                report[image.name] = [Finding("image", str(missing_image(image.name)), is_fault=True)]
                continue
            report[image.name] = await check_image(docker, image, found)
            if not await is_current(docker, image, found):
                advice = f"not made of what this fbench ships: `fbench images build {image.key}`"
                report[image.name].append(Finding("content", advice, is_fault=True))
        return report

    report = _on_engine(check_all)
    has_fault = any(finding.is_fault for findings in report.values() for finding in findings)
    if as_json:
        entries = [
            {
                "name": name,
                "ok": not any(finding.is_fault for finding in findings),
                "findings": [{"name": each.name, "ok": not each.is_fault, "text": each.text} for each in findings],
            }
            for name, findings in report.items()
        ]
        click.echo(json.dumps({"images": entries}, indent=2))
    else:
        for name, findings in report.items():
            click.echo(name)
            for each in findings:
                click.echo(f"  {'FAULT' if each.is_fault else 'ok':<5}  {each.name}: {each.text}")
    if has_fault:
        click.get_current_context().exit(1)


def _on_engine(work: "Callable[[Docker], Awaitable[Answer]]") -> Answer:
    """What `work` gives, done on the engine that DOCKER_HOST or the docker context names; signals end it cleanly."""
    import anyio  # noqa: PLC0415 - late: help stays cheap

    from fbench.engine.commands.signals import run_interruptible  # noqa: PLC0415
    from fbench.sandboxes.docker_engine import open_container_host  # noqa: PLC0415

    async def with_engine() -> Answer:
        async with open_container_host() as host:
            return await work(host.client)

    finished = anyio.run(run_interruptible, with_engine)
    if finished.exit_code is not None or finished.value is None:
        click.get_current_context().exit(finished.exit_code or 1)
    return finished.value


async def _rows(docker: "Docker") -> list[dict[str, Any]]:
    """fbench's images, then those built from tasks by name."""
    from fbench.sandboxes.image_catalog import OWN_IMAGES, is_current  # noqa: PLC0415
    from fbench.sandboxes.image_store import LABEL_TASK, TASK_PREFIX, find_image, list_images  # noqa: PLC0415

    rows: list[dict[str, Any]] = []
    for image in OWN_IMAGES:
        found = await find_image(docker, image.name)
        row = {"name": image.name, "present": found is not None, "purpose": image.purpose, "task": None}
        row |= {"id": None, "size_bytes": None, "current": None}
        if found is not None:
            size = (await docker.images.inspect(found.id))["Size"]
            row |= {"id": found.id, "size_bytes": size, "current": await is_current(docker, image, found)}
        rows.append(row)
    for built in await list_images(docker, LABEL_TASK):
        task = built["Labels"][LABEL_TASK]
        rows += [
            {
                "name": tag,
                "present": True,
                "purpose": f"built from the task {task}",
                "task": task,
                "id": built["Id"],
                "size_bytes": built["Size"],
                "current": True,
            }
            for tag in sorted(built["RepoTags"] or ())
            if tag.startswith(TASK_PREFIX)
        ]
    return rows
