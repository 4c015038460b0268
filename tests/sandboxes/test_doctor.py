"""`fbench doctor`: real servers on loopback and on a Unix socket, a real index, the real machine."""

import gc
import json
import os
import socketserver
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner, Result

from fbench.engine.owner import owner_identity
from fbench.engine.records.index import open_index
from fbench.engine.records.index_schema import INDEX
from fbench.engine.records.reading import StartedRun
from fbench.engine.scratch import scratch_root
from fbench.sandboxes import compose_client, docker_engine, docker_sweep
from fbench.sandboxes.commands import doctor_machine, doctor_services
from fbench.sandboxes.commands.doctor import doctor
from fbench.sandboxes.commands.doctor_docker import (
    look_at_compose,
    look_at_docker,
    look_at_docker_leftovers,
    look_at_docker_limits,
    look_at_images,
)
from fbench.sandboxes.commands.doctor_machine import Finding, look_at_disk, look_at_index, look_at_leftovers
from fbench.sandboxes.commands.doctor_services import look_at_endpoint, look_at_key, looks_at_providers

KEY = "sk-very-secret-1234"
Serve = Callable[..., str]


class Handler(BaseHTTPRequestHandler):
    """Answers every GET with what the server was given; notes what it was asked."""

    server: Any

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        if self.server.silent_s:
            self.server.released.wait(self.server.silent_s)
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.server.released.wait(self.server.body_late_s)
        with suppress(BrokenPipeError):  # who asked may have gone
            self.wfile.write(self.server.body)

    def address_string(self) -> str:
        return "test"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's word
        return None


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server: `serve(body, status=200, headers={}, silent_s=0, body_late_s=0, socket=None)` is its address."""
    running: list[Any] = []
    asked: list[tuple[str, str | None]] = []

    def start(
        body: object,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
        silent_s: float = 0,
        body_late_s: float = 0,
        socket: Path | None = None,
    ) -> str:
        server: Any
        server = UnixServer(str(socket), Handler) if socket else ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        server.status, server.headers, server.silent_s = status, headers or {}, silent_s
        server.body_late_s = body_late_s
        server.asked, server.released = asked, threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return "" if socket else f"http://127.0.0.1:{server.server_address[1]}/v1"

    start.asked = asked  # type: ignore[attr-defined]
    yield start
    for server, thread in running:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


async def endpoint(url: str | None, key: str | None = KEY) -> Finding:
    return await look_at_endpoint(url, {"OPENAI_API_KEY": key} if key else {})


async def test_an_endpoint_tells_its_models_and_gets_the_key(serve: Serve) -> None:
    url = serve({"data": [{"id": f"model-{number}"} for number in range(7)]})
    found = await endpoint(url + "/")
    assert found.status == "ok"
    assert "serves 7 models: model-0, model-1" in found.detail
    assert len(found.facts["models"]) == 7
    assert serve.asked == [("/v1/models", f"Bearer {KEY}")]  # type: ignore[attr-defined]


async def test_an_endpoint_without_a_key_is_asked_without_one(serve: Serve) -> None:
    assert (await endpoint(serve({"data": []}), key=None)).status == "ok"
    assert serve.asked == [("/v1/models", None)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("body", "settings", "told"),
    [
        ({}, {"status": 401}, "refused the key"),
        ({}, {"status": 404}, "has no /models"),
        ({}, {"status": 503}, "HTTP 503"),
        ({}, {"status": 302, "headers": {"Location": "https://u:p@else.example/v1?k=1"}}, "https://else.example/v1"),
        (b"<html>hello</html>", {"headers": {"Content-Type": "text/html"}}, "text/html"),
        (b'{"data": [', {}, "no list of models"),
        ({"data": None}, {}, "no list of models"),
        ({"data": ["name"]}, {}, "no list of models"),
        ([1], {}, "no list of models"),
        (b"[" * 100_000, {}, "no list of models"),
        (b"x" * (9 << 20), {}, "longer than"),
    ],
)
async def test_a_broken_endpoint_is_a_fault_that_says_why(
    serve: Serve, body: object, settings: dict[str, Any], told: str
) -> None:
    found = await endpoint(serve(body, **settings))
    assert (found.status, told in found.detail) == ("fault", True), found
    assert found.advice
    assert KEY not in found.model_dump_json()


async def test_an_endpoint_that_is_not_there_or_no_address_is_a_fault() -> None:
    for url in (
        "http://127.0.0.1:1/v1",
        "http://[::1",
        "no address",
        "ftp://127.0.0.1/v1",
        "http://127.0.0.1:99999/v1",
    ):
        found = await endpoint(url)
        assert (found.status, "gave no answer" in found.detail) == ("fault", True), url


async def test_a_silent_endpoint_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_services, "PATIENCE_S", 0.3)
    with anyio.fail_after(5):
        found = await endpoint(serve({}, silent_s=30))
    assert "nothing within 0.3 s" in found.detail


async def test_a_password_in_the_address_is_not_shown() -> None:
    found = await endpoint("http://user:hidden@127.0.0.1:1/v1?token=hidden")
    assert "hidden" not in found.model_dump_json()


async def test_model_names_cannot_drive_the_terminal(serve: Serve) -> None:
    found = await endpoint(serve({"data": [{"id": "a\x1b[31m\ud800"}]}))
    assert "a?[31m?" in found.detail


async def test_without_address_and_key_nothing_is_asked() -> None:
    found = await endpoint(None, key=None)
    assert (found.status, bool(found.advice)) == ("missing", True)


async def look_at_all(file: Path, text: str, environ: dict[str, str] | None = None) -> list[Finding]:
    await anyio.Path(file).write_text(text)
    return [await look() for look in looks_at_providers(file, environ or {})]


async def test_providers_of_a_config_are_asked_with_their_own_keys_and_headers(serve: Serve, tmp_path: Path) -> None:
    url = serve({"data": [{"id": "qwen3"}]})
    text = f"""
