"""The options that say how runs are made, the same for `fbench run` and `fbench suite run`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from fbench.engine.commands.options import (
    Decorated,
    Dollars,
    Number,
    OrNone,
    SandboxKind,
    config_option,
    find_config,
    option,
    runs_dir_option,
)

_COUNT = OrNone(click.IntRange(min=0))
_SECONDS = OrNone(Number(min=0, min_open=True))
_JUDGE_OPTIONS = (
    option("--judge-model", help="What judges rubrics, over the task's; fake/judge:FILE needs no key."),
    option("--judge-base-url", help="The judge server's address, up to and with /v1."),
    option("--no-judge-cache", is_flag=True, help="Ask judges again what they were asked before."),
)
_OPTIONS = (
    option(
        "--sandbox",
        type=SandboxKind(),
        help="Where tools run [default: auto].",
    ),
    runs_dir_option,
    option("--base-url", help="The model server's address, up to and with /v1; OPENAI_BASE_URL is read too."),
    config_option,
    *_JUDGE_OPTIONS,
    option("--max-tokens", type=_COUNT, help="Cap on input and output tokens."),
    option("--max-tool-calls", type=_COUNT, help="Cap on tool calls."),
    option("--max-wall-time", type=_SECONDS, help="Cap on wall time, seconds."),
    option("--max-cost", type=OrNone(Dollars()), help="Cap on dollars."),
    option("--max-turns", type=OrNone(click.IntRange(min=1)), help="Cap on turns."),
    option(
        "--max-model-wait",
        type=OrNone(Number(min=0)),
        help="Patience for one model call, seconds [default: 600].",
    ),
    option("--temperature", type=OrNone(Number(min=0)), help="Sent to the model."),
    option("--top-p", type=OrNone(Number(0, 1, min_open=True)), help="Sent to the model."),
    option("--seed", type=OrNone(click.INT), help="Sent to the model and recorded."),
    option("--reasoning-effort", metavar="EFFORT", help="Sent to the model; `default` leaves it to the server."),
    option("--max-output-tokens", type=click.IntRange(min=1), help="Cap on one answer, reasoning included."),
    option(
        "--prices", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Your prices, over the built-in."
    ),
    option(
        "--image-map",
        multiple=True,
        metavar="NAME=OTHER",
        help="Use image OTHER where a task names NAME; may be repeated, the variable takes several.",
    ),
    option(
        "--record",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Add the model traffic to FILE, without keys.",
    ),
    option(
        "--replay",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Answer from FILE, which --record wrote: no network, no key.",
    ),
)


def run_options(command: Decorated) -> Decorated:
    """Give a command these options, in this order."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command


def judge_options(command: Decorated) -> Decorated:
    """Give a command the options that say who judges rubrics."""
    for decorate in reversed(_JUDGE_OPTIONS):
        command = decorate(command)
    return command


def stated_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was said of RunOptions, by its names there: values of None are left out.

    Raises:
        UsageError: an image map is none.
    """
    from fbench.engine.options import parse_image_map  # noqa: PLC0415 - late: help stays cheap

    stated = {**given, "image_map": parse_image_map(given["image_map"]), "config": find_config(given["config"])}
    return {name: value for name, value in stated.items() if value is not None}


def secret_variables(config: Path | None) -> frozenset[str]:
    """The variables that fbench.toml takes keys and header values from, whatever they are called."""
    from fbench.engine.config import load_config  # noqa: PLC0415 - late: help stays cheap

    providers = load_config(config).providers.values() if config else ()
    return frozenset(name for provider in providers for name in provider.variables())
