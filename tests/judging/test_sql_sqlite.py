"""`sql_check` on SQLite files of the final workspace, in real sandboxes."""

import json
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fbench.engine.seams import Limits, Sandbox, SandboxSpec

if TYPE_CHECKING:
    from tests.judging.conftest import Bench
else:
    Bench = Any

ORDERS = "create table orders (id integer primary key, what text, price real, raw blob);"
ROWS = "insert into orders values (1, 'tea', 2.5, x'00ff'), (2, '1', 1, null), (3, 'tea', 2.50, x'');"


def sql(query: str, *expect: list[Any], dsn: str = "sqlite:///out/app.db", **fields: Any) -> dict[str, Any]:
    return {"type": "sql_check", "dsn": dsn, "query": query, "expect": list(expect), **fields}


def make_database(bench: Bench, script: str = ORDERS + ROWS) -> Path:
    path = bench.final / "out" / "app.db"
    path.parent.mkdir(exist_ok=True)
    with sqlite3.connect(path) as connection:
        connection.executescript(script)
    connection.close()
    return path


async def test_rows_are_compared_by_value_and_type_as_multisets(either: Bench) -> None:
    make_database(either)
    verdict = await either.judge(
        sql("select id, what, price from orders", [3, "tea", 2.5], [1.0, "tea", 2.5], [2, "1", 1]),
        sql("select what from orders;", ["1"], ["tea"], ["tea"]),
        sql("select what from orders", ["1"], ["tea"], ["1"]),
        sql("select what from orders", [1], ["tea"], ["tea"]),
        sql("select id = 1 from orders where id = 1", [True]),
        sql("select hex(raw), raw from orders where id = 1", ["00FF", "\\x00ff"]),
        sql("select raw from orders where id = 2", [None]),
        sql("select raw from orders where id = 2", [""]),
        sql("select id from orders where id > 9"),
    )
    statuses = [result.status for result in verdict.checks]
    assert statuses == ["passed", "passed", "failed", "failed", "failed", "passed", "passed", "failed", "passed"], (
        verdict
    )
    assert verdict.checks[0].detail == "the rows are as expected (3 rows, in any order)"
    assert verdict.checks[2].detail == "missing: ('1') (and 1 more)"
    assert verdict.checks[3].detail == "missing: (1) (and 1 more)"
    assert verdict.checks[4].detail == "missing: (true) (and 1 more)"
    seen = json.loads((either.outputs / "check4.json").read_text())
    assert seen["differences"] == ["missing: (1)", "not expected: ('1')"]
    assert seen["rows"] == [["'tea'"], ["'1'"], ["'tea'"]]


async def test_order_counts_only_where_it_is_asked_for(bench: Bench) -> None:
    make_database(bench)
    verdict = await bench.judge(
        sql("select id from orders order by id", [3], [2], [1]),
        sql("select id from orders order by id", [3], [2], [1], ordered=True),
        sql("select id from orders order by id", [1], [2], [3], ordered=True),
        sql("select id from orders order by id", [1], [2], ordered=True),
        sql("select id, what from orders", [1]),
    )
    assert [result.status for result in verdict.checks] == ["passed", "failed", "passed", "failed", "failed"]
    assert verdict.checks[1].detail == "row 1, column 'id': expected 3, got 1 (and 1 more)"
    assert verdict.checks[3].detail == "expected 2 rows, got 3 (and 1 more)"
    assert verdict.checks[4].detail == "expected 1 column, the query gives 2: 'id', 'what'"


async def test_a_database_that_is_not_there_has_failed(either: Bench, tmp_path: Path) -> None:
    secret = tmp_path / "secret.db"
    with sqlite3.connect(secret) as connection:
        connection.executescript("create table t (a); insert into t values (1);")
    connection.close()
    (either.final / "link.db").symlink_to(secret)
    os.mkfifo(either.final / "pipe.db")
    verdict = await either.judge(
        *(sql("select 1", [1], dsn=f"sqlite:///{name}") for name in ("no.db", "link.db", "pipe.db", "../secret.db"))
    )
    assert [result.status for result in verdict.checks] == ["failed"] * 4, verdict
    assert verdict.checks[1].detail == "'link.db' is no regular file of the final workspace"


async def test_a_link_that_stays_inside_is_followed(either: Bench) -> None:
    make_database(either)
    (either.final / "latest.db").symlink_to("out/app.db")
    result = await either.check(**sql("select count(*) from orders", [3], dsn="sqlite:///latest.db"))
    assert result.status == "passed", result


