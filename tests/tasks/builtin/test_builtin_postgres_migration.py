"""The task on a private PostgreSQL of this machine; the addresses in its commands are replaced by that server's."""

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fbench.engine.models.script import load_script
from fbench.engine.seams import JudgeRequest
from fbench.judging.judge import judge_workspace

if TYPE_CHECKING:
    from fbench.engine.results import Verdict
    from tests.loopback.postgres import PostgresServer
else:
    PostgresServer = Any

pytest.importorskip("pg8000.native", reason="pg8000 is not installed in fbench's own environment")

EXPLOITS = ("forge_the_answers", "hard_coded", "read_the_grader")
TASK_DSN = "postgresql://postgres:bench@db/postgres"
# One rule of the prompt broken by each.
FAULTS = {
    "sku_as_typed": ("select upper(trim(sku)), trim(title)", "select trim(sku), trim(title)"),
    "titles_as_typed": ("trim(title), (regexp", "title, (regexp"),
    "cents_are_cut": ("::numeric * 100)::bigint", "::numeric)::bigint * 100"),
    "emails_as_typed": ("select id, lower(trim(email)) as email", "select id, trim(email) as email"),
    "spaces_in_names": ("trim(regexp_replace(name, '\\s+', ' ', 'g')) as name", "trim(name) as name"),
    "first_joined": ("min(joined_on)", "(array_agg(joined_on order by id))[1]"),
    "last_name": ("(array_agg(name order by id))[1]", "(array_agg(name order by id desc))[1]"),
    "no_customers_rejected": ("where id not in (select id from person);", "where false;"),
    "order_of_reasons": (
        "when not exists (select from item where order_id = o.id) then 'no items'",
        "when false then ''",
    ),
    "cancelled_in_american": ("when 'canceled' then 'cancelled'", "when 'canceled' then 'open'"),
    "local_time": ("set timezone to 'UTC';", "set timezone to 'Asia/Tokyo';"),
    "quantities_once": ("select order_id, sku, sum(quantity)\n", "select order_id, sku, max(quantity)\n"),
    "total_without_quantity": ("sum(quantity * price_cents)", "sum(price_cents)"),
    "customer_as_typed": ("select o.id, person.survivor,", "select o.id, o.customer_id,"),
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    path = Path(__file__).parents[2] / "loopback" / "postgres.py"
    spec = importlib.util.spec_from_file_location("fbench_tests_postgres", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fbench_tests_postgres"] = module
    spec.loader.exec_module(module)
    with module.start_postgres() as server:
        yield server


@pytest.fixture
def task(open_builtin: Callable[[str], Any]) -> Any:
    return open_builtin("postgres_migration")


@pytest.fixture
def shop(task: Any, postgres: PostgresServer) -> str:
    """The address of a database as the service has it when the agent comes."""
    postgres.run("drop database if exists shop with (force)")
    postgres.run("alter role postgres reset all")
    postgres.run("create database shop template template0")
    postgres.run((task.folder / "services" / "init.sql").read_text(encoding="utf-8"), "shop")
    return postgres.dsn("shop")


def carry_out(task: Any, script: str, workspace: Path, dsn: str) -> Path:
    """The workspace after a script of the solution or the exploits, which take the address as an argument."""
    done = task.run(f'bash "{task.folder / script}" "{dsn}"', workspace)
    assert done.returncode == 0, done.stderr.decode()
    return workspace


def measured(task: Any, workspace: Path, dsn: str, mode: str = "once a_seed") -> dict[str, Any]:
    found: dict[str, Any] = task.measure(f'python -I -B "$FBENCH_GRADER/judge.py" {dsn} {mode}', workspace)
    return found


async def judged(task: Any, workspace: Path, dsn: str) -> "Verdict":
    """The verdict of the real judge, in sandboxes of the kind `local`."""
    from fbench.engine.seams import SandboxSpec
    from fbench.sandboxes.local import open_sandbox

    checks = []
    for check in task.manifest.grader.checks:
        changes = {
            name: getattr(check, name).replace(TASK_DSN, dsn) for name in ("dsn", "command") if hasattr(check, name)
        }
        checks.append(check.model_copy(update=changes))
    grader = task.manifest.grader.model_copy(update={"checks": tuple(checks)})
    scratch = task.scratch / "judging"
    request = JudgeRequest(
        manifest=task.manifest.model_copy(update={"grader": grader}),
        task_folder=task.folder,
        workspace_final=workspace,
        scratch=scratch,
        outputs=task.scratch / "outputs",
        spec=SandboxSpec(run_id="run-1", workspace=workspace, scratch=scratch),
        open_sandbox=open_sandbox,
        on_check=lambda _: None,
    )
    return await judge_workspace(request)


async def test_the_untouched_shop_scores_nothing(task: Any, shop: str) -> None:
    verdict = await judged(task, task.open_workspace(), shop)
    assert (verdict.score, verdict.passed) == (0.0, False)


async def test_the_migration_of_the_solution_passes_every_check(task: Any, shop: str) -> None:
    workspace = carry_out(task, "solution/solve.sh", task.open_workspace(), shop)
    verdict = await judged(task, workspace, shop)
    assert {check.id: check.detail for check in verdict.checks if check.status != "passed"} == {}
    assert (verdict.score, verdict.passed) == (1.0, True)


@pytest.mark.parametrize("name", EXPLOITS)
async def test_a_migration_exploit_gains_nothing(task: Any, shop: str, name: str) -> None:
    workspace = carry_out(task, f"exploits/{name}.sh", task.open_workspace(), shop)
    verdict = await judged(task, workspace, shop)
    assert (verdict.score, verdict.passed) == (0.0, False), verdict
    assert not any(check.status == "passed" and check.id == "migrates_other_data" for check in verdict.checks)


def test_the_migration_manifest_lists_every_exploit(task: Any) -> None:
    assert set(task.manifest.exploits) == {f"exploits/{name}.sh" for name in EXPLOITS}
    assert {path.stem for path in (task.folder / "exploits").iterdir()} == set(EXPLOITS)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_rule_costs_rows_of_another_shop(task: Any, shop: str, fault: str) -> None:
    workspace = carry_out(task, "solution/solve.sh", task.open_workspace(), shop)
    script = workspace / "migrate.sql"
    text = script.read_text(encoding="utf-8")
    old, new = FAULTS[fault]
    assert text.count(old) == 1
    script.write_text(text.replace(old, new), encoding="utf-8")
    found = measured(task, workspace, shop)
    assert 0.0 <= found["rows_right"] < 1.0


async def test_the_lazy_migration_earns_a_part(task: Any, shop: str) -> None:
    script = load_script(task.folder / "lazy.yaml")
    workspace = task.open_workspace()
    arguments = script.turns[0].tool_calls[0].arguments
    assert isinstance(arguments, dict)
    done = task.run(arguments["command"].replace(TASK_DSN, shop), workspace)
    assert done.returncode == 0, done.stderr.decode()
    verdict = await judged(task, workspace, shop)
    assert not verdict.passed
    assert 0.5 < verdict.score < 0.7


def test_a_migration_that_runs_once_only_misses_rows_that_came_later(task: Any, shop: str) -> None:
    workspace = carry_out(task, "solution/solve.sh", task.open_workspace(), shop)
    script = workspace / "migrate.sh"
    script.write_text(f"psql -X -q -A -t -c 'select 1 from v2.orders limit 1' \"$1\" && exit 0\n{script.read_text()}")
    assert measured(task, workspace, shop)["rows_right"] == 1.0
    assert 0.0 < measured(task, workspace, shop, "again a_seed")["rows_right"] < 1.0


def test_no_database_of_the_judge_is_left(task: Any, shop: str, postgres: PostgresServer) -> None:
    workspace = task.open_workspace()
    (workspace / "migrate.sh").write_text("exit 3\n")
    assert "ended with exit code 3" in measured(task, workspace, shop)["problem"]
    assert postgres.run("select count(*) from pg_database where datname like 'fbench%'") == "0\n"


def test_the_shipped_shop_is_what_the_generator_makes(task: Any, shop: str, postgres: PostgresServer) -> None:
    made = task.run('python -I -B "$FBENCH_GRADER/generate.py" visible', task.scratch).stdout
    assert made == (task.folder / "services" / "init.sql").read_bytes()
    truth = json.loads(task.run('python -I -B "$FBENCH_GRADER/generate.py" visible --truth', task.scratch).stdout)
    checks = {check.id: check for check in task.manifest.grader.checks}
    assert checks["live_customers"].expect[0][0] == len(truth["customers"])
    assert sum(row[1] for row in checks["live_orders"].expect) == len(truth["orders"])
    assert sum(row[2] for row in checks["live_rejected"].expect) == len(truth["rejected"])
    assert checks["live_items"].expect[0][0] == len(truth["order_items"])
    for name in ("orders", "customers", "products"):
        assert postgres.run(f"select count(*) > 0 from v1.{name}", "shop") == "t\n"
