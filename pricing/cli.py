"""`fbench pricing`: prices, and where they come from."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fbench.pricing.errors import PricingError

if TYPE_CHECKING:
    from fbench.pricing.table import PricedModel, PriceTable, Rates


@click.group()
def pricing() -> None:
    """What models cost, and where that is from."""


@pricing.command()
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
    """Show the price of MODEL, or all prices, in USD per 1M tokens."""
    from fbench.pricing.table import load_prices  # noqa: PLC0415 - late: `--help` stays cheap

    table = load_prices(prices_file)
    names = sorted(table.models) if model is None else [_known(table, model)]
    shown = {name: table.models[name] for name in names}
    click.echo(json.dumps(_document(shown), indent=2) if as_json else _text(shown))


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


def _document(shown: "dict[str, PricedModel]") -> dict[str, Any]:
    return {
        "schema_version": 1,
        "currency": "USD",
        "unit": "per 1M tokens",
        "models": {
            name: {**entry.price.model_dump(mode="json"), "from": entry.source.model_dump(mode="json")}
            for name, entry in shown.items()
        },
    }


def _text(shown: "dict[str, PricedModel]") -> str:
    sources = list(dict.fromkeys(entry.source for entry in shown.values()))
    rows = [("MODEL", "INPUT", "CACHED", "CACHE WRITE", "OUTPUT", "FROM")]
    for name, entry in shown.items():
        mark = f"[{sources.index(entry.source) + 1}]"
        rows.append((name, *_cells(entry.price), mark))
        if (long := entry.price.long_context) is not None:
            rows.append((f"  above {long.above_input_tokens} input tokens", *_cells(long), ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["USD per 1M tokens; `=` is the price of input."]
    for row in rows:
        numbers = [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *numbers, row[-1]]).rstrip())
    lines += [f"[{number}] {source}" for number, source in enumerate(sources, start=1)]
    return "\n".join(lines)


def _cells(rates: "Rates") -> tuple[str, str, str, str]:
    def cell(value: object) -> str:
        return "=" if value is None else f"{value:f}"

    return cell(rates.input), cell(rates.cached_input), cell(rates.cache_write), cell(rates.output)
