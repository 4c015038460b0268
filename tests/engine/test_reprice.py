"""`fbench pricing reprice`: each ledger line again, in exact dollars, and nothing is changed."""

import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from fbench.engine.errors import UnknownNameError
from fbench.engine.records.ledger import Ledger, LedgerLine, LedgerTokens
from fbench.engine.records.repricing import (
    RepricedRun,
    by_model,
    moment_of,
    reprice_line,
    reprice_run,
    sum_up,
)
from fbench.engine.records.targets import find_target
from fbench.engine.results import RunResult
from fbench.pricing.cli import pricing
from fbench.pricing.table import load_prices

RUN = "2026-05-13T20-40-21Z__hello__openai_gpt_4o__a3f0"
OTHER = "2026-05-14T20-40-21Z__hello__openai_gpt_4o__b111"
SUITE = "2026-05-13T20-40-00Z__suite__core__c222"
OTHER_SUITE = "2026-05-14T20-40-00Z__suite__core__d333"

PRICES = """\
models:
  openai/gpt-4o:
    - {input: 10, cached_input: 1, output: 100}
    - {from: 2026-06-01, input: 20, cached_input: 2, output: 200}
  openai/flat: {input: 1, output: 2}
"""


def line(**facts: Any) -> LedgerLine:
    base = {
        "turn": 1,
        "try": 1,
        "model": "openai/gpt-4o",
        "http_status": 200,
        "usage_raw": {
            "prompt_tokens": 1000,
            "completion_tokens": 100,
            "prompt_tokens_details": {"cached_tokens": 400},
        },
        "tokens": {"input": 600, "cache_read": 400, "output": 100},
        "cost_usd": "0.003",
        "started_at": "2026-05-13T20:40:21.123Z",
        "latency_s": 0.25,
    }
    return LedgerLine.model_validate(base | facts)


FAILED = {"http_status": 429, "error": "busy", "usage_raw": None, "tokens": {}, "cost_usd": 0}


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES)
    return path


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    path = tmp_path / "runs"
    path.mkdir()
    return path


def store(
    runs_dir: Path,
    name: str,
    lines: list[LedgerLine],
    *,
    suite: str | None = None,
    is_finished: bool = True,
    tail: str = "",
) -> Path:
    folder = runs_dir / name
    folder.mkdir()
    started = {"seq": 1, "time": "2026", "type": "run_started", "run_id": name, "suite_run_id": suite}
    (folder / "transcript.jsonl").write_text(json.dumps(started) + "\n")
    with Ledger(folder / "ledger.jsonl") as ledger:
        for one in lines:
            ledger.append(one)
    if tail:
        with (folder / "ledger.jsonl").open("a") as file:
            file.write(tail)
    if is_finished:
        result = RunResult(
            run_id=name,
            task_id="hello",
            model="openai/gpt-4o",
            suite_run_id=suite,
            status="completed",
            started_at="",
            finished_at="",
            duration_s=1.0,
            fbench_version="0.1.0",
            task_hash="",
        )
        (folder / "result.json").write_text(result.model_dump_json())
    return folder


def reprice(runs_dir: Path, *arguments: str) -> Result:
    given = ["reprice", *arguments, "--runs-dir", str(runs_dir)]
    return CliRunner().invoke(pricing, given, catch_exceptions=False)


