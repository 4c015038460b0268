"""`sql_check` on a real PostgreSQL, asked through pg8000 and through psql, from sandboxes of the kind `local`."""

import importlib.util
import json
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fbench.judging import inside, sql_inside

if TYPE_CHECKING:
    from tests.judging.conftest import Bench
    from tests.loopback.postgres import PostgresServer
else:
    Bench = PostgresServer = Any

SECRET = "bench-secret"
PROGRAM = Path(sql_inside.__file__).read_text(encoding="utf-8")
SCHEMA = """
create table things (
    id int primary key, big bigint, name text, price numeric(10, 2), weight float8, is_new boolean, raw bytea,
    made date, seen timestamp, sold timestamptz, facts jsonb, tags text[]
);
insert into things values
    (1, 9007199254740993, 'tea', 2.50, 0.1, true, '\\x00ff', '2024-02-29', '2024-03-01 00:30:00',
     '2024-03-01 00:30:00+02', '{"a": [1, 2.0, null], "b": "x"}', '{a,b}'),
    (2, null, E'tab\\there, \\\\N and \\n"', 1.00, 'NaN', false, null, null, '2024-03-01 00:30:00.125',
     'infinity', '"x"', '{}');
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    path = Path(__file__).parents[1] / "loopback" / "postgres.py"
    spec = importlib.util.spec_from_file_location("fbench_tests_postgres", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fbench_tests_postgres"] = module
    spec.loader.exec_module(module)
    with module.start_postgres() as server:
        server.run(SCHEMA)
        yield server


@pytest.fixture(params=["pg8000", "psql"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to PostgreSQL, one test each."""
    name: str = request.param
    if name == "psql":
        if shutil.which("psql") is None:
            pytest.skip("psql is not installed on this machine: `apt-get install postgresql-client`")
        assert PROGRAM.count('"pg8000.native"') == 1
        without = PROGRAM.replace('"pg8000.native"', '"no_such_driver"')
        monkeypatch.setattr(inside, "_text_of", lambda _: without)
    else:
        pytest.importorskip("pg8000.native", reason="pg8000 is not installed in fbench's own environment")
    return name


def asked(server: PostgresServer, query: str, *expect: list[Any], **fields: Any) -> dict[str, Any]:
    return {"type": "sql_check", "dsn": server.dsn(), "query": query, "expect": list(expect), **fields}


async def test_each_type_is_compared_as_what_it_is(bench: Bench, postgres: PostgresServer, client: str) -> None:
    def column(name: str, first: Any, second: Any) -> dict[str, Any]:
        return asked(postgres, f"select {name} from things order by id", [first], [second], ordered=True)

    right = [
        column("id", 1, 2.0),
        column("big", 9007199254740993, None),
        column("name", "tea", 'tab\there, \\N and \n"'),
        column("price", 2.5, 1),
        column("weight", 0.1, 0.1) | {"query": "select weight from things where id = 1", "expect": [[0.1]]},
        column("is_new", True, False),
        column("raw", "\\x00ff", None),
        column("made", "2024-02-29", None),
        column("seen", "2024-03-01T00:30:00", "2024-03-01 00:30:00.125"),
        column("sold", "2024-02-29T22:30:00Z", "infinity"),
        column("facts", {"b": "x", "a": [1, 2, None]}, "x"),
        column("tags", "{a,b}", "{}"),
        asked(postgres, "select count(*) from things -- with a comment", [2]),
        asked(postgres, "(values (1, 'a')) union all select 2, 'b';\n", [2, "b"], [1, "a"]),
        asked(postgres, "with t as (select 1 as one) table t", [1]),
        asked(postgres, "select 1 where false"),
        asked(postgres, "select 50 % 20 as \"a:b\", ':x', '%s'", [10, ":x", "%s"]),
    ]
    wrong = [
        column("id", "1", "2"),
        column("big", 9007199254740992, None),
        column("price", "2.50", "1.00"),
        column("is_new", 1, 0),
        column("raw", "\\x00ff", ""),
        column("seen", "2024-03-01T00:30:00Z", "2024-03-01 00:30:00.125"),
        column("sold", "2024-03-01T00:30:00Z", "infinity"),
        column("facts", {"a": [1, 2]}, "x"),
    ]
    verdict = await bench.judge(*right, *wrong)
    assert [result.status for result in verdict.checks] == ["passed"] * len(right) + ["failed"] * len(wrong), verdict
    assert verdict.checks[len(right)].detail == "row 1, column 'id': expected '1', got 1 (and 1 more)"


async def test_the_query_cannot_change_the_database(bench: Bench, postgres: PostgresServer, client: str) -> None:
    postgres.run("create or replace function meddle() returns int language sql as 'delete from things; select 1'")
    verdict = await bench.judge(
        asked(postgres, "delete from things returning id", [1]),
        asked(postgres, "with gone as (delete from things returning id) select * from gone", [1]),
        asked(postgres, "select meddle()", [1]),
        asked(postgres, "select count(*) from things", [2]),
    )
    assert [result.status for result in verdict.checks] == ["failed", "failed", "failed", "passed"], verdict
    assert "read-only transaction" in verdict.checks[2].detail


