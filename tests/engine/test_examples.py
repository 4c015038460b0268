"""The examples of docs/examples, run as their readers would."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import httpx
import pytest
import uvicorn

if TYPE_CHECKING:
    from tests.engine.conftest import MakeScript, MakeTask

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@asynccontextmanager
async def serving(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """The example service behind a real server on loopback."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "service", raising=False)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config("service:app", log_level="error", lifespan="on"))
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, [listening])
            while not server.started:  # noqa: ASYNC110 - uvicorn tells it in no other way
                await anyio.sleep(0.01)
            async with httpx.AsyncClient(base_url=url, timeout=60) as client:
                yield client
            server.should_exit = True


async def read_events(client: httpx.AsyncClient, run_id: str) -> list[tuple[str, Any]]:
    async with client.stream("GET", f"/runs/{run_id}/events") as answer:
        text = "".join([part async for part in answer.aiter_text()])
    blocks = [block.split("\ndata: ") for block in text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data)) for name, data in blocks]


@pytest.fixture
def body(make_task: "MakeTask", tmp_path: Path) -> dict[str, Any]:
    return {"task": str(make_task()), "sandbox": "local", "runs_dir": str(tmp_path / "runs"), "model": "fake/oracle"}


async def test_the_service_runs_tells_and_shows(body: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(monkeypatch) as client:
        started = await client.post("/runs", json=body)
        assert started.status_code == 202
        run_id = started.json()["run_id"]
        events = await read_events(client, run_id)
        again = await read_events(client, run_id)
        shown = (await client.get(f"/runs/{run_id}")).json()
    assert events == again
    assert events[0][0] == "RunStarted"
    assert events[-1][0] == "RunFinished"
    assert events[-1][1]["result"]["score"] == shown["result"]["score"] == 1.0


async def test_the_service_cancels_and_its_end_leaves_no_run_behind(
    body: dict[str, Any], make_script: "MakeScript", monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_script([{"tool_calls": [{"name": "bash", "arguments": {"command": "sleep 600"}}]}])
    async with serving(monkeypatch) as client:
        ids = [(await client.post("/runs", json={**body, "model": model})).json()["run_id"] for _ in range(2)]
        assert (await client.delete(f"/runs/{ids[0]}")).status_code == 202
        events = await read_events(client, ids[0])
        assert events[-1][1]["result"]["status"] == "cancelled"
    statuses = [json.loads((Path(body["runs_dir"]) / run_id / "result.json").read_text())["status"] for run_id in ids]
    assert statuses == ["cancelled", "cancelled"]


async def test_the_service_started_as_it_says_stops_while_somebody_watches_a_run(
    body: dict[str, Any], make_script: "MakeScript", environ: dict[str, str], tmp_path: Path
) -> None:
    model = make_script([{"tool_calls": [{"name": "bash", "arguments": {"command": "sleep 600"}}]}])
    [command] = (
        line.split() for line in (EXAMPLES / "service.py").read_text().splitlines() if " uvicorn " in line[:12]
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command[command.index("docs/examples")] = str(EXAMPLES)
    argv = [sys.executable, "-m", *command, "--port", str(port)]
    with subprocess.Popen(argv, cwd=tmp_path, env=environ) as server:  # noqa: ASYNC220 - returns after exec
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                with anyio.fail_after(60):
                    while True:
                        with suppress(httpx.ConnectError):
                            started = await client.post("/runs", json={**body, "model": model})
                            break
                        await anyio.sleep(0.1)
                run_id = started.json()["run_id"]
                async with client.stream("GET", f"/runs/{run_id}/events") as answer:
                    lines = answer.aiter_lines()
                    while "ToolStarted" not in await anext(lines):
                        pass
                    server.terminate()
                    await anyio.to_thread.run_sync(server.wait, 60)
        finally:
            server.kill()
    assert json.loads((Path(body["runs_dir"]) / run_id / "result.json").read_text())["status"] == "cancelled"


async def test_the_service_keeps_only_so_much_of_what_a_run_prints(
    body: dict[str, Any], make_script: "MakeScript", monkeypatch: pytest.MonkeyPatch
) -> None:
    command = "head -c 20000000 /dev/zero; touch done.txt"
    model = make_script([{"tool_calls": [{"name": "bash", "arguments": {"command": command}}]}, {"content": "ok"}])
    async with serving(monkeypatch) as client:
        run_id = (await client.post("/runs", json={**body, "model": model})).json()["run_id"]
        events = await read_events(client, run_id)
    assert events[-1][1]["result"]["score"] == 1.0
    assert 0 < sum(len(data["data"]) for name, data in events if name == "ToolOutput") < 8_000_000


async def test_the_service_says_what_is_wrong_and_goes_on(
    body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(monkeypatch) as client:
        for wrong in ({**body, "model": "nobody/x"}, {**body, "task": "no_such_task"}, {**body, "max_turns": 0}, {}):
            answer = await client.post("/runs", json=wrong)
            assert answer.status_code == 422
            assert answer.json()["error"]
        assert (await client.get("/runs/none")).status_code == 404
        assert (await client.post("/runs", json=body)).status_code == 202


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("compare_prompts.py", ["5 turns: mean score 1.00 of 2, $0.0000", "30 turns: mean score 1.00 of 2, $0.0000"]),
        ("own_parts.py", ["completed, score 1.0 after 7 guesses, $0.00"]),
    ],
)
def test_an_example_script_prints_what_it_promises(tmp_path: Path, name: str, printed: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=tmp_path,
        env={**{key: value for key, value in os.environ.items() if not key.startswith("FBENCH_")}},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == printed
