"""Runs one query where the database can be reached; the text of this file is given to `python3 -I -c` in the sandbox.

It imports the standard library and, for PostgreSQL, pg8000 when it is installed (or else it starts psql), and nothing
of the workspace. It reads one JSON object, a job, from standard input, and prints one JSON object with one of the keys

- `columns` and `rows`: a column is `[name, type]`; a cell is null, true, false or `[kind, text]`, kind being `number`,
  `text`, `bytes` (`\\x` and hexadecimal digits), `time` (ISO 8601) or `json`; `cut` says which bound was passed, or "";
- `failed`: what the database said against the query;
- `error`: why nothing could be asked.
"""

# ruff: noqa: B905, UP017 - a sandbox's Python may be as old as 3.9: no zip(strict=), no datetime.UTC

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NUMBERS = frozenset({"int2", "int4", "int8", "oid", "float4", "float8", "numeric"})
TYPES = {16: "bool", 17: "bytea", 20: "int8", 21: "int2", 23: "int4", 26: "oid", 700: "float4", 701: "float8"}
TYPES |= {1700: "numeric", 1114: "timestamp", 1184: "timestamptz", 114: "json", 3802: "json"}
ATTACH = 24  # SQLITE_ATTACH, which the module names since Python 3.11 only
ROWS_AT_ONCE = 1000
NOT_THE_QUERYS_FAULT = ("08", "53", "57", "58", "XX")
"""Classes of SQLSTATE: connection, resources, an operator's intervention (57014 is the timeout), system, internal."""
# What ALTER ROLE or ALTER DATABASE may have changed, set back for this session.
SETTINGS = (
    'set search_path to "$user", public',
    "set datestyle to 'ISO, YMD'",
    "set intervalstyle to 'postgres'",
    "set timezone to 'UTC'",
    "set bytea_output to 'hex'",
    "set extra_float_digits to 1",
    "set standard_conforming_strings to on",
)


class Failed(Exception):
    """The database refused the query."""


class Unasked(Exception):
    """The database could not be asked, or did not answer in time."""


class Table:
    """Rows as they come, within the bounds of the job."""

    def __init__(self, job: dict[str, Any], columns: list[list[str]]) -> None:
        self.columns = columns
        self.rows: list[list[Any]] = []
        self.cut = ""
        self._max_rows: int = job["max_rows"]
        self._bytes_left: int = job["max_bytes"]

    def add(self, rows: Iterable[Iterable[Any]]) -> bool:
        """Take rows in; False when a bound was passed and no more are wanted."""
        for row in rows:
            cells = list(row)
            self._bytes_left -= sum(len(cell[1].encode()) if isinstance(cell, list) else 4 for cell in cells) + 1
            if len(self.rows) == self._max_rows:
                self.cut = f"more than {self._max_rows} rows"
            elif self._bytes_left < 0:
                self.cut = "more bytes than can be compared"
            if self.cut:
                return False
            self.rows.append(cells)
        return True

    def answer(self) -> dict[str, Any]:
        return {"columns": self.columns, "rows": self.rows, "cut": self.cut}


# -------------------------------------------------------------------------------------------------------------- SQLite


def ask_sqlite(job: dict[str, Any]) -> dict[str, Any]:
    """Query a copy of the file, so that what a journal beside it holds counts and nothing in the workspace changes."""
    root = os.path.realpath(job["workspace"])
    place = os.path.realpath(f"{root}/{job['path']}")
    if not (place.startswith(root + os.sep) and Path(place).is_file()):
        msg = f"{job['path']!r} is no regular file of the final workspace"
        raise Failed(msg)
    with tempfile.TemporaryDirectory() as folder:
        copy = f"{folder}/copy.db"
        for suffix in ("", "-wal", "-journal"):
            part = Path(place + suffix)
            if part.is_file() and not part.is_symlink():
                shutil.copyfile(part, copy + suffix)
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            return read_sqlite(connection, job)


def read_sqlite(connection: sqlite3.Connection, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + job["timeout_s"]
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_DENY if action == ATTACH else sqlite3.SQLITE_OK)
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
    try:
        connection.execute("pragma trusted_schema = off")
        connection.execute("pragma query_only = on")
        connection.execute(
            "pragma schema_version"
        )  # reads the file: `select 1` alone would not see that it is no database
        cursor = connection.execute(job["query"])
        table = Table(job, [[column[0], ""] for column in cursor.description or ()])
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            if not table.add(map(sqlite_cell, row) for row in rows):
                break
    except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
        if time.monotonic() > deadline:
            raise Unasked(out_of_time(job)) from None
        raise Failed(str(error)) from None
    if not table.columns:
        msg = "the statement gives no rows"
        raise Failed(msg)
    return table.answer()


