"""`fbench run`: one model, one task, one verdict."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fbench.engine.commands.options import (
    Dollars,
    Number,
    OrNone,
    config_option,
    find_config,
    json_option,
    option,
    quiet_option,
    runs_dir_option,
    secret_variables,
)
from fbench.engine.commands.progress import shorten

if TYPE_CHECKING:
    from fbench.engine.events import Event, RunFinished
    from fbench.engine.options import RunOptions
    from fbench.engine.results import RunResult

DETAIL_CHARS = 200
"""Of a check's detail in the readable verdict; result.json has all of it."""

_COUNT = OrNone(click.IntRange(min=0))
_SECONDS = OrNone(Number(min=0, min_open=True))


@click.command()
@option("--task", required=True, help="A task's folder, or a built-in task's id.")
@option(
    "--model",
    required=True,
    help="openai/NAME, PROVIDER/NAME, fake/oracle, fake/nop, fake/script:FILE or replay/RUN_ID.",
)
@option(
    "--sandbox", type=click.Choice(["auto", "docker", "bubblewrap", "local"]), help="Where tools run [default: auto]."
)
@runs_dir_option
@option("--base-url", help="The model server's address, up to and with /v1; OPENAI_BASE_URL is read too.")
@config_option
@option("--max-tokens", type=_COUNT, help="Cap on input and output tokens.")
@option("--max-tool-calls", type=_COUNT, help="Cap on tool calls.")
@option("--max-wall-time", type=_SECONDS, help="Cap on wall time, seconds.")
@option("--max-cost", type=OrNone(Dollars()), help="Cap on dollars.")
@option("--max-turns", type=OrNone(click.IntRange(min=1)), help="Cap on turns.")
@option(
    "--max-model-wait",
    type=OrNone(Number(min=0)),
    help="Patience for one model call, seconds [default: 600].",
)
@option("--temperature", type=OrNone(Number(min=0)), help="Sent to the model.")
@option("--top-p", type=OrNone(Number(0, 1, min_open=True)), help="Sent to the model.")
@option("--seed", type=OrNone(click.INT), help="Sent to the model and recorded.")
@option("--reasoning-effort", metavar="EFFORT", help="Sent to the model; `default` leaves it to the server.")
@option("--max-output-tokens", type=click.IntRange(min=1), help="Cap on one answer, reasoning included.")
@option(
    "--prices", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Your prices, over the built-in."
)
@option(
    "--image-map",
    multiple=True,
    metavar="NAME=OTHER",
    help="Use image OTHER where a task names NAME; may be repeated, the variable takes several.",
)
@option(
    "--record",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Add the model traffic to FILE, without keys.",
)
@option(
    "--replay",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Answer from FILE, which --record wrote: no network, no key.",
)
@option("--fail-under", type=Number(0, 1), help="Exit with 1 when the score is below.")
@json_option
@quiet_option
def run(*, as_json: bool, quiet: bool, fail_under: float | None, **given: Any) -> None:  # noqa: ANN401 - click's values
    """Run one model against one task, and print the verdict and the run's folder.

    A number given here replaces the task's; `none` lifts it.
    """
    from fbench.engine.commands.environment import blank_secrets_in_proc  # noqa: PLC0415 - late: help stays cheap
    from fbench.engine.commands.logging import log_to_stderr  # noqa: PLC0415

    log_to_stderr(quiet=quiet)
    options = _options(given)
    blank_secrets_in_proc(secret_variables(options.config))
    finished, code = _execute(options, quiet=quiet)
    if finished is not None:
        if as_json:
            document = {**finished.result.to_json(), "folder": str(finished.folder)}
            click.echo(json.dumps(document, indent=2, ensure_ascii=True))
        else:
            click.echo(_readable(finished))
    result = None if finished is None else finished.result
    sys.exit(code if code is not None else exit_code_of(result, fail_under))


def exit_code_of(result: "RunResult | None", fail_under: float | None) -> int:
    """The contract's exit code of one run that was not interrupted."""
    if result is None or result.status == "error":
        return 3
    if fail_under is not None and (result.score is None or result.score < fail_under):
        return 1
    return 0


def _options(given: dict[str, Any]) -> "RunOptions":
    from pydantic import ValidationError  # noqa: PLC0415 - late: help stays cheap

    from fbench.engine.errors import UsageError  # noqa: PLC0415
    from fbench.engine.options import RunOptions, parse_image_map  # noqa: PLC0415

    given = {**given, "image_map": parse_image_map(given["image_map"]), "config": find_config(given["config"])}
    try:
        return RunOptions.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = {str(item["loc"][0]): item["msg"] for item in reversed(error.errors())}
        problems = "; ".join(f"--{name.replace('_', '-')}: {said}" for name, said in first.items())
        msg = f"{problems}; see `fbench run --help`"
        raise UsageError(msg) from error


def _execute(options: "RunOptions", *, quiet: bool) -> "tuple[RunFinished | None, int | None]":
    """How the run ended, as far as it got, and the exit code of a signal."""
    import anyio  # noqa: PLC0415 - late: help stays cheap
    import anyio.to_thread  # noqa: PLC0415

    from fbench.engine.commands.progress import Progress  # noqa: PLC0415
    from fbench.engine.commands.signals import run_interruptible  # noqa: PLC0415
    from fbench.engine.engine import Engine  # noqa: PLC0415
    from fbench.engine.events import RunFinished  # noqa: PLC0415
    from fbench.engine.registry import load_part  # noqa: PLC0415

    seen: list[RunFinished] = []
    progress = None if quiet or sys.stderr is None else Progress()  # None: started with stderr closed

    def watch(event: "Event") -> None:
        if isinstance(event, RunFinished):
            seen.append(event)
        if progress is not None:
            progress(event)

    async def work() -> None:
        await anyio.to_thread.run_sync(load_part("sweep_scratch"))  # what killed runs left; a look into one folder
        async with Engine() as engine:
            await engine.run(options, watch)

    try:
        finished = anyio.run(run_interruptible, work, None if progress is None else progress.tick)
    finally:
        if progress is not None:
            progress.close()
    return seen[0] if seen else None, finished.exit_code


def _readable(finished: "RunFinished") -> str:
    result = finished.result
    word = {True: "PASSED", False: "FAILED", None: result.status.upper()}[result.passed]
    score = "none" if result.score is None else f"{result.score:g}"
    cost = "unknown" if result.cost_usd is None else f"${result.cost_usd:.6g} ({result.cost_status})"
    lines = [f"{word}  {result.task_id}  {result.model}  score {score}"]
    ended = result.kill_reason or result.end_reason or (result.error and f"{result.error.kind}: {result.error.message}")
    lines.append(f"status   {result.status}" + (f" ({ended})" if ended else ""))
    lines.extend(
        f"check    {check.id}: {check.status}, score {check.score:g}, weight {check.weight:g}"
        + (", gating" if check.gating else "")
        + (f": {shorten(check.detail, DETAIL_CHARS)}" if check.detail and check.status != "passed" else "")
        for check in result.checks
    )
    lines.append(
        f"used     {result.turns} turns, {result.tool_calls} tool calls, {result.tokens.total} tokens, {cost}, "
        f"{result.duration_s:.1f} s"
    )
    if finished.model_wait_s >= 1:
        lines.append(f"waited   {finished.model_wait_s:.1f} s for the model's server, no wall time of the agent")
    if result.isolated is False:
        lines.append("isolated no: the local sandbox hides neither this machine nor the grader from the agent")
    lines.append(f"folder   {finished.folder}")
    return "\n".join(lines)
