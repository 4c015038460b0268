"""A private PostgreSQL on loopback, from the programs of this machine; gone with everything it wrote at the end."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PASSWORD = "bench-secret"


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A server of which `postgres` is the superuser."""

    port: int

    def dsn(self, database: str = "postgres", password: str = PASSWORD) -> str:
        return f"postgresql://postgres:{password}@127.0.0.1:{self.port}/{database}"

    def run(self, script: str, database: str = "postgres") -> str:
        """What psql prints for the script; a failure is an exception."""
        done = subprocess.run(
            ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", self.dsn(database)],
            input=script.encode(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()


@contextmanager
def start_postgres() -> Iterator[PostgresServer]:
    """Skips loudly where PostgreSQL is not installed; with FBENCH_REQUIRE_POSTGRES=1 that is a failure."""
    programs = _programs()
    if programs is None:
        say = pytest.fail if os.environ.get("FBENCH_REQUIRE_POSTGRES") == "1" else pytest.skip
        say("PostgreSQL is not installed on this machine: `apt-get install postgresql`")
    # Not in pytest's own folder, which the server's user cannot enter.
    folder = Path(tempfile.mkdtemp(prefix="fbench-test-postgres-"))
    # The server refuses to run as root.
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    try:
        (folder / "password").write_text(PASSWORD)
        if as_user:
            user = pwd.getpwnam("postgres")
            for path in (folder, folder / "password"):
                os.chown(path, user.pw_uid, user.pw_gid)
        data = folder / "data"
        _call(
            *as_user, str(programs / "initdb"), "-D", str(data), "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8",
            "-A", "scram-sha-256", f"--pwfile={folder / 'password'}", "-N",
        )  # fmt: skip
        with socket.create_server(("127.0.0.1", 0)) as free:
            port: int = free.getsockname()[1]
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        log = str(folder / "log")
        control = [*as_user, str(programs / "pg_ctl"), "-D", str(data), "-w"]
        _call(*control, "-l", log, "-o", options, "start")
        try:
            yield PostgresServer(port)
        finally:
            _call(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _call(*argv: str) -> None:
    done = subprocess.run(
        argv, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def _programs() -> Path | None:
    """The folder of initdb; Debian keeps it out of PATH."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return folders[-1].parent if folders else None