def sqlite_cell(value: Any) -> Any:  # noqa: ANN401 - whatever SQLite stores
    if value is None:
        return None
    if isinstance(value, bytes):
        return ["bytes", "\\x" + value.hex()]
    return ["text", value] if isinstance(value, str) else ["number", repr(value)]


# ---------------------------------------------------------------------------------------------------------- PostgreSQL


def ask_postgres(job: dict[str, Any]) -> dict[str, Any]:
    try:
        driver = importlib.import_module("pg8000.native")
    except ImportError as error:
        if shutil.which("psql"):
            return ask_psql(job)
        msg = (
            f"the grading sandbox has no way to reach PostgreSQL ({error}): its image needs the Python module pg8000 "
            "(1.16 or later) or the program psql"
        )
        raise Unasked(msg) from None
    return ask_pg8000(driver, job)


def ask_pg8000(driver: Any, job: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - a module without types
    names = ("user", "host", "port", "database", "password")
    try:
        connection = driver.Connection(
            **{name: job[name] for name in names},
            ssl_context=True if job["ssl"] else None,
            timeout=job["timeout_s"] + 5,
            application_name="fbench",
        )
    except driver.DatabaseError as error:
        raise verdict_on(error, job, "the database refused the connection") from None
    except (driver.InterfaceError, OSError) as error:
        raise Unasked(unreachable(job, str(error))) from None
    try:
        # Every value as the text PostgreSQL writes; `postgres_cell` is the one place that reads it.
        for oid in importlib.import_module("pg8000.converters").PG_TYPES:
            connection.register_in_adapter(oid, str)
        for statement in (*SETTINGS, f"set statement_timeout to {milliseconds(job)}", "start transaction read only"):
            connection.run(statement)
        return read_pg8000(connection, job)
    except driver.DatabaseError as error:
        raise verdict_on(error, job) from None
    except (driver.InterfaceError, OSError) as error:
        msg = f"the connection to the database was lost during the query: {error}"
        raise Unasked(msg) from None
    finally:
        with contextlib.suppress(driver.Error, OSError):
            connection.close()


def read_pg8000(connection: Any, job: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - a driver without types
    """Through a cursor where the statement can have one, so that only what is compared is ever fetched."""
    has_cursor = can_have_cursor(job["query"])
    rows = connection.run(f"declare fbench_check no scroll cursor for {job['query']}\n" if has_cursor else job["query"])
    fetch = f"fetch {ROWS_AT_ONCE} from fbench_check"
    if has_cursor:
        rows = connection.run(fetch)
    if not connection.columns:
        msg = "the statement gives no rows"
        raise Failed(msg)
    types = [TYPES.get(column["type_oid"], "") for column in connection.columns]
    table = Table(job, [[column["name"], kind] for column, kind in zip(connection.columns, types)])
    while rows and table.add(map(postgres_cell, types, row) for row in rows) and has_cursor:
        rows = connection.run(fetch)
    return table.answer()


def verdict_on(error: Exception, job: dict[str, Any], lead: str = "") -> Exception:
    """What a DatabaseError of pg8000 means; its argument is the server's report, by field."""
    report: Any = error.args[0] if error.args else None
    if not isinstance(report, dict):
        return Unasked(f"{lead or 'the database answered'}: {error}")
    text = ". ".join(str(report[field]) for field in ("M", "D", "H") if report.get(field))
    return verdict_on_state(str(report.get("C", "")), f"{lead}: {text}" if lead else text, job)


def verdict_on_state(state: str, text: str, job: dict[str, Any]) -> Exception:
    if state == "57014":
        return Unasked(out_of_time(job))
    words = f"{text} (SQLSTATE {state})"
    return Unasked(words) if state.startswith(NOT_THE_QUERYS_FAULT) else Failed(words)


def postgres_cell(kind: str, text: str | None) -> Any:  # noqa: ANN401 - a cell as JSON has it
    if text is None:
        return None
    if kind == "bool":
        return text == "t"
    if kind in NUMBERS:
        return ["number", text]
    if kind == "bytea":
        return ["bytes", text]
    if kind in {"timestamp", "timestamptz"}:
        return ["time", iso_time(text)]
    if kind == "json":
        return ["json", text]
    return ["text", text]


def iso_time(text: str) -> str:
    """`2024-03-01 00:30:00+00` as ISO 8601; what datetime cannot hold (infinity, 20000 AD, BC) stays as it is."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(\.\d{1,6})?(\+00)?", text)
    if match is None:
        return text
    fraction = match[3].ljust(7, "0") if match[3] else ""
    moment = datetime.fromisoformat(f"{match[1]}T{match[2]}{fraction}")
    return (moment.replace(tzinfo=timezone.utc) if match[4] else moment).isoformat()


# ---------------------------------------------------------------------------------------------------------------- psql


def ask_psql(job: dict[str, Any]) -> dict[str, Any]:
    """The same through psql: the types by \\gdesc, the rows by COPY, whose text format keeps null apart."""
    settings = "".join(f"{statement};\n" for statement in (*SETTINGS, f"set statement_timeout to {milliseconds(job)}"))
    query = job["query"]
    described = run_psql(job, f"{settings}start transaction read only;\n{query}\n\\gdesc\n")
    columns = [line.split("\t") for line in described.splitlines() if "\t" in line]
    types = [PSQL_TYPES.get(re.sub(r"\([0-9,]+\)", "", kind), "") for _, kind in columns]
    copied = run_psql(job, f"{settings}start transaction read only;\ncopy ({query}\n) to stdout;\n")
    table = Table(job, [[name, kind] for (name, _), kind in zip(columns, types)])
    lines = copied.split("\n")[:-1]
    table.add(map(postgres_cell, types, map(uncopied, line.split("\t") if types else [])) for line in lines)
    return table.answer()


PSQL_TYPES = {
    "boolean": "bool",
    "bytea": "bytea",
    "smallint": "int2",
    "integer": "int4",
    "bigint": "int8",
    "oid": "oid",
    "real": "float4",
    "double precision": "float8",
    "numeric": "numeric",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "json": "json",
    "jsonb": "json",
}


def run_psql(job: dict[str, Any], script: str) -> str:
    mode = "require" if job["ssl"] else "disable"
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "PGHOST": job["host"],
        "PGPORT": str(job["port"]),
        "PGUSER": job["user"],
        "PGDATABASE": job["database"],
        "PGSSLMODE": mode,
        "PGPASSFILE": os.devnull,
        "PGCONNECT_TIMEOUT": "10",
        "PGCLIENTENCODING": "UTF8",
        "LC_ALL": "C",
    }
    if job["password"] is not None:
        environment["PGPASSWORD"] = job["password"]
    command = ["psql", "-X", "-q", "-w", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"]
    with tempfile.TemporaryFile() as out:
        done = subprocess.run(  # noqa: S603 - the sandbox's own psql
            command, input=script.encode(), stdout=out, stderr=subprocess.PIPE, env=environment, check=False
        )
        said = done.stderr.decode("utf-8", "replace").strip()
        state = re.search(r"^(?:psql:\S+ )?ERROR:\s+([0-9A-Z]{5}): (.*)", said, re.MULTILINE)
        if state is not None:
            raise verdict_on_state(state[1], state[2], job)
        if done.returncode != 0:
            raise Unasked(unreachable(job, said))
        out.seek(0)
        # One line more than fits tells the table that a bound was passed.
        return out.read(2 * job["max_bytes"]).decode("utf-8", "replace")


def uncopied(field: str) -> str | None:
    """A field of COPY's text format."""
    if field == "\\N":
        return None
    return re.sub(r"\\(.)", lambda match: COPY_ESCAPES.get(match[1], match[1]), field, flags=re.DOTALL)


COPY_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


# ------------------------------------------------------------------------------------------------------------- the job


def can_have_cursor(query: str) -> bool:
    """Whether the statement reads rows: DECLARE takes no SHOW, EXPLAIN or INSERT."""
    words = re.sub(r"--[^\n]*|/\*.*?\*/", " ", query, flags=re.DOTALL).lstrip(" \t\r\n(")
    return re.match(r"(select|with|values|table)\b", words, re.IGNORECASE) is not None


def milliseconds(job: dict[str, Any]) -> int:
    return max(1, min(int(job["timeout_s"] * 1000), 2**31 - 1))


def out_of_time(job: dict[str, Any]) -> str:
    return f"the query did not end within its timeout_s of {job['timeout_s']:g} s"


def unreachable(job: dict[str, Any], why: str) -> str:
    return f"the database at {job['host']}:{job['port']} cannot be reached: {why}"


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """The document for a job; whatever goes wrong is in it."""
    ask: Callable[[dict[str, Any]], dict[str, Any]] = ask_sqlite if job["kind"] == "sqlite" else ask_postgres
    try:
        return ask(job)
    except Failed as error:
        return {"failed": str(error)}
    except Unasked as error:
        return {"error": str(error)}


def main() -> None:
    job = json.load(sys.stdin)
    sys.stdout.write(json.dumps(answer(job)) + "\n")


if __name__ == "__main__":
    main()
