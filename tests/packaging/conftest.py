"""What the packaging tests share: the committed files, a clean copy of them, the distributions, a model's server."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND_TIMEOUT_S = 600

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The top folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def committed_files() -> tuple[str, ...]:
    """Paths that git holds or would hold after `git add -A`, as POSIX text, links included."""
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    ).stdout.decode()
    return tuple(sorted({name for name in listing.split("\0") if name and os.path.lexists(ROOT / name)}))


@pytest.fixture(scope="session")
def uv() -> str:
    """The program uv: that of this environment, else the one on PATH."""
    beside = shutil.which("uv", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("uv")
    assert found is not None, "uv is needed here; install it with `pip install uv`"
    return found


@pytest.fixture(scope="session")
def plain_environment() -> dict[str, str]:
    """This process's environment without what a test runner, a virtual environment or a user's settings put there."""
    unwanted = ("FBENCH_", "OPENAI_", "NOX_", "PYTEST_", "PYTHON", "VIRTUAL_ENV", "UV_PROJECT", "COVERAGE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}


@pytest.fixture(scope="session")
def run_command(plain_environment: dict[str, str]) -> Run:
    """Runs a command to its end, in the plain environment unless told otherwise; a wrong exit code fails the test."""

    def run(
        argv: list[str | Path],
        *,
        cwd: Path,
        env: Mapping[str, str] = plain_environment,
        expect: int = 0,
    ) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [str(part) for part in argv],
            cwd=cwd,
            env=dict(env),
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
        )
        assert done.returncode == expect, (
            f"{argv} ended with {done.returncode}, not {expect}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
        )
        return done

    return run


@pytest.fixture(scope="session")
def copy_checkout(committed_files: tuple[str, ...]) -> Callable[[Path], Path]:
    """Copies what a clone would hold to a folder: modes and links kept, nothing that is ignored."""

    def copy(target: Path) -> Path:
        for name in committed_files:
            destination = target / name
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, destination, follow_symlinks=False)
        return target

    return copy


@dataclass(frozen=True, slots=True)
class Distributions:
    """A wheel that was built from the source distribution, and that source distribution."""

    wheel: Path
    sdist: Path


@pytest.fixture(scope="session")
def distributions(
    tmp_path_factory: pytest.TempPathFactory, copy_checkout: Callable[[Path], Path], uv: str, run_command: Run
) -> Distributions:
    """Both distributions of a clean copy; the wheel comes out of the unpacked sdist, as for somebody who has no git."""
    base = tmp_path_factory.mktemp("distributions")
    source = copy_checkout(base / "checkout")
    out = base / "dist"
    run_command([uv, "build", "--no-build-isolation", "--python", sys.executable, "--out-dir", out, source], cwd=base)
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    return Distributions(wheel=wheel, sdist=sdist)


@pytest.fixture(scope="session")
def installed(
    tmp_path_factory: pytest.TempPathFactory, distributions: Distributions, uv: str, run_command: Run
) -> Path:
    """The scripts folder of a new virtual environment that holds the wheel and its pinned dependencies, no more."""
    base = tmp_path_factory.mktemp("installed")
    environment = base / "venv"
    scripts = environment / "bin"
    requirements = ROOT / ".ci" / "requirements-run.txt"
    install = [uv, "pip", "install", "--python", scripts / "python"]
    run_command([uv, "venv", "--python", sys.executable, environment], cwd=base)
    run_command([*install, "--require-hashes", "-r", requirements], cwd=base)
    run_command([*install, "--no-deps", distributions.wheel], cwd=base)
    return scripts


@dataclass(frozen=True, slots=True)
class ModelServer:
    """An OpenAI-compatible server on loopback whose model submits at once; `calls` are the requests it answered."""

    base_url: str
    calls: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def model_server() -> Iterator[ModelServer]:
    """A running ModelServer."""
    calls: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer({"object": "list", "data": [{"id": "my-model", "object": "model"}]})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            calls.append({"authorization": self.headers["Authorization"], **request})
            message: dict[str, Any] = {"role": "assistant", "content": '{"tool": "submit", "arguments": {}}'}
            if request.get("tools"):
                call = {"id": "call_1", "type": "function", "function": {"name": "submit", "arguments": "{}"}}
                message = {"role": "assistant", "content": None, "tool_calls": [call]}
            usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._answer({"id": "1", "object": "chat.completion", "created": 0, "model": request["model"],
                          "choices": [choice], "usage": usage})  # fmt: skip

        def _answer(self, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            """Say nothing on stderr."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield ModelServer(f"http://127.0.0.1:{server.server_address[1]}/v1", calls)
        server.shutdown()
        thread.join(timeout=10)
