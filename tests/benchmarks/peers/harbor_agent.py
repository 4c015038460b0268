# pyright: reportMissingImports=false
"""An agent for Harbor that does nothing but execute commands. Harbor makes it from its dotted name, so that what it is
to do stands in this module."""

from harbor.agents.base import BaseAgent
from harbor.environments.base import BaseEnvironment
from harbor.models.agent.context import AgentContext

from tests.benchmarks.peers.measure import require
from tests.benchmarks.peers.sleepers import Observer

COMMANDS: list[str] = []
OBSERVERS: list[Observer] = []
"""Told when the agent begins."""


class PlayingAgent(BaseAgent):
    """Executes COMMANDS, one after the other."""

    @staticmethod
    def name() -> str:
        return "playing"

    def version(self) -> str:
        return "1"

    async def setup(self, environment: BaseEnvironment) -> None:
        pass

    async def run(self, instruction: str, environment: BaseEnvironment, context: AgentContext) -> None:
        for observer in OBSERVERS:
            observer.begin()
        for number, command in enumerate(COMMANDS):
            done = await environment.exec(command)
            require(done.return_code == 0, (number, command, done))
