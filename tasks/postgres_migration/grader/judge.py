"""Run the workspace's migrate.sh on a database it has never seen. The current folder is the workspace.

    python -I -B "$FBENCH_GRADER/judge.py" DSN once [SEED]     # migrate once
    python -I -B "$FBENCH_GRADER/judge.py" DSN again [SEED]    # migrate, let more rows arrive in v1, migrate twice more

DSN is one of the server's databases; a new one is made beside it and dropped at the end. Prints one JSON object:
`rows_right` is the mean over the tables of v2 of right rows / (right rows + missing ones + rows that should not be there).

What is right is made together with the messy data from a secret seed, exists in this process only, and cannot be worked
out from anything in this folder. Other processes of the same user cannot read this one's memory: see `hide_memory`.
"""

import ctypes
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402 - the grader's folder is not in the path of an isolated interpreter

SCRIPT_TIMEOUT_S = 40.0
PR_SET_DUMPABLE = 4
MAX_ROWS = 20_000
COLUMNS = {
    "customers": "id::bigint, email::text, name::text, to_char(joined_on, 'YYYY-MM-DD')",
    "products": "sku::text, title::text, price_cents::bigint",
    "orders": """id::bigint, customer_id::bigint,
        to_char(placed_at::timestamptz at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), status::text, total_cents::bigint""",
    "order_items": "order_id::bigint, sku::text, quantity::bigint",
    "rejected": "kind::text, id::bigint, reason::text",
}


class Unusable(Exception):
    """The migration did not end well."""


def hide_memory():
    """From here on /proc/PID of this process belongs to root: neither its memory nor its descriptors can be opened."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def connect(dsn, database=None):
    from pg8000 import native  # noqa: PLC0415 - late: a machine without it can still read this file's names

    parts = urlsplit(dsn)
    return native.Connection(
        user=unquote(parts.username or "postgres"), password=unquote(parts.password or ""), host=parts.hostname,
        port=parts.port or 5432, database=database or unquote(parts.path.lstrip("/")) or "postgres", timeout=50,
    )


def migrate(dsn, scratch):
    """Run the script; what it prints goes nowhere but into an error's text."""
    script = Path("migrate.sh")
    if script.is_symlink() or not script.is_file():
        raise Unusable("migrate.sh is no regular file")
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            ["bash", str(script), dsn], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(scratch), "TMPDIR": str(scratch), "TZ": "UTC",
                 "LANG": "C.UTF-8", "FBENCH_WORKSPACE": os.getcwd()},
        )
        try:
            code = process.wait(SCRIPT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Unusable(f"migrate.sh did not end within {SCRIPT_TIMEOUT_S:g} s") from None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            process.wait()
        log.seek(max(0, log.seek(0, os.SEEK_END) - 1500))
        said = log.read().decode(errors="replace").strip()
    if code != 0:
        raise Unusable(f"migrate.sh ended with exit code {code}. It said: {said or 'nothing'}")


def compare(connection, truth):
    """How much of each table is right, and the first rows that are not."""
    found, wrong = {}, {}
    for table, columns in COLUMNS.items():
        right = Counter(map(tuple, truth[table]))
        try:
            rows = connection.run(f"select {columns} from v2.{table} limit {MAX_ROWS}")
        except Exception as error:  # noqa: BLE001 - whatever the table is, it is not right
            connection.run("rollback")
            found[table], wrong[table] = 0.0, str(error)[:300]
            continue
        given = Counter(map(tuple, rows))
        found[table] = (right & given).total() / (right | given).total()
        missing, surplus = list(right - given)[:2], list(given - right)[:2]
        if missing or surplus:
            wrong[table] = {"missing": missing, "not_expected": surplus}
    return {"rows_right": sum(found.values()) / len(found), "tables": found, "wrong": wrong}


def judge(dsn, mode, seed):
    shop = generate.Shop(seed)
    name = f"fbench_{secrets.token_hex(8)}"
    parts = urlsplit(dsn)
    other = parts._replace(path=f"/{name}").geturl()
    with closing(connect(dsn)) as outside, tempfile.TemporaryDirectory() as scratch:
        outside.run(f"create database {name} template template0 encoding 'UTF8'")
        try:
            with closing(connect(other)) as connection:
                first, later = generate.halves(shop.v1) if mode == "again" else (shop.v1, {})
                connection.run(generate.SCHEMA + generate.inserts(first))
                migrate(other, scratch)
                if mode == "again":
                    connection.run(generate.inserts(later))
                    migrate(other, scratch)
                    migrate(other, scratch)
            with closing(connect(other)) as connection:
                connection.run("set search_path to pg_catalog")
                connection.run("set statement_timeout to '20s'")
                return compare(connection, shop.truth)
        finally:
            outside.run(f"drop database if exists {name} with (force)")


def main(argv):
    hide_memory()
    dsn, mode = argv[:2]
    seed = argv[2] if len(argv) > 2 else secrets.token_hex(16)
    try:
        found = judge(dsn, mode, seed)
    except Unusable as problem:
        found = {"rows_right": 0.0, "problem": str(problem)}
    print(json.dumps({"seed": seed, **found}, default=str))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
