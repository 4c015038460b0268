"""`fbench pricing reprice`: what stored runs cost by the current prices, or by a file of them."""

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fbench.engine.commands.options import json_option, option, runs_dir_option

if TYPE_CHECKING:
    from fbench.engine.records.repricing import Amounts, RepricedRun
    from fbench.engine.records.targets import Target
    from fbench.pricing.table import PriceTable


@click.command(short_help="Compute a run's dollars again.")
@click.argument("wanted", metavar="RUN|SUITE_RUN_ID")
@option(
    "--prices", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Your prices, over the built-in."
)
@runs_dir_option
@json_option
def reprice(wanted: str, prices: Path | None, runs_dir: Path | None, *, as_json: bool) -> None:
    """Compute dollars again from raw usage, each call by what was in effect when it started. Nothing is changed.

    RUN is a run's id, the beginning of just one id, or a run folder's path; a suite run's id means all its runs.
    """
    from fbench.engine.options import DEFAULT_RUNS_DIR  # noqa: PLC0415 - late, as all below: `--help` stays cheap
    from fbench.engine.records.repricing import document_of, reprice_run  # noqa: PLC0415
    from fbench.engine.records.targets import find_target  # noqa: PLC0415
    from fbench.pricing.table import load_prices  # noqa: PLC0415

    target = find_target(runs_dir or DEFAULT_RUNS_DIR, wanted)
    table = load_prices(prices)
    runs = tuple(reprice_run(folder, table) for folder in target.folders)
    if as_json:
        click.echo(json.dumps(document_of(target, runs, table), indent=2))
    else:
        click.echo("\n".join(_text(target, runs, table)))
    for note in _notes(runs):
        click.echo(note, err=True)


def _text(target: "Target", runs: "Sequence[RepricedRun]", table: "PriceTable") -> Iterator[str]:
    from fbench.engine.records.repricing import by_model, sum_up  # noqa: PLC0415
    from fbench.engine.records.showing import table as columns  # noqa: PLC0415

    head = ("LINES", "OLD", "NEW", "DIFFERENCE")
    models = by_model(runs)
    total = sum_up(run.amounts() for run in runs)
    if target.suite_run_id is not None:
        yield f"suite run {target.suite_run_id}, {len(runs)} runs"
        yield columns([("RUN", *head), *((run.folder.name, *_cells(run.amounts())) for run in runs)])
        yield ""
    else:
        yield f"run {runs[0].folder.name}"
    rows = [("MODEL", "WHO", *head)]
    rows += [(name, who, *_cells(amounts)) for (name, who), amounts in models.items()]
    rows.append(("total", "", *_cells(total)))
    yield columns(rows)
    if total.new_usd is None and total.unknown_lines:
        unpriced = sorted({line.line.model for run in runs for line in run.lines if line.new_usd is None})
        yield f"unknown: {total.unknown_lines} of {total.lines} lines have no price here: {', '.join(unpriced)}"
    if total.old_usd is None or total.new_usd is None:
        known = f"{_dollars(total.known_old_usd)} -> {_dollars(total.known_new_usd)}"
        yield f"lines whose dollars are known before and now: {known}"
    sources = dict.fromkeys(str(table.models[name].source) for name, _ in models if name in table.models)
    yield from (f"prices: {source}" for source in sources)


def _notes(runs: "Sequence[RepricedRun]") -> Iterator[str]:
    for run in runs:
        if run.problem is not None:
            yield f"{run.folder.name}: its dollars are unknown: {run.problem}"
        elif not run.is_finished:
            yield f"{run.folder.name} has no result yet: what its ledger has so far is counted"


def _cells(amounts: "Amounts") -> tuple[str, str, str, str]:
    difference = amounts.difference_usd
    told = "unknown" if difference is None else f"{'-' if difference < 0 else '+'}${abs(difference):.6f}"
    return str(amounts.lines), _dollars(amounts.old_usd), _dollars(amounts.new_usd), told


def _dollars(amount: Decimal | None) -> str:
    return "unknown" if amount is None else f"${amount:.6f}"
