"""`fbench pricing update`: the price file made anew from the installed package genai-prices, and what that changes."""

import json
from datetime import UTC, datetime
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from fbench.pricing.errors import PricingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fbench.pricing.rates import Tariff


class Known(NamedTuple):
    """The file that would be replaced: its prices and its origin; version None for one that is not there yet."""

    name: str
    tariffs: "Mapping[str, Tariff]"
    source: str | None
    version: str | None
    retrieved: str | None

    def __str__(self) -> str:
        origin = ", ".join(word for word in (self.source and f"{self.source} {self.version}", self.retrieved) if word)
        return f"{self.name} ({origin})" if origin else self.name


@click.command(short_help="Compare with genai-prices, and refresh.")
@click.option("--write", "write", is_flag=True, help="Replace the price file of this installation.")
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a file of your own, for --prices FILE or FBENCH_PRICES; an older one there is what is compared.",
)
@click.option("--check", "check", is_flag=True, help="Write nothing; exit with 1 when something differs.")
@click.option(
    "--provider",
    "providers",
    multiple=True,
    metavar="NAME",
    help="Only this provider of the package, all its models; may be repeated. Needs --output.",
)
@click.option("--json", "as_json", is_flag=True, envvar="FBENCH_JSON", help="One JSON document on stdout.")
@click.pass_context
def update(
    ctx: click.Context,
    output: Path | None,
    providers: tuple[str, ...],
    *,
    write: bool,
    check: bool,
    as_json: bool,
) -> None:
    """Compare prices and context windows with the installed package genai-prices, offline; nothing is written without
    being asked."""
    from fbench.pricing.comparing import compare, comparison_text  # noqa: PLC0415 - late, as all: `--help` stays cheap
    from fbench.pricing.convert import convert  # noqa: PLC0415
    from fbench.pricing.source import PACKAGE, read_source  # noqa: PLC0415
    from fbench.pricing.writing import price_file_text, write_file  # noqa: PLC0415

    if write and (output is not None or check):
        msg = "--write replaces the installation's own file; leave it out beside --output or --check"
        raise click.UsageError(msg, ctx)
    if providers and output is None:
        msg = "--provider makes a file of your own; name it by --output FILE"
        raise click.UsageError(msg, ctx)
    known = _shipped() if output is None else _own(output)
    source = read_source()
    made = convert(source, providers)
    found = compare(known.tariffs, made)
    is_new = known.version != source.version or known.source != PACKAGE
    written: Path | None = None
    if not check and (output is not None or write) and (is_new or not found.is_empty()):
        text = price_file_text(
            made, source=PACKAGE, source_version=source.version, retrieved=f"{datetime.now(UTC):%Y-%m-%d}"
        )
        if output is None:
            with as_file(_shipped_file()) as path:
                write_file(path, text)
            written = path
        else:
            write_file(output, text)
            written = output
    if as_json:
        document = {
            "schema_version": 1,
            "old": {
                "file": known.name,
                "source": known.source,
                "source_version": known.version,
                "retrieved": known.retrieved,
                "models": len(known.tariffs),
            },
            "new": {"source": PACKAGE, "source_version": source.version, "models": len(made)},
            "differs": not found.is_empty(),
            "written": None if written is None else str(written),
            **found.document(),
        }
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(f"{known} -> {PACKAGE} {source.version}, USD per 1M tokens")
        click.echo(f"models: {len(known.tariffs)} -> {len(made)}")
        click.echo(comparison_text(found) or "no price and no window differs")
        click.echo(_outcome(written, check=check, differs=is_new or not found.is_empty()), err=True)
    if check and not found.is_empty():
        ctx.exit(1)


def _outcome(written: Path | None, *, check: bool, differs: bool) -> str:
    if written is not None:
        return f"written: {written}"
    if check or not differs:
        return "nothing was written"
    return "nothing was written; `--write` replaces the installation's own file, `--output FILE` writes one of yours"


def _shipped_file() -> Any:  # noqa: ANN401 - importlib's Traversable, whose module differs by Python version
    from fbench.pricing.table import BUILT_IN  # noqa: PLC0415

    return files("fbench.pricing").joinpath(BUILT_IN)


def _shipped() -> Known:
    from fbench.pricing.table import BUILT_IN, load_prices  # noqa: PLC0415

    models = load_prices().models
    source = next(iter(models.values())).source
    tariffs = {name: model.tariff for name, model in models.items()}
    return Known(BUILT_IN, tariffs, source.source, source.source_version, source.retrieved)


def _own(path: Path) -> Known:
    """A file of the user's, if it is there. Only one that this command made may be replaced."""
    from fbench.pricing.files import read_document  # noqa: PLC0415
    from fbench.pricing.reading import read_yaml  # noqa: PLC0415
    from fbench.pricing.source import PACKAGE  # noqa: PLC0415

    if not path.exists():
        return Known(str(path), {}, None, None, None)
    content = read_document(read_yaml(path), str(path))
    if content.source != PACKAGE:
        msg = (
            f"{path} was not made by `fbench pricing update` (it does not say `source: {PACKAGE}`) and may hold prices "
            f"of your own; name another file"
        )
        raise PricingError(msg)
    return Known(str(path), content.models, content.source, content.source_version, content.retrieved)
