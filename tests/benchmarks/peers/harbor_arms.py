# pyright: reportMissingImports=false
"""Harbor's side: run by its own interpreter as `python -m tests.benchmarks.peers.harbor_arms ARM JSON`.

Harbor's agents live in containers, so it has no arm without one. Its trials are made through its Python API, in one
process, with an agent of our own that does nothing but execute commands; task, verifier and Compose are its own.
"""

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from harbor.models.trial.config import AgentConfig, TaskConfig, TrialConfig
from harbor.models.trial.result import TrialResult
from harbor.trial.trial import Trial

from tests.benchmarks.peers.folders import IMAGE
from tests.benchmarks.peers.harbor_agent import COMMANDS, OBSERVERS, PlayingAgent
from tests.benchmarks.peers.measure import Meter, main, require
from tests.benchmarks.peers.sleepers import Observer, new_tag


class Workshop:
    """A task of Harbor's on the image that all sides use, its trials beside it, gone when the context ends."""

    def __init__(self, commands: list[str], *, agent_timeout_s: float = 600.0) -> None:
        COMMANDS[:] = commands
        self._folder = tempfile.TemporaryDirectory(prefix="harbor-bench-")
        self.root = Path(self._folder.name)
        os.environ["HOME"] = self._folder.name
        task = self.root / "trivial"
        (task / "environment").mkdir(parents=True)
        (task / "tests").mkdir()
        (task / "instruction.md").write_text("Do nothing.\n", encoding="utf-8")
        (task / "task.toml").write_text(
            f'schema_version = "1.4"\n'
            f'[environment]\ndocker_image = "{IMAGE}"\n'
            f"[agent]\ntimeout_sec = {agent_timeout_s}\n",
            encoding="utf-8",
        )
        test = task / "tests" / "test.sh"
        test.write_text("#!/bin/bash\ntrue && echo 1 > /logs/verifier/reward.txt\n", encoding="utf-8")
        test.chmod(0o755)
        self._task = task

    async def trial(self) -> TrialResult:
        """One trial, from its config to the container gone."""
        config = TrialConfig(
            task=TaskConfig(path=self._task),
            trials_dir=self.root / "trials",
            agent=AgentConfig(import_path=PlayingAgent.import_path()),
        )
        return await (await Trial.create(config)).run()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._folder.cleanup()


def docker(trials: int, calls: int) -> dict[str, Any]:
    """Trials one after the other, each with so many commands, graded in the same container by its verifier."""
    walls: list[float] = []

    async def work(workshop: Workshop) -> None:
        for _ in range(trials + 1):
            meter = Meter()
            result = await workshop.trial()
            walls.append(meter.read().wall_s)
            require(result.exception_info is None, result.exception_info)
            rewards = result.verifier_result and result.verifier_result.rewards
            require(bool(rewards) and list(rewards.values()) == [1], rewards)
        del walls[0]  # the one that loads what trials import

    with Workshop(["true"] * calls) as workshop:
        meter = Meter()
        asyncio.run(work(workshop))
        cost = meter.read()
    return {**cost._asdict(), "trials_s": walls}


def kill(limit_s: float, patience_s: float) -> dict[str, Any]:
    """The agent's time limit, passed by a shell with a child in the background and one in a session of its own."""
    tag = new_tag()
    observer = Observer(tag, look_after_s=limit_s * 0.6, patience_s=patience_s)
    OBSERVERS.append(observer)
    command = f"sleep {tag} & setsid sleep {tag} & sleep {tag}"
    with Workshop([command], agent_timeout_s=limit_s) as workshop:
        result = asyncio.run(workshop.trial())
        ended = time.monotonic()
    info = result.exception_info
    require(info is not None and "Timeout" in info.exception_type, info)
    return {**observer.read(limit_s), "returned_late_s": ended - observer.begun - limit_s}


if __name__ == "__main__":
    main({"docker": docker, "kill": kill})