[providers.plain]
base_url = "{url}"
[providers.keyed]
base_url = "{url}/"
api_key_env = "SOME_KEY"
[providers.custom]
base_url = "{url}"
headers = {{Authorization = "env:SOME_HEADER"}}
[providers.unset]
base_url = "{url}"
api_key_env = "NOT_SET"
"""
    found = await look_at_all(tmp_path / "fbench.toml", text, {"SOME_KEY": KEY, "SOME_HEADER": f"Basic {KEY}"})
    assert [(finding.name, finding.status) for finding in found] == [
        ("provider plain", "ok"),
        ("provider keyed", "ok"),
        ("provider custom", "ok"),
        ("provider unset", "missing"),
    ]
    assert "serves 1 models: qwen3" in found[0].detail
    assert "NOT_SET is not set" in found[3].detail
    assert [sent for _, sent in serve.asked] == [None, f"Bearer {KEY}", f"Basic {KEY}"]  # type: ignore[attr-defined]


async def test_a_provider_that_refuses_is_a_fault_that_names_its_variable(serve: Serve, tmp_path: Path) -> None:
    text = f'[providers.mine]\nbase_url = "{serve({}, status=401)}"\napi_key_env = "MY_KEY"\n'
    (found,) = await look_at_all(tmp_path / "fbench.toml", text, {"MY_KEY": KEY})
    assert (found.status, "MY_KEY" in (found.advice or "")) == ("fault", True)
    assert KEY not in found.model_dump_json()


async def test_a_config_that_cannot_be_used_is_a_fault(tmp_path: Path) -> None:
    (found,) = await look_at_all(tmp_path / "fbench.toml", "[providers.a]\nbase-url = 1\n")
    assert (found.status, "did you mean 'base_url'" in found.detail) == ("fault", True)
    assert looks_at_providers(None, {}) == []


async def test_a_key_is_noticed_and_never_shown() -> None:
    assert (await look_at_key({})).status == "missing"
    good = await look_at_key({"OPENAI_API_KEY": KEY})
    bad = await look_at_key({"OPENAI_API_KEY": "schlüssel\nzwei"})
    assert (good.status, bad.status) == ("ok", "fault")
    assert KEY not in good.model_dump_json()
    assert "schl" not in bad.model_dump_json()
    unsent = await endpoint("http://127.0.0.1:1/v1", key="schlüssel")
    assert (unsent.status, "schl" in unsent.model_dump_json()) == ("missing", False)


INFO: dict[str, Any] = {
    "ServerVersion": "20.10.5",
    "ApiVersion": "1.41",
    "CgroupVersion": "2",
    "CpuCfsQuota": True,
    "MemoryLimit": True,
    "PidsLimit": False,
}
"""What the small server answers to every question."""


async def test_a_docker_engine_is_asked_through_its_socket(serve: Serve, tmp_path: Path) -> None:
    serve(INFO, socket=tmp_path / "d.sock", headers={"Content-Type": "application/json"})
    env = {"DOCKER_HOST": f"unix://{tmp_path}/d.sock"}
    found = await look_at_docker(env)
    assert found.status == "ok"
    assert "Docker Engine 20.10.5" in found.detail
    assert "DOCKER_HOST" in found.detail
    limits = await look_at_docker_limits(env)
    assert limits.facts == {"cpus": "cgroup", "memory": "cgroup", "pids": "", "disk": "watched", "network": "namespace"}
    assert (limits.status, "for pids" in limits.advice) == ("missing", True)


async def test_a_docker_engine_may_listen_on_tcp(serve: Serve, tmp_path: Path) -> None:
    url = serve(INFO, headers={"Content-Type": "application/json"})
    address = url.removeprefix("http://").removesuffix("/v1")
    assert (await look_at_docker({"DOCKER_HOST": f"tcp://{address}"})).status == "ok"


async def test_an_answer_that_is_given_up_unread_leaves_no_connection(serve: Serve, tmp_path: Path) -> None:
    serve(b"hello", socket=tmp_path / "other.sock", body_late_s=30)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = await look_at_docker({"DOCKER_HOST": f"unix://{tmp_path}/other.sock"})
        gc.collect()
    assert found.status == "fault"
    assert [str(warning.message) for warning in told if issubclass(warning.category, ResourceWarning)] == []


async def test_a_configured_docker_engine_that_does_not_answer_is_a_fault(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    serve(b"hello", socket=tmp_path / "other.sock")
    for address in (
        f"unix://{tmp_path}/none",
        f"unix://{tmp_path}/file",
        f"unix://{tmp_path}/other.sock",
        "tcp://127.0.0.1:1",
    ):
        found = await look_at_docker({"DOCKER_HOST": address})
        assert found.status == "fault", address
        assert address.partition("://")[2] in found.detail
        for look in (look_at_images, look_at_docker_limits, look_at_docker_leftovers):
            other = await look({"DOCKER_HOST": address})
            assert (other.status, "see docker" in other.detail) == ("missing", True), (address, other)


async def test_no_docker_at_all_is_missing_and_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_engine, "DEFAULT_ENGINE", f"unix://{tmp_path}/none.sock")
    nobody = {"HOME": str(tmp_path)}
    found = await look_at_docker(nobody)
    assert (found.status, "install Docker Engine" in found.advice) == ("missing", True)
    assert (await look_at_images(nobody)).status == "missing"


async def test_an_unusable_docker_context_is_a_fault(tmp_path: Path) -> None:
    for broken in ({"DOCKER_CONTEXT": "gone"}, {"DOCKER_HOST": "ssh://box"}):
        found = await look_at_docker({"HOME": str(tmp_path), **broken})
        assert (found.status, "docker context ls" in found.advice) == ("fault", True)


async def test_leftovers_on_the_engine_are_counted(
    monkeypatch: pytest.MonkeyPatch, serve: Serve, tmp_path: Path
) -> None:
    async def find(_docker: object) -> list[docker_sweep.Leftover]:
        return [
            docker_sweep.Leftover("container", "1", "fbench-a"),
            docker_sweep.Leftover("container", "2", "fbench-b"),
            docker_sweep.Leftover("network", "3", "fbench-c"),
        ]

    serve(INFO, socket=tmp_path / "d.sock", headers={"Content-Type": "application/json"})
    monkeypatch.setattr(docker_sweep, "find_leftovers", find)
    found = await look_at_docker_leftovers({"DOCKER_HOST": f"unix://{tmp_path}/d.sock"})
    assert "2 containers, 1 networks of dead runs" in found.detail
    assert (found.facts["leftovers"][2], "fbench clean" in found.advice) == ("network fbench-c", True)


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("echo 2.26.1", "ok"),
        ("echo 'no such command' >&2; exit 1", "missing"),
        ("echo help", "missing"),
        ("sleep 60", "fault"),
    ],
)
async def test_compose_is_asked_for_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, status: str
) -> None:
    program = tmp_path / "docker"
    program.write_text(f"#!/bin/sh\n{script.replace('sleep', 'exec sleep')}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(compose_client, "PROBE_PATIENCE_S", 1.0)
    assert (await look_at_compose()).status == status


async def test_disk_is_looked_at_where_the_folder_will_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await look_at_disk("runs folder", tmp_path / "a" / "b")
    assert (found.status, str(tmp_path) in found.detail) == ("ok", True)
    (tmp_path / "file").write_text("")
    assert (await look_at_disk("runs folder", tmp_path / "file" / "runs")).status == "fault"
    monkeypatch.setattr(doctor_machine, "LOW_DISK_BYTES", 1 << 60)
    low = await look_at_disk("runs folder", tmp_path)
    assert (low.status, "make room" in low.advice) == ("fault", True)


async def test_a_working_folder_that_is_gone_is_a_fault_of_the_runs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert (await look_at_disk("runs folder", Path("runs"))).status == "fault"


async def test_the_index_is_counted_and_a_damaged_one_is_a_fault(tmp_path: Path) -> None:
    assert "none yet" in (await look_at_index(tmp_path)).detail
    async with open_index(tmp_path) as index:
        await index.run_started(StartedRun("r", "t", "m", "2026"), tmp_path / "r")
    assert "1 runs" in (await look_at_index(tmp_path)).detail
    for path in tmp_path.glob(f"{INDEX}*"):  # noqa: ASYNC240 - a test
        path.unlink()
    (tmp_path / INDEX).write_bytes(b"garbage " * 1000)
    found = await look_at_index(tmp_path)
    assert (found.status, "fbench index rebuild" in found.detail) == ("fault", True)


async def test_leftovers_of_dead_runs_are_counted_and_live_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    host, pid, _ = owner_identity().rsplit(":", 2)
    for name, owner in (("live", owner_identity()), ("dead", f"{host}:{pid}:1")):
        folder = scratch_root() / name
        folder.mkdir(parents=True)
        (folder / "owner").write_text(owner)
    found = await look_at_leftovers()
    assert "1 scratch folders" in found.detail
    assert str(scratch_root() / "dead") in found.detail
    assert "fbench clean" in found.advice


def invoke(*arguments: str, **env: str | None) -> Result:
    cleared = dict.fromkeys(("OPENAI_API_KEY", "OPENAI_BASE_URL", "FBENCH_BASE_URL", "DOCKER_HOST"))
    return CliRunner().invoke(doctor, list(arguments), env=cleared | env, catch_exceptions=False)


def test_the_command_tells_everything_as_text_and_as_json(tmp_path: Path, serve: Serve) -> None:
    url = serve({"data": [{"id": "tiny"}]})
    done = invoke("--runs-dir", str(tmp_path), "--base-url", url, OPENAI_API_KEY=KEY)
    document = json.loads(invoke("--runs-dir", str(tmp_path), "--json", OPENAI_BASE_URL=url, OPENAI_API_KEY=KEY).stdout)
    items = {item["name"]: item for item in document["items"]}
    assert list(items) == [
        "python",
        "platform",
        "docker",
        "compose",
        "images",
        "docker limits",
        "bubblewrap",
        "limits",
        "key",
        "endpoint",
        "runs folder",
        "temporary folder",
        "extra mle",
        "index",
        "leftovers",
        "docker leftovers",
    ]
    assert items["endpoint"]["facts"]["models"] == ["tiny"]
    assert items["platform"]["status"] == "ok"
    assert "cpus" in items["limits"]["facts"]
    for name in items:
        assert name in done.stdout
    assert KEY not in done.output
    expected = 1 if any(item["status"] == "fault" for item in items.values()) else 0
    assert done.exit_code == expected


def test_a_fault_makes_the_exit_code_1(tmp_path: Path) -> None:
    done = invoke("--runs-dir", str(tmp_path), "--base-url", "http://127.0.0.1:1/v1", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["has_fault"] is True
