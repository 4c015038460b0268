"""Types of check that other packages bring, the example package above all, really built and installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fbench.judging.judge import judge_workspace
from fbench.judging.scoring import ALMOST_ONE
from fbench.judging.table import CHECK_TYPES, load_check, unsupported_checks
from fbench.tasks.errors import ManifestError
from fbench.tasks.loading import dump_manifest, inspect_task, load_manifest, load_task
from fbench.tasks.manifest import CHECK_MODELS

if TYPE_CHECKING:
    from tests.judging.conftest import Bench
else:
    Bench = Any

EXAMPLE = Path(__file__).parent / "example_checks"

TASK = """\
id: small
title: Write a summary
difficulty: easy
domain: writing
agent: {prompt_text: Summarise.}
tools: {allow: [bash]}
grader:
  pass_threshold: 0.5
  checks:
    - {id: there, type: file_present, path: summary.md}
    - {id: short, type: max_words, path: summary.md, limit: 4, twice_is_zero: true}
solution: solution/solve.sh
"""


@pytest.fixture(scope="session")
def example_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with the example package installed from its source, as pip and uv do it."""
    base = tmp_path_factory.mktemp("example")
    source = shutil.copytree(EXAMPLE, base / "source", ignore=shutil.ignore_patterns("__pycache__"))
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    assert uv is not None, "uv is needed here; install it with `pip install uv`"
    site = base / "site"
    install = [uv, "pip", "install", "--offline", "--no-deps", "--no-build-isolation", "--python", sys.executable]
    subprocess.run([*install, "--target", site, source], check=True, capture_output=True, timeout=300)
    return site


@pytest.fixture
def example(example_site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example package, to be imported by this process."""
    monkeypatch.syspath_prepend(str(example_site))
    return example_site


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task that uses the type `max_words`, its solution just above the limit."""
    folder = tmp_path / "small"
    for name, text in {
        "task.yaml": TASK,
        "workspace/.gitkeep": "",
        "solution/solve.sh": "echo one two three four five > summary.md\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def run_fbench(site: Path, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    program = Path(sys.executable).parent / "fbench"
    env = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run([program, *arguments], capture_output=True, text=True, env=env, timeout=300, check=False)


def test_a_run_from_the_command_line_is_judged_by_the_installed_type(
    example_site: Path, task: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    done = run_fbench(
        example_site,
        "run",
        "--task",
        task,
        "--model",
        "fake/oracle",
        "--sandbox",
        "local",
        "--runs-dir",
        runs,
        "--json",
    )
    assert done.returncode == 0, done.stderr
    (run,) = (folder for folder in runs.iterdir() if folder.is_dir())
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["passed"], result["score"]) == ("completed", True, 0.875)
    told = result["checks"][1]
    assert (told["type"], told["tier"], told["status"], told["score"]) == ("max_words", "deterministic", "failed", 0.75)
    assert told["detail"] == "5 words, wanted at most 4"
    assert json.loads((run / "grader_outputs" / "short.json").read_text())["words"] == 5
    assert "twice_is_zero: true" in (run / "manifest.snapshot.yaml").read_text()
    described = run_fbench(example_site, "describe", "--task", task)
    assert (described.returncode, described.stderr) == (0, "")
    assert "    limit: 4\n    twice_is_zero: true\n" in described.stdout


def test_without_the_package_the_type_is_unknown_and_nothing_runs(task: Path, tmp_path: Path) -> None:
    done = run_fbench(tmp_path, "run", "--task", task, "--model", "fake/nop", "--runs-dir", tmp_path / "runs")
    assert done.returncode == 2
    assert "task.yaml:11: grader.checks[1].type: 'max_words' is not allowed" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("limitt: 4", "limitt: unknown key; did you mean 'limit'? valid keys here: id, weight, gating, timeout_s, "),
        ("limit: 0", "limit: 0 is out of range: must be above 0"),
        ('limit: "4"', "limit: must be a whole number, found the text '4'; write 4, without quotes"),
        ("weight: 2", "limit: is required, but missing; add `limit:`"),
        ("limit: 4, weight: -1", "weight: -1 is out of range: must be at least 0"),
        ("limit: 4, path: ../a", "path: '../a' must be a relative path that stays inside, without '..'"),
        ("limit: 4, id: there", "id: two checks have the id 'there'"),
    ],
)  # fmt: skip
def test_the_keys_of_an_outside_type_are_read_as_strictly_as_ours(
    example: Path, task: Path, written: str, message: str
) -> None:
    check = "{type: max_words, " + written
    check += "".join(f", {key}: {value}" for key, value in (("id", "short"), ("path", "a")) if key not in written) + "}"
    text = TASK.replace("{id: short, type: max_words, path: summary.md, limit: 4, twice_is_zero: true}", check)
    (task / "task.yaml").write_text(text)
    told = [str(problem) for problem in inspect_task(task).problems]
    assert any(f"task.yaml:11: grader.checks[1].{message}" in line for line in told), told


def test_a_manifest_with_an_outside_check_survives_a_dump(example: Path, task: Path) -> None:
    manifest = load_task(task).manifest
    assert load_manifest(dump_manifest(manifest)) == manifest
    assert unsupported_checks(manifest) == []
    assert load_check("max_words").tier == "deterministic"


