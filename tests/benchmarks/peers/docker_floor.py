"""What the Docker engine itself takes for the containers and commands of a run."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from fbench.engine.owner import owner_identity
from fbench.sandboxes.docker_engine import ContainerHost
from tests.benchmarks.peers.folders import IMAGE
from tests.benchmarks.peers.measure import Cost, Meter


async def floor(host: ContainerHost, execs: Sequence[int]) -> Cost:
    """One container after the other, with so many commands in each, through the bare API, with nothing of what makes a
    sandbox of a container: create, start, execute, delete by force."""
    meter = Meter()
    for commands in execs:
        name = f"fbench-bench-{uuid4().hex[:12]}"
        config: dict[str, Any] = {
            "Image": IMAGE,
            "Cmd": ["sleep", "60"],
            "Labels": {"fbench.run": name, "fbench.owner": owner_identity()},
            "HostConfig": {"NetworkMode": "none", "AutoRemove": True},
        }
        container = await host.client.containers.create(config, name=name)
        try:
            await container.start()
            for _ in range(commands):
                execution = await container.exec(["true"])
                async with execution.start(detach=False) as stream:
                    while await stream.read_out() is not None:
                        pass
                assert (await execution.inspect())["ExitCode"] == 0
        finally:
            await container.delete(force=True)
    return meter.read()
