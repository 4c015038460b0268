"""`fbench suite report` and `fbench compare`: naming systems, and what is printed and written.

Suite runs come from a table instead of from folders, which tests of running suites write.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fbench.engine.errors import UnknownNameError, UsageError
from fbench.suites.commands.compare import compare
from fbench.suites.commands.report import report
from fbench.suites.outcomes import SuiteOutcome
from fbench.suites.systems import find_systems

OutcomeOf = Callable[..., SuiteOutcome]
ONE = "2026-05-13T20-40-00Z__suite__nightly__a3f0"
TWO = "2026-05-14T20-40-00Z__suite__nightly__b111"
SCRIPT = "fake/script:a:b.yaml"


@pytest.fixture
def stored(outcome_of: OutcomeOf, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, SuiteOutcome]:
    """Two suite runs: one of two models, one of a model with colons in its name."""
    tasks = {"m/x": {"a": [1], "b": [0]}, "m/y": {"a": [1], "b": [1]}}
    outcomes = {
        ONE: outcome_of(tasks, suite_run_id=ONE),
        TWO: outcome_of({SCRIPT: {"a": [0], "b": [0.5]}}, suite_run_id=TWO),
    }

    def load(_runs_dir: Path, wanted: str) -> SuiteOutcome:
        if Path(wanted).name not in outcomes:
            msg = f"no suite run {wanted!r}"
            raise UnknownNameError(msg)
        return outcomes[Path(wanted).name]

    monkeypatch.setattr("fbench.suites.systems.load_suite_outcome", load)
    monkeypatch.setattr("fbench.suites.loading.load_suite_outcome", load)
    return outcomes


def labels(*wanted: str) -> list[str]:
    return [system.label for system in find_systems(Path("runs"), wanted)]


def test_a_system_is_a_suite_run_or_one_model_of_it(stored: Mapping[str, SuiteOutcome]) -> None:
    assert labels(f"{ONE}:m/y", f"{ONE}:m/x", TWO) == [f"{ONE}:m/y", f"{ONE}:m/x", f"{TWO}:{SCRIPT}"]
    assert labels(f"{TWO}:{SCRIPT}", f"a:folder/{ONE}:m/x") == [f"{TWO}:{SCRIPT}", f"{ONE}:m/x"]


def test_one_suite_run_alone_stands_for_all_its_models(stored: Mapping[str, SuiteOutcome]) -> None:
    assert labels(ONE) == [f"{ONE}:m/x", f"{ONE}:m/y"]


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ([ONE, TWO], f"has 2 models; name one: {ONE}:m/x, {ONE}:m/y"),
        ([TWO], "is one system"),
        ([f"{ONE}:m/x"], "is one system"),
        ([TWO, TWO], "named twice"),
        ([TWO, f"{TWO}:{SCRIPT}"], "named twice"),
        ([TWO, f"{ONE}:m/z"], "no model 'm/z'; its models are m/x, m/y"),
        ([TWO, "nix:m/x"], "no suite run 'nix'"),
        ([TWO, "nix"], "no suite run 'nix'"),
        ([TWO, ""], "no suite run ''"),
    ],
)
def test_what_names_no_two_systems_is_refused(stored: Mapping[str, SuiteOutcome], wanted: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        labels(*wanted)
    assert caught.value.exit_code == 2


def invoke(command: Any, *arguments: object) -> Result:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stderr == ""
    return result


def test_compare_prints_text_and_one_document(stored: Mapping[str, SuiteOutcome]) -> None:
    assert "solved by the second only: b (0/1 to 1/1)" in invoke(compare, ONE).stdout
    document = json.loads(invoke(compare, f"{ONE}:m/x", TWO, "--json").stdout)
    assert [system["label"] for system in document["systems"]] == [f"{ONE}:m/x", f"{TWO}:{SCRIPT}"]
    assert document["pairs"][0]["errors_left_out"]["score"]["difference"] == -0.25


def test_report_writes_its_files_into_the_suite_run_s_folder(
    stored: Mapping[str, SuiteOutcome], tmp_path: Path
) -> None:
    junit = tmp_path / "junit.xml"
    shown = invoke(report, ONE, "--runs-dir", tmp_path, "--junit", junit).stdout
    assert "m/y          none" in shown or "m/y    none" in shown
    assert sorted(path.name for path in (tmp_path / ONE).iterdir()) == ["report.html", "report.json", "report.md"]
    assert junit.read_text().count("<testcase") == 4
    for name in ("report.md", "report.html", "report.json"):
        assert f"wrote    {tmp_path / ONE / name}" in shown


def test_report_of_a_folder_is_written_there(stored: Mapping[str, SuiteOutcome], tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere" / ONE
    folder.mkdir(parents=True)
    document = json.loads(invoke(report, folder, "--runs-dir", tmp_path / "runs", "--json").stdout)
    assert document["written"] == [str(folder / name) for name in ("report.md", "report.html", "report.json")]
    assert document["models"][1]["errors_left_out"]["score"]["value"] == 1.0
    assert not (tmp_path / "runs").exists()
