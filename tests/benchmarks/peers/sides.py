"""The sides that are measured, each with an interpreter of its own, and how one arm of one of them is run."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
ARM_PATIENCE_S = 900.0
"""The longest arm, a thousand samples of Inspect AI, takes four minutes on two free cores."""
_MODULES = "tests.benchmarks.peers"
_SECRETS = ("_API_KEY", "_BASE_URL", "_TOKEN")
_OWN = ("FBENCH_", "HARBOR_", "INSPECT_", "OPENAI_", "PYTHON")
_MOST_WORDS = 2000


class ArmFailed(Exception):
    """An arm that could not be measured, with what it had to say."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of those that are compared. `module` holds its arms; `packages` are named with their versions."""

    name: str
    python: Path
    module: str
    command: str
    packages: tuple[str, ...]

    def arm(self, arm: str, **arguments: Any) -> dict[str, Any]:
        """What one arm gives, run as a process of its own. Raises ArmFailed."""
        return self._measure([self.module, arm, json.dumps(arguments)])

    def start_up(self) -> dict[str, Any]:
        """What `COMMAND --help` takes. Raises ArmFailed."""
        return self._measure(["start_up", str(self.python.with_name(self.command)), "--help"])

    def _measure(self, words: list[str]) -> dict[str, Any]:
        module, *arguments = words
        argv = [str(self.python), "-P", "-m", f"{_MODULES}.{module}", *arguments]
        what = f"{self.name}: {' '.join(words)}"
        try:
            done = subprocess.run(
                argv, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=ARM_PATIENCE_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            msg = f"{what}: no end within {ARM_PATIENCE_S:g} s"
            raise ArmFailed(msg) from error
        except OSError as error:
            msg = f"{what}: {error}"
            raise ArmFailed(msg) from error
        if done.returncode != 0:
            msg = f"{what}: exit code {done.returncode}\n{done.stderr[-_MOST_WORDS:]}"
            raise ArmFailed(msg)
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts

    def versions(self) -> str:
        """Its Python and packages, with their versions."""
        code = (
            "import platform, sys; from importlib.metadata import version; "
            "print('Python', platform.python_version(), *(f'· {name} {version(name)}' for name in sys.argv[1:]))"
        )
        argv = [str(self.python), "-P", "-c", code, *self.packages]
        return subprocess.run(argv, env=environment(), capture_output=True, text=True, check=True).stdout.strip()


def environment() -> dict[str, str]:
    """The environment of every arm: no keys, no settings of this user's, no telemetry."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(_OWN) and not name.endswith(_SECRETS)
    }
    docker_config = os.environ.get("DOCKER_CONFIG", str(Path.home() / ".docker"))  # arms move HOME
    return {**kept, "PYTHONPATH": str(ROOT), "HARBOR_TELEMETRY": "0", "DOCKER_CONFIG": docker_config}


class FakeServer:
    """A running fake server. `seen` is filled in when its context ends."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.seen: dict[str, Any] = {}


@contextmanager
def serving(python: Path, arguments: Mapping[str, Any]) -> Iterator[FakeServer]:
    """A fake server in a process of its own; see fake_server.py for the arguments."""
    argv = [str(python), "-P", "-m", f"{_MODULES}.fake_server", json.dumps(arguments)]
    with subprocess.Popen(
        argv, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            msg = f"the fake server did not start: {argv}"
            raise ArmFailed(msg)
        server = FakeServer(url)
        try:
            yield server
        finally:
            printed, _ = process.communicate()  # closes its standard input, at whose end it stops
            server.seen = json.loads(printed) if printed else {}
