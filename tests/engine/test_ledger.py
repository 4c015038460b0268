"""ledger.jsonl: whole lines, exact dollars, sums that match, readers that forgive a torn end."""

import json
import subprocess
import sys
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fbench.engine.records.ledger import Ledger, LedgerLine, LedgerTokens, LedgerTotals, LedgerUnreadable, read_ledger
from fbench.engine.results import TokenCounts

KEYS = [
    "schema_version",
    "seq",
    "turn",
    "try",
    "who",
    "check_id",
    "model",
    "model_answered",
    "http_status",
    "error",
    "usage_raw",
    "tokens",
    "cost_usd",
    "cost_status",
    "started_at",
    "latency_s",
]


def line(**facts: Any) -> LedgerLine:
    base = {"turn": 1, "try": 1, "model": "openai/m", "started_at": "2026-05-13T20:40:21.123Z", "latency_s": 0.25}
    return LedgerLine.model_validate({**base, **facts})


LINES = st.builds(
    lambda who, cost, tokens, status, raw, error: line(
        who=who,
        cost_usd=None if status == "unknown" else cost,
        cost_status=status,
        tokens=LedgerTokens(**dict(zip(("input", "cache_read", "cache_write", "output"), tokens, strict=True))),
        usage_raw=raw,
        error=error,
    ),
    st.sampled_from(["agent", "judge"]),
    st.decimals(min_value=0, max_value=10**6, allow_nan=False, places=12),
    st.tuples(*[st.integers(0, 10**9)] * 4),
    st.sampled_from(["exact", "exact", "estimated", "unknown"]),
    st.none()
    | st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()),
    st.none() | st.text(),
)


def test_a_line_has_the_contracts_keys_in_their_order(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        ledger.append(line(tokens=LedgerTokens(input=1, cache_read=2, cache_write=3, output=4, reasoning=1)))
    stored = json.loads((tmp_path / "ledger.jsonl").read_text())
    assert list(stored) == KEYS
    assert list(stored["tokens"]) == ["input", "cache_read", "cache_write", "output", "reasoning"]
    assert (stored["schema_version"], stored["seq"], stored["try"]) == (1, 1, 1)


def test_dollars_are_json_numbers_with_every_digit(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    costs = [Decimal("0.1"), Decimal("0.0000001234567890123456789"), Decimal("1E-9"), Decimal("1E+3"), Decimal(0)]
    with Ledger(path) as ledger:
        for cost in costs:
            ledger.append(line(cost_usd=cost))
        assert ledger.totals().cost_usd == sum(costs)
    raw = path.read_text().splitlines()
    assert '"cost_usd":0.0000001234567890123456789,' in raw[1]
    assert all(isinstance(json.loads(text)["cost_usd"], int | float) for text in raw)
    assert [stored.cost_usd for stored in read_ledger(path)] == costs


@given(st.lists(LINES, max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_sums_are_those_of_the_lines(lines: list[LedgerLine]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        with Ledger(path) as ledger:
            written = [ledger.append(one) for one in lines]
            totals = ledger.totals()
        stored = list(read_ledger(path)) if path.stat().st_size else []
        assert stored == written
        assert [one.seq for one in stored] == list(range(1, len(lines) + 1))
        with Ledger(path) as again:
            assert again.totals() == totals
    agent = [one for one in stored if one.who == "agent"]
    whole_input = sum(one.tokens.input + one.tokens.cache_read + one.tokens.cache_write for one in agent)
    output = sum(one.tokens.output for one in agent)
    assert totals.tokens == TokenCounts(
        input=whole_input,
        cached_input=sum(one.tokens.cache_read for one in agent),
        output=output,
        total=whole_input + output,
    )
    for who, total in (("agent", totals.cost_usd), ("judge", totals.judge_cost_usd)):
        costs = [one.cost_usd for one in stored if one.who == who]
        known = [cost for cost in costs if cost is not None]
        assert total == (sum(known) if len(known) == len(costs) else None)
    statuses = {one.cost_status for one in stored}
    worst = "unknown" if "unknown" in statuses else "estimated" if "estimated" in statuses else "exact"
    assert totals.cost_status == worst


def test_an_empty_ledger_sums_to_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        assert ledger.totals() == LedgerTotals()
    assert list(read_ledger(tmp_path / "ledger.jsonl")) == []


def test_a_line_is_in_the_file_before_append_returns(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        for number in range(1, 4):
            ledger.append(line(turn=number))
            assert len(list(read_ledger(tmp_path / "ledger.jsonl"))) == number


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_torn_last_line_is_left_out_by_readers_and_by_the_next_writer(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        for number in (1, 2):
            ledger.append(line(turn=number, cost_usd=Decimal(number)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1][:-cut])
    assert [one.turn for one in read_ledger(path)] == [1]
    with Ledger(path) as ledger:
        assert ledger.totals().cost_usd == 1
        assert ledger.append(line(turn=7)).seq == 2
    assert [one.turn for one in read_ledger(path)] == [1, 7]


def test_damage_in_the_middle_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.append(line())
    good = path.read_text()
    path.write_text(good + "{broken\n" + good)
    with pytest.raises(LedgerUnreadable, match=r"ledger\.jsonl:2: no ledger line"):
        list(read_ledger(path))
    path.write_text(good.replace('"turn":1', '"turn":"x"') + good)
    with pytest.raises(LedgerUnreadable, match=r"ledger\.jsonl:1: no ledger line \(turn:"):
        list(read_ledger(path))


def test_a_newer_ledger_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"schema_version": 2, "new": true}\n')
    with pytest.raises(LedgerUnreadable, match=r"schema_version 2.*reads up to 1"):
        list(read_ledger(path))


def test_odd_texts_survive(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    texts = ["nul \x00", "line\u2028separator\nnewline", "\U0001f600", "lone \ud800"]
    with Ledger(path) as ledger:
        for text in texts:
            ledger.append(line(error=text))
    assert [one.error for one in read_ledger(path)] == texts


@pytest.mark.parametrize(
    "facts", [{"tokens": {"input": -1}}, {"cost_usd": "NaN"}, {"cost_usd": -1}, {"latency_s": float("inf")}, {"try": 0}]
)
def test_a_line_that_makes_no_sense_is_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        line(**facts)


def test_the_sums_stay_when_the_line_could_not_be_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(line(cost_usd=Decimal(1)))
    ledger.close()
    with pytest.raises(ValueError, match="closed"):
        ledger.append(line(cost_usd=Decimal(1)))
    assert ledger.totals().cost_usd == 1


def test_a_line_the_disk_did_not_take_leaves_nothing_of_itself(tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from fbench.engine.records.transcript import LineFile\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "with LineFile(Path(sys.argv[1])) as file:\n"
        "    file.write_line('a' * 60)\n"
        "    try:\n        file.write_line('b' * 60)\n"
        "    except OSError:\n        file.write_line('c')\n"
    )
    path = tmp_path / "lines"
    subprocess.run([sys.executable, "-P", "-c", code, str(path)], check=True)
    assert path.read_text() == "a" * 60 + "\nc\n"
