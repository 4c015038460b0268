"""Tiers, gates, weights, files and types of checks."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fbench.engine.errors import UnknownNameError
from fbench.engine.seams import JudgeRequest
from fbench.judging import table
from fbench.judging.judge import judge_workspace
from fbench.judging.table import unsupported_checks
from fbench.tasks.manifest import TaskManifest

if TYPE_CHECKING:
    from tests.judging.conftest import Bench
else:
    Bench = Any


def present(path: str, **fields: Any) -> dict[str, Any]:
    return {"type": "file_present", "path": path, **fields}


def same_text(path: str, **fields: Any) -> dict[str, Any]:
    return {"type": "reference_output", "path": path, "reference": "grader/expected.txt", **fields}


# --------------------------------------------------------------------------------------------- order, gates, weights


async def test_weights_make_the_score_and_the_threshold_decides(bench: Bench) -> None:
    bench.write(bench.final, {"a": "", "b": ""})
    bench.grader["pass_threshold"] = 0.9
    verdict = await bench.judge(present("a", weight=0.7), present("b", weight=0.2), present("c", weight=0.1))
    assert (verdict.score, verdict.passed) == (0.9, True)
    assert [check.status for check in verdict.checks] == ["passed", "passed", "failed"]


async def test_tiers_run_in_order_and_results_stand_in_the_manifests_order(bench: Bench) -> None:
    bench.write(bench.task, {"grader/expected.txt": "x"})
    bench.write(bench.final, {"a": "x"})
    verdict = await bench.judge(same_text("a", id="ref"), present("a", id="first"), present("a", id="second"))
    assert [result.id for result in bench.told] == ["first", "second", "ref"]
    assert [result.id for result in verdict.checks] == ["ref", "first", "second"]
    assert [result.tier for result in verdict.checks] == ["reference", "deterministic", "deterministic"]
    assert (verdict.score, verdict.passed) == (1.0, True)


async def test_a_closed_gate_makes_the_score_0_and_skips_later_tiers_only(bench: Bench) -> None:
    bench.write(bench.task, {"grader/expected.txt": "x"})
    bench.write(bench.final, {"a": "x"})
    verdict = await bench.judge(
        present("missing", id="gate", gating=True), present("a", id="same_tier"), same_text("a", id="later")
    )
    assert [result.status for result in verdict.checks] == ["failed", "passed", "skipped"]
    assert verdict.checks[2].detail == "the gating check 'gate' did not pass"
    assert (verdict.score, verdict.passed) == (0.0, False)
    assert [result.id for result in bench.told] == ["gate", "same_tier", "later"]
    assert sorted(path.name for path in bench.outputs.iterdir()) == ["gate.json", "same_tier.json"]


async def test_a_gating_check_in_error_closes_the_gate_too(bench: Bench) -> None:
    verdict = await bench.judge(
        {"type": "metric_check", "path": "m.json", "metric": "x", "op": ">", "threshold": 0, "gating": True},
        same_text("a"),
    )
    assert [result.status for result in verdict.checks] == ["error", "skipped"]
    assert not verdict.passed


async def test_a_gate_passes_with_a_threshold_of_0_only_when_it_is_open(bench: Bench) -> None:
    bench.grader["pass_threshold"] = 0.0
    assert (await bench.judge(present("missing"))).passed
    assert not (await bench.judge(present("missing", gating=True))).passed


async def test_judging_again_removes_the_file_of_a_check_now_skipped(bench: Bench) -> None:
    bench.write(bench.task, {"grader/expected.txt": "x"})
    bench.write(bench.final, {"a": "x"})
    checks = (present("a", id="gate", gating=True), same_text("a", id="later"))
    await bench.judge(*checks)
    assert (bench.outputs / "later.json").exists()
    (bench.final / "a").unlink()
    await bench.judge(*checks)
    assert not (bench.outputs / "later.json").exists()


# ------------------------------------------------------------------------------------------------------ file_present


async def test_file_present_follows_links_that_stay_inside_and_no_others(bench: Bench) -> None:
    bench.write(bench.final, {"real/file": "x", "folder/x": ""})
    secret = bench.root / "secret"
    secret.write_text("")
    links = {
        "in": "real/file",
        "absolute_in": "/workspace/real/file",
        "host_in": str(bench.root / "agents_workspace" / "real" / "file"),
        "out": str(secret),
        "climbs": "../../secret",
        "dangling": "nothing",
        "loop": "loop",
    }
    for name, target in links.items():
        (bench.final / name).symlink_to(target)
    os.mkfifo(bench.final / "pipe")
    names = ["real/file", *links, "folder", "pipe", "absent"]
    verdict = await bench.judge(*(present(name) for name in names))
    passed = [name for name, result in zip(names, verdict.checks, strict=True) if result.status == "passed"]
    assert passed == ["real/file", "in", "absolute_in", "host_in"]


async def test_a_metric_file_is_confined_and_bounded(bench: Bench) -> None:
    metric = {"type": "metric_check", "metric": "x", "op": ">", "threshold": 0}
    bench.write(bench.final, {"good.json": '{"x": 1}', "huge.json": b'{"x": 1}' + b" " * (10 * 1024**2)})
    (bench.root / "outside.json").write_text('{"x": 1}')
    (bench.final / "out.json").symlink_to(bench.root / "outside.json")
    (bench.final / "in.json").symlink_to("good.json")
    os.mkfifo(bench.final / "fifo.json")
    verdict = await bench.judge(
        *({**metric, "path": f"{name}.json"} for name in ("good", "in", "out", "huge", "fifo", "absent"))
    )
    assert [result.status for result in verdict.checks] == ["passed", "passed", *["error"] * 4]
    assert "larger than" in verdict.checks[3].detail


async def test_a_missing_output_fails_and_a_missing_reference_is_the_tasks_error(bench: Bench) -> None:
    bench.write(bench.task, {"grader/expected.txt": "x", "grader/bad.json": "{"})
    bench.write(bench.final, {"a": "x"})
    verdict = await bench.judge(
        same_text("absent"),
        same_text("a", reference="grader/no.txt"),
        same_text("a", reference="grader/bad.json", format="json"),
    )
    assert [result.status for result in verdict.checks] == ["failed", "error", "error"]
    assert "reference 'grader/no.txt' cannot be read" in verdict.checks[1].detail
    assert "reference 'grader/bad.json' cannot be read as json" in verdict.checks[2].detail


# ----------------------------------------------------------------------------------------------------- types of checks


def with_checks(request: JudgeRequest, *checks: dict[str, Any]) -> TaskManifest:
    document = request.manifest.model_dump(mode="json")
    document["grader"]["checks"] = list(checks)
    return TaskManifest.model_validate(document)


RUBRIC = {"id": "taste", "type": "llm_rubric", "rubric": "grader/rubric.md"}


@pytest.fixture
def without_rubrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if fbench itself judged no rubric."""
    types = {kind: code for kind, code in table.CHECK_TYPES.items() if kind != "llm_rubric"}
    monkeypatch.setattr(table, "CHECK_TYPES", types)


@pytest.mark.usefixtures("without_rubrics")
async def test_checks_nothing_can_judge_are_named_and_refused(bench: Bench) -> None:
    request = bench.request(present("a"))
    assert unsupported_checks(request.manifest) == []
    manifest = with_checks(request, {"id": "a", "type": "file_present", "path": "a"}, RUBRIC)
    assert unsupported_checks(manifest) == ["taste (llm_rubric)"]
    with pytest.raises(UnknownNameError, match="llm_rubric"):
        await judge_workspace(replace(request, manifest=manifest))
    assert bench.told == []


@pytest.mark.parametrize("kind", sorted(table.CHECK_TYPES))
def test_every_type_of_the_table_can_be_loaded(kind: str) -> None:
    assert table.load_check(kind).tier in {"deterministic", "reference", "rubric"}
