"""What is kept of a check is valid JSON, bounded and whole."""

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fbench.engine.results import CheckResult
from fbench.judging.evidence import MAX_TEXT_CHARS, as_json, clean_text, tail, write_evidence

RESULT = CheckResult(
    id="rows",
    type="metric_check",
    tier="deterministic",
    status="error",
    score=0.0,
    weight=1.0,
    gating=False,
    detail="d",
)


def refuse(constant: str) -> None:
    raise AssertionError(constant)


def strict(text: str) -> Any:
    return json.loads(text, parse_constant=refuse)


def test_the_file_holds_the_result_and_what_was_seen(tmp_path: Path) -> None:
    write_evidence(tmp_path / "outputs", RESULT, {"command": "x", "exit_code": 1})
    document = strict((tmp_path / "outputs" / "rows.json").read_text())
    assert document == {
        "schema_version": 1,
        "check_id": "rows",
        "type": "metric_check",
        "status": "error",
        "score": 0.0,
        "detail": "d",
        "command": "x",
        "exit_code": 1,
    }


def test_writing_again_replaces_the_file_and_leaves_no_other(tmp_path: Path) -> None:
    write_evidence(tmp_path, RESULT, {"value": 1})
    write_evidence(tmp_path, RESULT, {"value": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]
    assert strict((tmp_path / "rows.json").read_text())["value"] == 2


def test_what_json_has_no_words_for_becomes_text() -> None:
    seen = as_json(
        {
            "nan": math.nan,
            "inf": Decimal("-Infinity"),
            "huge": 10**5000,
            "digits": Decimal("1" * 400),
            "half": Decimal("0.5"),
            "three": Decimal("3.0"),
            "bytes": b"a\xff",
            "surrogate": "a\udcff",
            1: (1, {2}),
            "path": Path("x"),
        }
    )
    assert strict(json.dumps(seen, ensure_ascii=False))["digits"] == "1" * 400
    assert (seen["nan"], seen["inf"], seen["half"], seen["three"]) == ("nan", "-Infinity", 0.5, 3)
    assert seen["bytes"] == seen["surrogate"] == "a\ufffd"
    assert seen["1"] == [1, [2]]
    assert seen["huge"].startswith("0x")


def test_long_texts_are_cut_in_the_middle() -> None:
    kept = as_json("a" * MAX_TEXT_CHARS + "b" * MAX_TEXT_CHARS)
    assert len(kept) < MAX_TEXT_CHARS + 100
    assert kept.startswith("aaa")
    assert kept.endswith("bbb")
    assert f"[... {MAX_TEXT_CHARS} characters left out ...]" in kept


def test_a_structure_without_end_is_cut() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert "nested too deeply" in json.dumps(as_json(endless))


def test_the_tail_is_one_line() -> None:
    assert tail("a\n\n b \n") == "a | b"
    assert len(tail("x" * 10_000)) == 303
    assert clean_text("\ud800", 10) == "\ufffd"


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.decimals()
        | st.binary()
        | st.text(st.characters(exclude_categories=())),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_anything_becomes_json(value: Any) -> None:
    text = json.dumps(as_json(value), ensure_ascii=False, allow_nan=False)
    strict(text.encode().decode())