def document(runs_dir: Path, *arguments: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(reprice(runs_dir, *arguments, "--json").stdout)
    return loaded


def everything_in(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_priced_again_line_by_line_exactly(runs_dir: Path, prices: Path) -> None:
    store(runs_dir, RUN, [line(), line(**FAILED), line(started_at="2026-06-01T00:00:00Z", cost_usd="0.1")])
    told = document(runs_dir, RUN, "--prices", str(prices))
    (run,) = told["runs"]
    assert [one["new_usd"] for one in run["ledger"]] == ["0.016400", "0.000000", "0.032800"]
    assert [one["old_usd"] for one in run["ledger"]] == ["0.003", "0", "0.1"]
    assert [one["seq"] for one in run["ledger"]] == [1, 2, 3]
    assert told["total"] == {
        "lines": 3,
        "unknown_lines": 0,
        "old_usd": "0.103",
        "new_usd": "0.049200",
        "difference_usd": "-0.053800",
    }
    assert (told["suite_run_id"], told["prices"][0]["file"]) == (None, str(prices))


def test_the_text_shows_old_new_and_difference_by_model_and_in_total(runs_dir: Path, prices: Path) -> None:
    judge = line(model="openai/flat", who="judge", check_id="quality", cost_usd="0.5")
    store(runs_dir, RUN, [line(), judge])
    shown = reprice(runs_dir, RUN, "--prices", str(prices)).stdout
    rows = [row.split() for row in shown.splitlines()]
    assert ["openai/flat", "judge", "1", "$0.500000", "$0.001200", "-$0.498800"] in rows
    assert ["openai/gpt-4o", "agent", "1", "$0.003000", "$0.016400", "+$0.013400"] in rows
    assert ["total", "2", "$0.503000", "$0.017600", "-$0.485400"] in rows
    assert f"prices: {prices}" in shown


def test_nothing_is_changed(runs_dir: Path, prices: Path) -> None:
    store(runs_dir, RUN, [line()], suite=SUITE)
    before = everything_in(runs_dir)
    for wanted in (RUN, SUITE):
        assert reprice(runs_dir, wanted, "--prices", str(prices)).exit_code == 0
    assert everything_in(runs_dir) == before


def test_a_line_without_a_price_is_unknown_and_said(runs_dir: Path, prices: Path) -> None:
    store(runs_dir, RUN, [line(), line(model="openai/nobody-knows", cost_usd="1")])
    told = document(runs_dir, RUN, "--prices", str(prices))
    assert (told["total"]["new_usd"], told["total"]["unknown_lines"]) == (None, 1)
    assert told["total"]["difference_usd"] is None
    assert [one["new_status"] for one in told["runs"][0]["ledger"]] == ["exact", "unknown"]
    shown = reprice(runs_dir, RUN, "--prices", str(prices)).stdout
    assert "unknown: 1 of 2 lines have no price here: openai/nobody-knows" in shown
    assert "known before and now: $0.003000 -> $0.016400" in shown


def test_what_was_unknown_then_may_be_known_now(runs_dir: Path, prices: Path) -> None:
    store(runs_dir, RUN, [line(model="openai/flat", cost_usd=None, cost_status="unknown")])
    total = document(runs_dir, RUN, "--prices", str(prices))["total"]
    assert (total["old_usd"], total["new_usd"], total["difference_usd"]) == (None, "0.001200", None)


def test_free_models_cost_0_whatever_they_used(runs_dir: Path) -> None:
    store(runs_dir, RUN, [line(model="fake/script:x.yaml", cost_usd=0), line(model=f"replay/{OTHER}", cost_usd=0)])
    total = document(runs_dir, RUN)["total"]
    assert (total["old_usd"], total["new_usd"], total["unknown_lines"]) == ("0", "0", 0)


def test_tokens_are_those_of_the_raw_usage_and_else_those_counted_then() -> None:
    table = load_prices()
    stale = line(tokens={"input": 1, "output": 1})
    assert reprice_line(stale, table).tokens == LedgerTokens(input=600, cache_read=400, output=100)
    estimated = line(usage_raw=None, cost_status="estimated")
    assert reprice_line(estimated, table).tokens == estimated.tokens
    assert reprice_line(estimated, table).new_status == "estimated"
    assert reprice_line(line(**FAILED), table).new_status == "exact"
    damaged = line(usage_raw={"prompt_tokens": -5})
    assert reprice_line(damaged, table).tokens == damaged.tokens


def test_a_line_whose_time_cannot_be_read_has_no_price() -> None:
    assert reprice_line(line(started_at="once"), load_prices()).new_usd is None
    assert moment_of("2026-05-13T20:40:21") == moment_of("2026-05-13T20:40:21Z")


def test_a_suite_runs_id_means_all_its_runs_and_no_others(runs_dir: Path, prices: Path) -> None:
    store(runs_dir, RUN, [line()], suite=SUITE)
    store(runs_dir, OTHER, [line(), line()], suite=SUITE, is_finished=False)
    store(runs_dir, "2026-05-15T20-40-21Z__hello__openai_gpt_4o__e444", [line()], suite=OTHER_SUITE)
    store(runs_dir, "2026-05-16T20-40-21Z__hello__openai_gpt_4o__f555", [line()])
    told = document(runs_dir, SUITE, "--prices", str(prices))
    assert [(run["run_id"], run["finished"], run["lines"]) for run in told["runs"]] == [
        (RUN, True, 1),
        (OTHER, False, 2),
    ]
    assert told["suite_run_id"] == SUITE
    assert told["total"]["new_usd"] == "0.049200"
    result = reprice(runs_dir, SUITE, "--prices", str(prices))
    assert f"{OTHER} has no result yet" in result.stderr
    assert f"suite run {SUITE}, 2 runs" in result.stdout


def test_the_beginning_of_just_one_id_is_enough(runs_dir: Path) -> None:
    folder = store(runs_dir, RUN, [line()], suite=SUITE)
    store(runs_dir, OTHER, [line()], suite=OTHER_SUITE)
    assert find_target(runs_dir, RUN[:12]).folders == (folder,)
    assert find_target(runs_dir, str(folder)).folders == (folder,)
    assert find_target(runs_dir, SUITE[:-3]).suite_run_id == SUITE
    (runs_dir / SUITE).mkdir()
    (runs_dir / SUITE / "manifest.snapshot.yaml").write_text("")
    assert find_target(Path("elsewhere"), str(runs_dir / SUITE)).folders == (folder,)


@pytest.mark.parametrize("wanted", ["2026", "nothing", SUITE[:20] + "__suite__", SUITE[:-4] + "ffff"])
def test_what_names_no_run_or_several_is_refused_by_name(runs_dir: Path, wanted: str) -> None:
    for number, suite in enumerate((SUITE, SUITE[:-1] + "9")):
        store(runs_dir, f"{RUN[:-1]}{number}", [line()], suite=suite)
    with pytest.raises(UnknownNameError, match=wanted[:10]) as caught:
        find_target(runs_dir, wanted)
    assert caught.value.exit_code == 2


def test_a_torn_last_line_is_left_out_and_a_damaged_ledger_makes_its_run_unknown(runs_dir: Path, prices: Path) -> None:
    store(runs_dir, RUN, [line()], suite=SUITE, tail='{"schema_version": 1, "se')
    damaged = store(runs_dir, OTHER, [line()], suite=SUITE, tail="no line\n" + line().to_json_line() + "\n")
    assert document(runs_dir, RUN, "--prices", str(prices))["total"]["new_usd"] == "0.016400"
    told = document(runs_dir, SUITE, "--prices", str(prices))
    assert [run["new_usd"] for run in told["runs"]] == ["0.016400", None]
    assert told["total"]["new_usd"] is None
    assert "ledger.jsonl:2" in told["runs"][1]["problem"]
    assert f"{damaged.name}: its dollars are unknown" in reprice(runs_dir, SUITE).stderr


def test_a_run_that_got_no_further_than_its_folder_costs_nothing(runs_dir: Path) -> None:
    (runs_dir / RUN).mkdir()
    repriced = reprice_run(runs_dir / RUN, load_prices())
    assert not repriced.is_finished
    assert repriced.lines == ()
    assert repriced.amounts().new_usd == 0


def test_prices_come_from_the_environment_too(runs_dir: Path, prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(runs_dir, RUN, [line()])
    monkeypatch.setenv("FBENCH_PRICES", str(prices))
    assert document(runs_dir, RUN)["total"]["new_usd"] == "0.016400"


tokens = st.integers(0, 10**6)
lines = st.builds(
    lambda model, who, counts, cost, month: line(
        model=model,
        who=who,
        usage_raw=None,
        tokens=dict(zip(("input", "cache_read", "cache_write", "output"), counts, strict=True)),
        cost_usd=cost,
        cost_status="unknown" if cost is None else "exact",
        started_at=f"2026-{month:02}-01T00:00:00Z",
    ),
    st.sampled_from(["openai/gpt-4o", "openai/gpt-5.6-sol", "deepseek/deepseek-v4-pro", "fake/nop", "local/unpriced"]),
    st.sampled_from(["agent", "judge"]),
    st.tuples(tokens, tokens, tokens, tokens),
    st.none() | st.decimals(0, 10, places=6),
    st.integers(1, 12),
)


@settings(deadline=None)
@given(st.lists(lines, max_size=12), st.randoms())
def test_sums_hold_in_any_order_and_no_cost_is_negative(ledger: list[LedgerLine], rng: random.Random) -> None:
    table = load_prices()
    repriced = [reprice_line(one, table) for one in ledger]
    shuffled = repriced.copy()
    rng.shuffle(shuffled)
    total = sum_up(one.amounts() for one in repriced)
    assert total == sum_up(one.amounts() for one in shuffled)
    run = RepricedRun(Path("run"), True, tuple(shuffled))
    assert total == run.amounts() == sum_up(by_model([run]).values())
    known = [one.new_usd for one in repriced if one.new_usd is not None]
    assert all(cost >= 0 for cost in known)
    assert total.new_usd == (sum(known, Decimal(0)) if len(known) == len(ledger) else None)
    assert total.unknown_lines == len(ledger) - len(known)
    assert all((one.new_usd is None) == (one.line.model == "local/unpriced") for one in repriced)
