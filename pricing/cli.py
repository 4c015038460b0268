"""`fbench pricing`: prices and context windows, where they come from, and what runs cost by them."""

import importlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fbench.pricing.errors import PricingError

if TYPE_CHECKING:
    from fbench.pricing.rates import Rates, Tariff
    from fbench.pricing.table import PricedModel, PriceTable

ELSEWHERE: Mapping[str, str] = {
    "update": "fbench.pricing.update:update",
    "reprice": "fbench.engine.commands.reprice:reprice",
}
"""Commands by dotted name, imported on use. What reads runs lives with the engine: prices know nobody."""


class PricingGroup(click.Group):
    """A group that finds some of its commands by dotted name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, _, name = ELSEWHERE[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=PricingGroup)
def pricing() -> None:
    """What models cost, and where that is from."""


@pricing.command(short_help="Show prices and where they are from.")
@click.argument("model", required=False)
@click.option(
    "--prices",
    "prices_file",
    envvar="FBENCH_PRICES",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A price file of your own, on top of the shipped one [env: FBENCH_PRICES].",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar="FBENCH_JSON",
    help="One JSON document on stdout; prices are exact texts.",
)
def show(model: str | None, prices_file: Path | None, *, as_json: bool) -> None:
    """Show the price of MODEL with all its dates, or what all models cost now, in USD per 1M tokens; and its context
    window, in tokens."""
    from datetime import UTC  # noqa: PLC0415 - late: `--help` stays cheap

    from fbench.pricing.table import load_prices  # noqa: PLC0415

    table = load_prices(prices_file)
    names = sorted(table.models) if model is None else [_known(table, model)]
    shown = {name: table.models[name] for name in names}
    now = datetime.now(UTC)
    if as_json:
        click.echo(json.dumps(_document(shown, now), indent=2))
    else:
        click.echo(_text(shown, now, whole=model is not None))


def _known(table: "PriceTable", model: str) -> str:
    from fbench.pricing.table import FREE_PROVIDERS  # noqa: PLC0415 - late: `--help` stays cheap

    if model in table.models:
        return model
    if model.partition("/")[0] in FREE_PROVIDERS:
        msg = f"{model} costs 0 by definition and stands in no price list"
    elif near := table.near(model):
        msg = f"no price for the model {model!r}; priced names like it: {', '.join(near)}"
    else:
        msg = (
            f"no price for the model {model!r}; `fbench pricing show` lists those there are, a file named by --prices "
            f"or FBENCH_PRICES adds others"
        )
    raise PricingError(msg)


def _document(shown: "dict[str, PricedModel]", now: datetime) -> dict[str, Any]:
    """Each model: what is in effect now, and the whole tariff."""
    return {
        "schema_version": 2,
        "currency": "USD",
        "unit": "per 1M tokens",
        "at": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "models": {
            name: {
                **entry.price_at(now).model_dump(mode="json"),
                "context_window": entry.tariff.context_window,
                "tariff": [dated.model_dump(mode="json", by_alias=True) for dated in entry.tariff.entries],
                "from": entry.source.model_dump(mode="json"),
            }
            for name, entry in shown.items()
        },
    }


def _text(shown: "dict[str, PricedModel]", now: datetime, *, whole: bool) -> str:
    sources = list(dict.fromkeys(entry.source for entry in shown.values()))
    rows = [("MODEL", "INPUT", "CACHED", "CACHE WRITE", "OUTPUT", "WINDOW", "FROM")]
    has_more = False
    for name, entry in shown.items():
        price = entry.price_at(now)
        varies = entry.tariff.varies()
        has_more |= varies
        mark = f"[{sources.index(entry.source) + 1}]"
        label, takes = f"{name} *" if varies and not whole else name, str(entry.tariff.context_window or "-")
        rows.append((label, *_cells(price, takes), mark))
        rows += [(f"  above {tier.above_input_tokens} input tokens", *_cells(tier), "") for tier in price.long_context]
        if whole and varies:
            rows += _dated_rows(entry.tariff, now)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["USD per 1M tokens; `=` is the price of input. WINDOW is the context window, tokens; `-` is not known."]
    for row in rows:
        numbers = [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *numbers, row[-1]]).rstrip())
    lines += [f"[{number}] {source}" for number, source in enumerate(sources, start=1)]
    if whole and any(entry.tariff.has_hours() for entry in shown.values()):
        lines.append("hours are UTC, and here the same every day of the week")
    if has_more and not whole:
        when = f"{now:%Y-%m-%d %H:%M} UTC"
        lines.append(f"* varies; this is as of {when}, `fbench pricing show MODEL` has its dates and hours")
    return "\n".join(lines)


def _dated_rows(tariff: "Tariff", now: datetime) -> list[tuple[str, str, str, str, str, str, str]]:
    """Every price of a model that varies; the one in effect is marked."""
    rows = []
    current = tariff.entry_at(now)
    window = next((hours for hours in reversed(current.hours) if hours.covers(now.time())), None)
    for entry in tariff.entries:
        since = f"from {entry.from_}" if entry.from_ else "at first"
        is_now = entry is current and window is None
        rows.append((f"  {since}{' (now)' if is_now else ''}", *_cells(entry), ""))
        rows += [(f"    above {tier.above_input_tokens}", *_cells(tier), "") for tier in entry.long_context]
        for hours in entry.hours:
            rows.append((f"    {hours.utc} UTC{' (now)' if hours is window else ''}", *_cells(hours), ""))
            rows += [(f"      above {tier.above_input_tokens}", *_cells(tier), "") for tier in hours.long_context]
    return rows


def _cells(rates: "Rates", window: str = "") -> tuple[str, str, str, str, str]:
    def cell(value: object) -> str:
        return "=" if value is None else f"{value:f}"

    return cell(rates.input), cell(rates.cached_input), cell(rates.cache_write), cell(rates.output), window
