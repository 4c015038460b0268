"""What the sandbox tests share: opening either kind, running a command to its end, looking for processes."""

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import anyio
import pytest

from fbench.engine.seams import ExecExit, ExecRequest, Sandbox, SandboxSpec
from fbench.sandboxes import bubblewrap, local


class Done(NamedTuple):
    exit: ExecExit
    output: bytes

    @property
    def text(self) -> str:
        return self.output.decode(errors="replace").strip()


class Opener(Protocol):
    def __call__(self, **changes: Any) -> AbstractAsyncContextManager[Sandbox]: ...


async def _bubblewrap_or_skip() -> None:
    trouble = await bubblewrap.probe()
    if trouble is not None:
        if os.environ.get("FBENCH_REQUIRE_BUBBLEWRAP") == "1":
            pytest.fail(f"FBENCH_REQUIRE_BUBBLEWRAP=1 and {trouble}")
        pytest.skip(f"NOT TESTED HERE: {trouble}")


@pytest.fixture(params=["local", "bubblewrap"])
async def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "bubblewrap":
        await _bubblewrap_or_skip()
    return name


@pytest.fixture
async def needs_bubblewrap() -> None:
    await _bubblewrap_or_skip()


@pytest.fixture
def spec(tmp_path: Path) -> SandboxSpec:
    (tmp_path / "workspace").mkdir()
    return SandboxSpec(run_id="r", workspace=tmp_path / "workspace", scratch=tmp_path / "scratch")


def _opener(spec: SandboxSpec, module: Any) -> Opener:
    from dataclasses import replace

    def open_it(**changes: Any) -> AbstractAsyncContextManager[Sandbox]:
        opened: AbstractAsyncContextManager[Sandbox] = module.open_sandbox(replace(spec, **changes))
        return opened

    return open_it


@pytest.fixture
def opener(spec: SandboxSpec, kind: str) -> Opener:
    return _opener(spec, {"local": local, "bubblewrap": bubblewrap}[kind])


@pytest.fixture
def open_bubblewrap(spec: SandboxSpec, needs_bubblewrap: None) -> Opener:
    return _opener(spec, bubblewrap)


@pytest.fixture
def open_local(spec: SandboxSpec) -> Opener:
    return _opener(spec, local)


@pytest.fixture
def run() -> Callable[..., Any]:
    async def run_it(sandbox: Sandbox, command: str | tuple[str, ...], **more: Any) -> Done:
        argv = ("bash", "-c", command) if isinstance(command, str) else command
        with anyio.fail_after(30):
            async with sandbox.exec(ExecRequest(argv, **more)) as running:
                output = b"".join([chunk.data async for chunk in running])
                return Done(await running.wait(), output)

    return run_it


@pytest.fixture
def alive() -> Callable[[str], list[int]]:
    """Host pids of the processes whose command line holds a text, zombies not counted."""

    def find(text: str) -> list[int]:
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                try:
                    if text.encode() in (folder / "cmdline").read_bytes() and int(folder.name) != os.getpid():
                        found.append(int(folder.name))
                except OSError:
                    continue
        return found

    return find


@pytest.fixture
def until() -> Callable[..., Any]:
    async def wait(condition: Callable[[], bool], patience_s: float = 10.0) -> bool:
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            if condition():
                return True
            await anyio.sleep(0.02)
        return condition()

    return wait


@pytest.fixture
def tag() -> AsyncIterator[str] | str:
    """A number no other test sleeps for: `sleep TAG` can be found by it."""
    return f"9{int.from_bytes(os.urandom(4), 'big'):010d}"
