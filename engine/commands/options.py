"""What several commands share: option types, `--json`, the runs folder."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fbench.engine.sandbox_kinds import SANDBOX_CHOICES

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]  # generic for checkers only: click before 8.5 cannot subscript it
else:
    ParamType = click.ParamType

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class OrNone(ParamType):
    """A value of another type, or the word `none`, which lifts a cap."""

    def __init__(self, inner: ParamType) -> None:
        self.inner = inner
        self.name = f"{inner.name}|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - click's signature
        if isinstance(value, str) and value.strip().lower() == "none":
            return "none"
        return self.inner.convert(value, param, ctx)


class Number(click.FloatRange):
    """A finite number in a range; click itself takes `nan` and `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - click's signature
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number", param, ctx)
        return number


class SandboxKind(click.Choice):  # type: ignore[type-arg]  # generic only in newer versions of click
    """One of fbench's own kinds of sandbox, or the name of one that an installed package brings."""

    name = "sandbox"

    def __init__(self) -> None:
        super().__init__(SANDBOX_CHOICES)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - click's signature
        from importlib.metadata import entry_points  # noqa: PLC0415 - late: the root's help must stay cheap

        if value not in self.choices and entry_points(group="fbench.sandboxes", name=value):
            return value
        return super().convert(value, param, ctx)


class Dollars(ParamType):
    """An amount of dollars, exact."""

    name = "usd"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - click's signature
        from decimal import Decimal, InvalidOperation  # noqa: PLC0415 - late: the root's help must stay cheap

        if isinstance(value, Decimal):
            return value
        try:
            amount = Decimal(str(value).removeprefix("$"))
        except InvalidOperation:
            amount = Decimal("NaN")
        if not amount.is_finite() or amount < 0:
            self.fail(f"{value!r} is no amount of dollars, like 0.50", param, ctx)
        return amount


def option(name: str, *more: str, **settings: Any) -> Callable[[Decorated], Decorated]:  # noqa: ANN401 - click's own settings
    """A click option that also reads `FBENCH_<NAME>` and defaults to None."""
    variable = "FBENCH_" + name.removeprefix("--").upper().replace("-", "_")
    return click.option(name, *more, envvar=variable, show_envvar=True, **settings)


def find_config(given: Path | None) -> Path | None:
    """The fbench.toml to use: the one given, else that of the working folder if there is one."""
    from fbench.engine.config import CONFIG_FILE  # noqa: PLC0415 - late: the root's help must stay cheap

    default = Path(CONFIG_FILE)
    return given or (default if default.exists() else None)


json_option = option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
quiet_option = option("--quiet", "-q", is_flag=True, help="No progress on stderr.")
config_option = option(
    "--config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Model servers by name [default: ./fbench.toml, if there is one].",
)
runs_dir_option = option(
    "--runs-dir", type=click.Path(path_type=Path, file_okay=False), help="Where run folders lie [default: ./runs]."
)