async def test_words_of_the_database_are_the_detail(bench: Bench, postgres: PostgresServer, client: str) -> None:
    verdict = await bench.judge(
        asked(postgres, "select * from v2.orders"),
        asked(postgres, "select 1 / 0"),
        asked(postgres, "select 1") | {"dsn": postgres.dsn("no_such_database")},
        asked(postgres, "select 1") | {"dsn": postgres.dsn(password="wrong-secret")},
    )
    assert verdict.checks[0].status == verdict.checks[1].status == "failed", verdict
    assert verdict.checks[0].detail == 'relation "v2.orders" does not exist (SQLSTATE 42P01)'
    assert verdict.checks[1].detail == "division by zero (SQLSTATE 22012)"
    assert 'database "no_such_database" does not exist' in verdict.checks[2].detail
    assert "password authentication failed" in verdict.checks[3].detail
    kept = "".join(path.read_text() for path in bench.outputs.iterdir()) + str(verdict)
    assert SECRET not in kept
    assert "wrong-secret" not in kept


async def test_a_slow_query_and_a_closed_door_are_errors(bench: Bench, postgres: PostgresServer, client: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    verdict = await bench.judge(
        asked(postgres, "select pg_sleep(60)", timeout_s=0.5),
        asked(postgres, "select 1", [1]) | {"dsn": f"postgresql://postgres:hunter2@127.0.0.1:{port}/x"},
        asked(postgres, "select 1", [1]) | {"dsn": "postgresql://postgres:hunter2@no-such-host.invalid/x"},
    )
    assert [result.status for result in verdict.checks] == ["error"] * 3, verdict
    assert verdict.checks[0].detail == "the query did not end within its timeout_s of 0.5 s"
    assert verdict.checks[1].detail.startswith(f"the database at 127.0.0.1:{port} cannot be reached: ")
    assert "hunter2" not in str(verdict) + "".join(path.read_text() for path in bench.outputs.iterdir())


async def test_a_server_that_never_answers_is_an_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    monkeypatch.setattr(inside, "STARTING_S", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        held: list[socket.socket] = []
        thread = threading.Thread(target=lambda: held.append(mute.accept()[0]), daemon=True)
        thread.start()
        dsn = f"postgresql://postgres@127.0.0.1:{mute.getsockname()[1]}/x"
        result = await bench.check(type="sql_check", dsn=dsn, query="select 1", expect=[[1]], timeout_s=0.5)
        thread.join(5)
        for connection in held:
            connection.close()
    assert result.status == "error", result
    assert "did not end within its timeout_s" in result.detail


async def test_rows_without_end_have_failed(bench: Bench, postgres: PostgresServer) -> None:
    pytest.importorskip("pg8000.native", reason="pg8000 is not installed in fbench's own environment")
    verdict = await bench.judge(
        asked(postgres, "select i from generate_series(1, 200000) as i", [1]),
        asked(postgres, "select repeat('x', 1000000) from generate_series(1, 1000) as i", [1]),
    )
    assert [result.status for result in verdict.checks] == ["failed", "failed"], verdict
    assert verdict.checks[0].detail == "the query gave more than 100000 rows; expected 1 row"
    assert verdict.checks[1].detail == "the query gave more bytes than can be compared; expected 1 row"


async def test_settings_left_behind_by_the_agent_do_not_reach_the_check(
    bench: Bench, postgres: PostgresServer, client: str
) -> None:
    postgres.run("drop database if exists meddled")
    postgres.run("create database meddled")
    postgres.run(
        "create schema evil; create table evil.t (a int); create table t (a int); insert into t values (1);"
        "create table times (at timestamptz, d date); insert into times values ('2024-03-01 00:00:00Z', '2024-03-01');"
        "alter role postgres in database meddled set search_path = evil, public;"
        "alter database meddled set timezone = 'Asia/Tokyo'; alter database meddled set datestyle = 'German';"
        "alter database meddled set bytea_output = 'escape'; alter database meddled set statement_timeout = '1ms'",
        "meddled",
    )
    other = {"dsn": postgres.dsn("meddled")}
    verdict = await bench.judge(
        asked(postgres, "select a from t", [1]) | other,
        asked(postgres, "select * from times", ["2024-03-01T00:00:00+00:00", "2024-03-01"]) | other,
        asked(postgres, "select '\\xff'::bytea, pg_sleep(0.1)::text", ["\\xff", ""]) | other,
    )
    assert [result.status for result in verdict.checks] == ["passed"] * 3, verdict


async def test_a_sandbox_without_a_client_says_what_to_install(
    bench: Bench, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = PROGRAM.replace('"pg8000.native"', '"no_such_driver"').replace('which("psql")', 'which("no_such_psql")')
    monkeypatch.setattr(inside, "_text_of", lambda _: bare)
    result = await bench.check(**asked(postgres, "select 1", [1]))
    assert result.status == "error"
    assert result.detail.endswith("its image needs the Python module pg8000 (1.16 or later) or the program psql")


async def test_what_was_seen_is_kept(bench: Bench, postgres: PostgresServer, client: str) -> None:
    await bench.check(**asked(postgres, "select name, price from things where id = 1", ["coffee", 2.5]))
    seen = json.loads((bench.outputs / "check1.json").read_text())
    assert seen["dsn"] == f"postgresql://postgres@127.0.0.1:{postgres.port}/postgres"
    assert seen["columns"] == ["name", "price"]
    assert seen["rows"] == [["'tea'", "2.50"]]
    assert seen["expect"] == [["coffee", 2.5]]
    assert seen["differences"] == ["missing: ('coffee', 2.5)", "not expected: ('tea', 2.50)"]
