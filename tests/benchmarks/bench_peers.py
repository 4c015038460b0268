"""fbench beside its peers, Inspect AI and Harbor: the same work, alternately, in one session; the table goes to
docs/benchmarks.md.

`nox -s bench` makes an environment for each peer and names its interpreter in FBENCH_BENCH_INSPECT and
FBENCH_BENCH_HARBOR. FBENCH_BENCH_PARTS=start_up,http measures some parts only, and FBENCH_BENCH_ROUNDS less often; the
document is written when all parts were asked for. FBENCH_BENCH_DOCUMENT writes another file that has the markers.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.peers.comparing import PARTS
from tests.benchmarks.peers.rounds import Comparison, Sides
from tests.benchmarks.peers.sides import ROOT, ArmFailed, Side
from tests.benchmarks.peers.table import Row, describe_machine, render, today, write_between_markers

if TYPE_CHECKING:
    from tests.benchmarks.conftest import Say

ROUNDS = int(os.environ.get("FBENCH_BENCH_ROUNDS", "3"))
ASKED = os.environ.get("FBENCH_BENCH_PARTS", ",".join(PARTS)).split(",")
DOCUMENT = Path(os.environ.get("FBENCH_BENCH_DOCUMENT", ROOT / "docs" / "benchmarks.md"))


def find_sides() -> Sides:
    """The interpreters of all three. One that is missing is a failure: a comparison with nobody says nothing."""
    pythons = {}
    for name in ("FBENCH_BENCH_INSPECT", "FBENCH_BENCH_HARBOR"):
        pythons[name] = Path(os.environ.get(name, ""))
        if not pythons[name].is_file():
            pytest.fail(
                f"{name} must name a Python that has this peer: run `nox -s bench -- tests/benchmarks/bench_peers.py`"
            )
    return Sides(
        fbench=Side("fbench", Path(sys.executable), "fbench_arms", "fbench", ("factory-bench", "openai", "httpx2")),
        inspect=Side(
            "Inspect AI", pythons["FBENCH_BENCH_INSPECT"], "inspect_arms", "inspect", ("inspect-ai", "openai", "httpx2")
        ),
        harbor=Side("Harbor", pythons["FBENCH_BENCH_HARBOR"], "harbor_arms", "harbor", ("harbor",)),
    )


def describe(sides: Sides, load_before: float) -> list[str]:
    """What the table needs to be read: when, where, which versions."""
    load_after = os.getloadavg()[0]
    load = f"Processes that wanted a core, over a minute: {load_before:.1f} before, {load_after:.1f} at the end."
    lines = ["", f"Measured on {today()}: {describe_machine()}. {load}", ""]
    lines += [f"- {side.name}: {side.versions()}" for side in (sides.fbench, sides.inspect, sides.harbor)]
    return [*lines, ""]


def test_fbench_beside_its_peers(say: "Say") -> None:
    assert set(ASKED) <= set(PARTS), f"parts are {', '.join(PARTS)}"
    sides = find_sides()
    session = Comparison(sides, ROUNDS, say)
    load_before = os.getloadavg()[0]
    rows: list[Row] = []
    failed: list[str] = []
    for name in ASKED:
        try:
            rows += PARTS[name](session)
        except ArmFailed as error:  # the others are measured all the same
            rows.append(Row(f"{name}: **not measured**", None))
            failed.append(str(error))
    lines = [*describe(sides, load_before), *render(rows), ""]
    for line in lines:
        say(line)
    if set(ASKED) == set(PARTS):
        write_between_markers(DOCUMENT, lines)
    missed = [f"{row.what}: {bar}" for row in rows for bar in row.bars if not bar.is_met]
    assert not failed, "\n\n".join(failed)
    assert not missed, "\n".join(missed)
