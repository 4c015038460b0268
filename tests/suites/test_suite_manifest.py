"""What a suite's manifest may say, and how its faults are told."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fbench.engine.errors import UsageError
from fbench.suites.manifest import SuiteError, builtin_suites, find_suite, load_suite
from fbench.suites.planning import SuiteRequest, prepare_suite
from fbench.suites.selecting import select_tasks

if TYPE_CHECKING:
    from fbench.suites.plan import SuitePlan
    from tests.suites.conftest import Workshop


def ids(path: Path) -> list[str]:
    return [task.manifest.id for task in select_tasks(load_suite(path))]


async def plan_of(path: Path, *, models: tuple[str, ...] = ("fake/nop",), **asked: Any) -> "SuitePlan":
    options = {"runs_dir": path.parent / "runs", **asked.pop("options", {})}
    return (await prepare_suite(load_suite(path), SuiteRequest(options, models, **asked), {})).plan


def test_the_built_in_suites_hold_what_they_say() -> None:
    suites = {path.stem: load_suite(path) for path in builtin_suites()}
    assert {name for name, suite in suites.items() if suite.manifest.id != name} == set()
    tasks = {name: [task.manifest for task in select_tasks(suite)] for name, suite in suites.items()}
    assert [task.id for task in tasks["m2_core"]] == ["pandas_transform", "sklearn_classifier", "postgres_migration"]
    assert {task.id for task in tasks["smoke"]} < {task.id for task in tasks["mle_full"]}
    assert all(not task.environment.services for task in tasks["smoke"])
    assert all(task.solution for task in tasks["smoke"])  # fake/oracle plays it
    assert suites["smoke"].manifest.models == ("fake/oracle",)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("modells: [fake/nop]", "suite.yaml:3: modells: unknown key; did you mean 'models'?"),
        ("attempts: 0", "suite.yaml:3: attempts: 0 is out of range: must be above 0"),
        ("models: fake/nop", "suite.yaml:3: models: must be a list, found the text 'fake/nop'; write [fake/nop]"),
        ("filter: {difficulty: [eassy]}", "did you mean 'easy'?"),
        ("filter: {tag: [x]}", "suite.yaml:3: filter.tag: unknown key; did you mean 'tags'?"),
        ("budget: {cost: 1}", "suite.yaml:3: budget.cost: unknown key; did you mean 'cost_usd'?"),
        (
            "overrides: {one: {attempt: 2}}",
            "suite.yaml:3: overrides.one.attempt: unknown key; did you mean 'attempts'?",
        ),
        ("models: [fake/nop, fake/nop]", "suite.yaml:3: models[1]: the model 'fake/nop' is listed twice"),
        ("overrides: {two: {attempts: 2}}", "suite.yaml:3: overrides.two: no task of this suite has the id 'two'"),
        ("exclude: [nobody]", "suite.yaml:3: exclude[0]: unknown task 'nobody'"),
        ("filter: {tags: [none]}", "suite.yaml:3: filter: none of the 1 tasks is left"),
        ("exclude: [./tasks/*]", "suite.yaml:3: exclude: no task is left"),
    ],
)
def test_a_fault_is_told_with_its_line_and_the_key_that_was_meant(workshop: "Workshop", line: str, words: str) -> None:
    workshop.task("one")
    path = workshop.root / "suite.yaml"
    path.write_text(f"id: small\ntasks: [./tasks/one]\n{line}\n")
    with pytest.raises(SuiteError) as caught:
        select_tasks(load_suite(path))
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_entries_are_ids_patterns_and_paths_from_the_suites_file(
    workshop: "Workshop", monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name in ("alpha", "beta", "gamma"):
        workshop.task(name)
    (workshop.root / "tasks" / "notes").mkdir()
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert ids(workshop.suite("./tasks/*")) == ["alpha", "beta", "gamma"]
    assert ids(workshop.suite("./tasks/[bg]*", "tasks/alpha")) == ["beta", "gamma", "alpha"]
    assert ids(workshop.suite(str(workshop.root / "tasks" / "*a"), exclude=["./tasks/beta"])) == ["alpha", "gamma"]
    assert ids(workshop.suite("**/gamma/")) == ["gamma"]
    assert ids(workshop.suite("pandas_*", "hello_repo_fix", "tasks/beta")) == [
        "pandas_transform", "hello_repo_fix", "beta",
    ]  # fmt: skip
    for entry in ("nobody_*", "./tasks/x*"):
        with pytest.raises(SuiteError, match=r"suite\.yaml:3: tasks\[0\]: no task answers to the pattern"):
            ids(workshop.suite(entry))


def test_a_filter_wants_every_key_and_any_of_the_tags(workshop: "Workshop") -> None:
    workshop.task("one", difficulty="easy", domain="sql", tags=["a"])
    workshop.task("two", difficulty="hard", domain="sql", tags=["a", "b"])
    workshop.task("three", difficulty="hard", domain="vision", tags=["c"])
    workshop.task("four", environment={"services": {"db": {"image": "postgres:16-alpine"}}})

    def kept(**keys: Any) -> set[str]:
        return set(ids(workshop.suite(filter=keys)))

    assert kept(difficulty=["hard"]) == {"two", "three"}
    assert kept(domain=["sql"], difficulty=["easy", "medium"]) == {"one"}
    assert kept(tags=["b", "c"]) == {"two", "three"}
    assert kept(services=True) == {"four"}
    assert kept(services=False) == {"one", "two", "three"}


def test_broken_tasks_fail_the_plan_all_at_once_before_anything_is_made(workshop: "Workshop") -> None:
    workshop.task("good")
    workshop.task("bad", difficulty="eassy")
    workshop.task("worse", nonsense=1)
    done = workshop.invoke("run", workshop.suite(models=["fake/nop"]))
    assert isinstance(done.exception, SuiteError)
    assert "bad/task.yaml:3: difficulty" in str(done.exception)
    assert "worse/task.yaml:" in str(done.exception)
    assert not workshop.runs_dir.exists()


async def test_all_that_cannot_run_is_said_at_once(workshop: "Workshop") -> None:
    workshop.task("one")
    path = workshop.suite()
    with pytest.raises(UsageError) as caught:
        await plan_of(path, models=("fake/nop", "fake/script:missing.yaml", "opnai/x", "openai/gpt-4o"))
    said = str(caught.value).splitlines()
    assert len(said) == 3
    assert "one with fake/script:missing.yaml: the fake script missing.yaml is no file" in said[0]
    assert "did you mean openai/x?" in said[1]
    assert "OPENAI_API_KEY" in said[2]
    with pytest.raises(UsageError, match="names no models: say --model M"):
        await plan_of(path, models=())


async def test_the_command_line_goes_before_the_task_in_the_suite_before_the_suite_before_the_task(
    workshop: "Workshop",
) -> None:
    workshop.task("one", budget={"tokens": 1, "tool_calls": 1, "wall_time_s": 1, "cost_usd": 1})
    workshop.task("two")
    path = workshop.suite(
        attempts=2,
        budget={"tokens": 20, "tool_calls": 20, "wall_time_s": 20, "turns": 20},
        model={"temperature": 0.2},
        overrides={"one": {"attempts": 3, "sandbox": "bubblewrap", "budget": {"tokens": 300, "tool_calls": 300}}},
    )
    plan = await plan_of(path, options={"max_tokens": 4000, "max_turns": "none"})
    assert plan.task("one").options == {
        "sandbox": "bubblewrap", "temperature": 0.2,
        "max_tokens": 4000, "max_tool_calls": 300, "max_wall_time": 20.0, "max_turns": "none",
    }  # fmt: skip
    assert plan.task("two").options["max_tool_calls"] == 20
    assert [cell.attempt for cell in plan.cells] == [1, 2, 3, 1, 2]
    assert [cell.attempt for cell in (await plan_of(path, attempts=1)).cells] == [1, 1]
    assert plan.options(plan.cells[0], workshop.runs_dir).max_turns == "none"


@pytest.mark.parametrize(
    ("given", "in_suite", "in_task", "seeds"),
    [
        (None, None, None, [None, None]),
        (None, None, 5, [5, 6]),
        (None, 7, 5, [7, 8]),
        (9, 7, 5, [9, 10]),
        ("none", 7, 5, [None, None]),
    ],
)
async def test_each_attempt_has_a_seed_of_its_own(
    workshop: "Workshop", given: Any, in_suite: int | None, in_task: int | None, seeds: list[int | None]
) -> None:
    workshop.task("one", model={"seed": in_task})
    options = {} if given is None else {"seed": given}
    plan = await plan_of(workshop.suite(model={"seed": in_suite}), options=options, attempts=2)
    assert [cell.seed for cell in plan.cells] == seeds
    assert [plan.options(cell, workshop.runs_dir).seed for cell in plan.cells] == (
        ["none", "none"] if given == "none" else seeds
    )


async def test_a_plan_is_the_same_after_it_was_written_and_read(workshop: "Workshop") -> None:
    workshop.task("one")
    options = {"max_cost": "0.10", "image_map": {"a": "b"}, "record": "traffic.jsonl"}
    plan = await plan_of(workshop.suite(), options=options, max_suite_cost="1.25")
    assert type(plan).model_validate_json(plan.model_dump_json()) == plan
    assert Path(plan.task("one").options["record"]).is_absolute()


async def test_the_default_of_runs_at_once_goes_by_what_tasks_declare(
    workshop: "Workshop", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fbench.suites.capacity._cores", lambda: 8)
    monkeypatch.setattr("fbench.suites.capacity._memory_bytes", lambda: 20 * 1024**3)
    workshop.task("one", environment={"resources": {"cpus": 2.0, "memory": "1g"}})
    assert (await plan_of(workshop.suite())).concurrency == 4
    workshop.task("two", environment={"resources": {"cpus": 0.5, "memory": "8g"}})
    assert (await plan_of(workshop.suite())).concurrency == 2
    workshop.task("three", environment={"resources": {"cpus": 100.0}})
    assert (await plan_of(workshop.suite())).concurrency == 1
    assert (await plan_of(workshop.suite(), concurrency=7)).concurrency == 7
    assert (await plan_of(workshop.suite(concurrency=6))).concurrency == 6


def test_an_unknown_suite_is_told_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'm2_core'"):
        find_suite("m2-cor")


async def test_a_password_in_the_address_is_not_stored(workshop: "Workshop") -> None:
    workshop.task("one")
    with pytest.raises(UsageError, match="OPENAI_BASE_URL"):
        await plan_of(workshop.suite(), options={"base_url": "http://me:secret@127.0.0.1:1/v1"})


def test_every_key_of_a_suite_is_documented(request: pytest.FixtureRequest) -> None:
    from fbench.suites.manifest import AskedOfModels, Filter, Override, SuiteBudget, SuiteManifest

    text = (request.config.rootpath / "docs" / "suites.md").read_text(encoding="utf-8")
    example = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert set(example) == set(SuiteManifest.model_fields)
    assert set(example["filter"]) == set(Filter.model_fields)
    assert set(example["budget"]) == set(SuiteBudget.model_fields)
    assert set(example["model"]) == set(AskedOfModels.model_fields)
    assert set(next(iter(example["overrides"].values()))) == set(Override.model_fields)
