"""What the benchmarks share: an engine that answers, a trivial task, a printer of figures.

No `test_*.py` lies here, so `pytest tests` measures nothing: a benchmark runs when its file is named. See
docs/benchmarks.md.
"""

import statistics
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from fbench.engine.errors import SandboxFailed, UsageError
from fbench.sandboxes.docker_engine import ContainerHost, open_container_host
from fbench.sandboxes.image_store import find_image
from tests.benchmarks.peers.folders import IMAGE, SUBMIT, bash_call, write_script, write_task

Say = Callable[[str], None]


class MakeTask(Protocol):
    """Makes a task folder whose one check is `true`; keywords are further sections of its manifest."""

    def __call__(self, task_id: str, **sections: Any) -> Path: ...


class MakeScript(Protocol):
    """Makes a script that plays bash commands, then submits; gives the model's name."""

    def __call__(self, *commands: str) -> str: ...


@pytest.fixture
async def host() -> AsyncIterator[ContainerHost]:
    """The Docker engine of this machine. A benchmark that was asked for and cannot run says so, as a failure."""
    trouble = ""
    try:
        async with open_container_host() as found:
            if await find_image(found.client, IMAGE) is not None:
                yield found
                return
            trouble = f"the image {IMAGE} is missing: run .ci/machine.sh"
    except (SandboxFailed, UsageError) as error:
        trouble = str(error)
    if trouble:
        pytest.fail(f"nothing was measured: {trouble}")


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Prints a line of figures, whatever pytest captures."""

    def print_line(text: str) -> None:
        with capsys.disabled():
            print(f"\n    {text}", end="", flush=True)

    return print_line


@pytest.fixture
def make_task(tmp_path: Path) -> MakeTask:
    """See MakeTask."""

    def make(task_id: str, **sections: Any) -> Path:
        return write_task(tmp_path / "tasks" / task_id, **sections)

    return make


@pytest.fixture
def make_script(tmp_path: Path) -> MakeScript:
    """See MakeScript."""

    def make(*commands: str) -> str:
        return write_script(tmp_path, [*map(bash_call, commands), SUBMIT])

    return make


@pytest.fixture
def summary() -> Callable[[Sequence[float]], str]:
    """Median and range of durations in seconds, in words."""

    def words(values: Sequence[float]) -> str:
        return f"{statistics.median(values):.3f} s (from {min(values):.3f} to {max(values):.3f}, {len(values)} times)"

    return words