def test_an_unknown_type_names_the_installed_ones_too(example: Path, task: Path) -> None:
    (task / "task.yaml").write_text(TASK.replace("type: max_words", "type: max_word"))
    with pytest.raises(ManifestError, match=r"did you mean 'max_words'\? allowed: file_present, .*, max_words"):
        load_task(task)


# ------------------------------------------------------------------------------------------- packages that go astray

TASTE = """
import anyio
from fbench.engine.seams import CheckOutcome
from fbench.tasks.checks import OutsideCheck

class Arguments(OutsideCheck):
    way: str = ""
    reference: object = None

class Taste:
    tier = "rubric"
    arguments = Arguments
    async def evaluate(self, check, context):
        if check.way == "crash":
            raise KeyError("oops \\udcff")
        if check.way == "hang":
            await anyio.sleep_forever()
        if check.way == "nothing":
            return None
        if check.way == "status":
            return CheckOutcome("great", 1.0, "d")
        if check.way == "detail":
            return CheckOutcome("passed", 1.0, None)
        if check.way == "text":
            return CheckOutcome("passed", "1", "d")
        score = float("nan") if check.way == "nan" else 1.0
        return CheckOutcome("failed" if check.way else "passed", score, "d", {"seen": {1}})

class Tierless(Taste):
    tier = "fourth"

class NoTier:
    arguments = Arguments

class Bare:
    tier = "rubric"
    async def evaluate(self, check, context): ...
"""


def install(bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str, entry_points: str, code: str) -> None:
    """A package of one module as an installer leaves it."""
    site = bench.root / f"site_{name}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    files = {f"{name}.py": code, f"{name}-1.0.dist-info/METADATA": metadata}
    bench.write(site, {**files, f"{name}-1.0.dist-info/entry_points.txt": f"[fbench.checks]\n{entry_points}\n"})
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, name, raising=False)


async def test_what_an_outside_check_does_wrong_is_an_error_of_that_check(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(bench, monkeypatch, "outside_ways", "taste = outside_ways:Taste", TASTE)
    ways = ("", "crash", "nan", "full")
    verdict = await judge_workspace(bench.request(*({"type": "taste", "way": way} for way in ways)))
    assert [(result.status, result.score) for result in verdict.checks] == [
        ("passed", 1.0),
        ("error", 0.0),
        ("error", 0.0),
        ("failed", ALMOST_ONE),
    ]
    assert "KeyError" in verdict.checks[1].detail
    assert "not between 0 and 1" in verdict.checks[2].detail
    assert verdict.checks[0].tier == "rubric"
    assert json.loads((bench.outputs / "check1.json").read_text())["seen"] == [1]


async def test_an_outcome_that_is_none_is_an_error_of_that_check_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(bench, monkeypatch, "outside_odd", "taste = outside_odd:Taste", TASTE)
    monkeypatch.setattr("fbench.judging.judge.OUTSIDE_GRACE_S", 0.1)
    ways = ("nothing", "status", "detail", "text", "hang", "")
    checks = [{"type": "taste", "way": way, "timeout_s": 0.1 if way == "hang" else 60} for way in ways]
    verdict = await judge_workspace(bench.request(*checks))
    assert [(result.status, result.score) for result in verdict.checks] == [("error", 0.0)] * 5 + [("passed", 1.0)]
    details = [result.detail for result in verdict.checks]
    assert "NoneType, which is no CheckOutcome" in details[0]
    assert "the status 'great'" in details[1]
    assert "a detail that is no text" in details[2]
    assert "the score '1'" in details[3]
    assert "timeout_s" in details[4]


async def test_a_package_that_cannot_be_used_is_told_where_the_task_names_it(
    bench: Bench, task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = "\n".join((
        "file_present = outside_wrong:Bare",
        "bare = outside_wrong:Bare",
        "gone = outside_wrong:Nobody",
        "missing = no_such_module_anywhere:X",
        "tierless = outside_wrong:Tierless",
        "no_tier = outside_wrong:NoTier",
        "taste = outside_wrong:Taste",
    ))  # fmt: skip
    install(bench, monkeypatch, "outside_wrong", points, TASTE)
    install(bench, monkeypatch, "outside_twice", "taste = outside_twice:Taste", TASTE)

    def told(kind: str) -> str:
        (task / "task.yaml").write_text(
            TASK.replace("type: max_words, path: summary.md, limit: 4, twice_is_zero: true", kind)
        )
        return "\n".join(map(str, inspect_task(task).problems))

    assert "task.yaml:11: grader.checks[1].type: the type of check 'bare' of the package outside_wrong has no" in told(
        "type: bare"
    )
    assert "'gone' of the package outside_wrong cannot be loaded: AttributeError" in told("type: gone")
    assert "'missing' of the package outside_wrong cannot be loaded: ModuleNotFoundError" in told("type: missing")
    assert "is brought by the package outside_" in told("type: taste")
    assert told("type: tierless, reference: [no, path]") == ""
    manifest = load_task(task).manifest
    assert unsupported_checks(manifest) == [
        "short (the type of check 'tierless' has the tier 'fourth'; there are deterministic, reference, rubric)"
    ]
    assert told("type: no_tier") == ""
    assert "'no_tier' has the tier None" in unsupported_checks(load_task(task).manifest)[0]


@pytest.mark.parametrize("kind", sorted(CHECK_TYPES))
def test_our_own_types_keep_to_the_same_protocol(kind: str) -> None:
    assert load_check(kind).arguments is CHECK_MODELS[kind]
