"""`fbench doctor`: what this machine can do, and how to get what it cannot."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fbench.engine.commands.options import config_option, find_config, json_option, runs_dir_option

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fbench.sandboxes.commands.doctor_machine import Finding


@click.command()
@click.option(
    "--base-url",
    envvar=["FBENCH_BASE_URL", "OPENAI_BASE_URL"],
    show_envvar=True,
    help="The OpenAI-compatible server to ask for its models, with its /v1.",
)
@config_option
@runs_dir_option
@json_option
@click.pass_context
def doctor(
    ctx: click.Context, base_url: str | None, config: Path | None, runs_dir: Path | None, *, as_json: bool
) -> None:
    """Say what this machine can do. Exit code 1 when something is configured but broken."""
    import anyio  # noqa: PLC0415 - late, as all below: `fbench --help` stays cheap

    from fbench.engine.options import DEFAULT_RUNS_DIR  # noqa: PLC0415

    folder = runs_dir or DEFAULT_RUNS_DIR

    async def look() -> "list[Finding]":
        return await examine(base_url, folder, find_config(config))

    findings = anyio.run(look)
    has_fault = any(finding.status == "fault" for finding in findings)
    if as_json:
        items = [finding.model_dump(mode="json") for finding in findings]
        click.echo(json.dumps({"schema_version": 1, "has_fault": has_fault, "items": items}, indent=2))
    else:
        click.echo(_text(findings))
    ctx.exit(1 if has_fault else 0)


async def examine(base_url: str | None, runs_dir: Path, config: Path | None = None) -> "list[Finding]":
    """Everything doctor looks at, in a fixed order; what waits for others is looked at together."""
    import anyio  # noqa: PLC0415 - late: `fbench --help` stays cheap

    from fbench.sandboxes.commands import doctor_docker as docker  # noqa: PLC0415
    from fbench.sandboxes.commands import doctor_machine as machine  # noqa: PLC0415
    from fbench.sandboxes.commands import doctor_services as services  # noqa: PLC0415

    looks: list[Callable[[], Awaitable[Finding]]] = [
        machine.look_at_python,
        machine.look_at_platform,
        lambda: docker.look_at_docker(os.environ),
        docker.look_at_compose,
        lambda: docker.look_at_images(os.environ),
        lambda: docker.look_at_docker_limits(os.environ),
        machine.look_at_bubblewrap,
        machine.look_at_limits,
        lambda: services.look_at_key(os.environ),
        lambda: services.look_at_endpoint(base_url, os.environ),
        *services.looks_at_providers(config, os.environ),
        lambda: machine.look_at_disk("runs folder", runs_dir),
        machine.look_at_temporary_disk,
        machine.look_at_mle,
        lambda: machine.look_at_index(runs_dir),
        machine.look_at_leftovers,
        lambda: docker.look_at_docker_leftovers(os.environ),
    ]
    found: list[Finding | None] = [None] * len(looks)

    async def run(place: int) -> None:
        found[place] = await looks[place]()

    async with anyio.create_task_group() as group:
        for place in range(len(looks)):
            group.start_soon(run, place)
    return [finding for finding in found if finding is not None]


def _text(findings: "list[Finding]") -> str:
    from fbench.engine.records.showing import clean  # noqa: PLC0415 - late: `fbench --help` stays cheap

    def line(text: str) -> str:
        return " ".join(clean(text).split())

    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:<8}{finding.name:<{width}}  {line(finding.detail)}")
        if finding.advice:
            lines.append(f"{'':<{width + 10}}{line(finding.advice)}")
    return "\n".join(lines)