async def test_what_the_database_has_against_the_query_is_in_the_detail(either: Bench) -> None:
    make_database(either)
    either.write(either.final, {"out/text.db": "this is no database at all, only some text" * 40})
    verdict = await either.judge(
        sql("select * from missing_table"),
        sql("select 1", [1], dsn="sqlite:///out/text.db"),
        sql("select 1; select 2", [1]),
        sql("delete from orders"),
        sql("attach database 'other.db' as other"),
    )
    assert [result.status for result in verdict.checks] == ["failed"] * 5, verdict
    assert verdict.checks[0].detail == "no such table: missing_table"
    assert "file is not a database" in verdict.checks[1].detail or "unable to open" in verdict.checks[1].detail
    assert "one statement at a time" in verdict.checks[2].detail
    assert "readonly" in verdict.checks[3].detail
    assert verdict.checks[4].detail == "not authorized"


async def test_rows_that_only_the_write_ahead_log_holds_are_seen(either: Bench) -> None:
    path = make_database(either)
    connection = sqlite3.connect(path)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma wal_autocheckpoint = 0")
    connection.execute("insert into orders (id) values (4)")
    connection.commit()
    assert path.with_name("app.db-wal").stat().st_size > 0
    before = path.read_bytes()
    result = await either.check(**sql("select count(*) from orders", [4]))
    connection.close()
    assert result.status == "passed", result
    assert before.count(b"tea") == 2


async def test_a_query_without_end_is_an_error_after_its_timeout(bench: Bench) -> None:
    make_database(bench)
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
    result = await bench.check(**sql(endless, [1], timeout_s=0.5))
    assert (result.status, result.detail) == ("error", "the query did not end within its timeout_s of 0.5 s")


async def test_rows_without_end_have_failed_in_bounded_memory(bench: Bench) -> None:
    make_database(bench)
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select {} from n"
    verdict = await bench.judge(
        sql(endless.format("i"), [1]),
        sql(endless.format("zeroblob(1000000)"), [1]),
    )
    assert [result.status for result in verdict.checks] == ["failed", "failed"]
    assert verdict.checks[0].detail == "the query gave more than 100000 rows; expected 1 row"
    assert verdict.checks[1].detail == "the query gave more bytes than can be compared; expected 1 row"


async def test_a_query_that_takes_too_much_memory_is_told_so(bench: Bench) -> None:
    make_database(bench)
    has_group: list[bool] = []

    @asynccontextmanager
    async def open_sandbox(spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        async with bench.open_sandbox(replace(spec, limits=Limits(memory_bytes=100 * 1024**2))) as sandbox:
            has_group.append(sandbox.capabilities.limits["memory"] == "cgroup")
            yield sandbox

    verdict = await bench.judge(sql("select length(randomblob(900000000))", [1]), open_sandbox=open_sandbox)
    (result,) = verdict.checks
    assert result.status == "error" or not has_group[0], result
    assert ("`environment.resources.memory`" if has_group[0] else "memory") in result.detail, result


async def test_modules_planted_in_the_workspace_are_not_imported(either: Bench) -> None:
    make_database(either, "create table t (a); insert into t values (1);")
    forged = (
        """import os; os.write(1, b'{"columns": [["a", ""]], "rows": [[["number", "2"]]], "cut": ""}'); os._exit(0)"""
    )
    planted = ("sqlite3", "json", "sitecustomize", "usercustomize", "pathlib", "pg8000", "tempfile")
    either.write(either.final, {f"{name}.py": forged for name in planted})
    either.write(either.final, {f"out/{name}.py": forged for name in planted})
    result = await either.check(**sql("select a from t", [2]))
    assert (result.status, result.detail) == ("failed", "missing: (2) (and 1 more)")


async def test_the_final_workspace_is_left_as_it_was(either: Bench) -> None:
    path = make_database(either)
    before = {entry.name: entry.read_bytes() for entry in path.parent.iterdir()}
    await either.check(**sql("select count(*) from orders", [3]))
    assert {entry.name: entry.read_bytes() for entry in path.parent.iterdir()} == before


@pytest.mark.parametrize(
    "dsn",
    [
        "sqlite:////etc/passwd",
        "sqlite://host/a.db",
        "sqlite:///a.db?mode=rwc",
        "sqlite:///",
        "postgresql:///base",
        "postgresql://u:hunter2@h:99999/x",
        "postgresql://u:hunter2@h/x?sslkey=a",
        "postgresql://u:hunter2@h/x?sslmode=prefer",
    ],
)
async def test_an_address_that_cannot_be_used_is_an_error_that_hides_the_password(bench: Bench, dsn: str) -> None:
    result = await bench.check(**sql("select 1", [1], dsn=dsn))
    assert result.status == "error"
    assert result.detail.startswith("the task's dsn cannot be used: ")
    assert "hunter2" not in result.detail + (bench.outputs / "check1.json").read_text()
