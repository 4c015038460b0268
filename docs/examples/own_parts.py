"""A model and a tool of one's own in a run: the model reads the rule of a game and plays it with the tool.

python docs/examples/own_parts.py
"""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from fbench.engine import Engine, RunOptions, RunResult
from fbench.engine.seams import (
    ModelReply,
    ModelRequest,
    TokenEstimate,
    ToolCall,
    ToolContext,
    ToolOutcome,
    Usage,
)

SECRET = 42
TASK = f"""\
id: guess_the_number
title: Guess a number
difficulty: easy
domain: games
agent:
  prompt_text: Find the number between 1 and 100, and leave it in number.txt.
tools:
  allow: [guess, bash]
grader:
  checks:
    - id: found
      type: command_exit_zero
      command: test $(cat number.txt) = {SECRET}
"""


class GuessArguments(BaseModel):
    """What the model is told of the tool's arguments."""

    number: int


class Guess:
    """A tool that runs in this process. It is shared by all runs and keeps nothing."""

    name: ClassVar[str] = "guess"
    description: ClassVar[str] = "Guess the number; says whether it is higher or lower."
    arguments: ClassVar[type[BaseModel]] = GuessArguments

    async def run(self, arguments: GuessArguments, context: ToolContext) -> ToolOutcome:
        """One guess; the right one is written into the workspace."""
        if arguments.number == SECRET:
            context.workspace.write_bytes("number.txt", f"{SECRET}\n".encode())
            return ToolOutcome("right")
        return ToolOutcome("higher" if arguments.number < SECRET else "lower")


class Bisection:
    """A model that halves what is left. It could as well ask a server of yours."""

    name = "mine/bisection"
    is_free = True

    def estimate(self, request: ModelRequest) -> TokenEstimate:
        """One token a message, exactly."""
        return TokenEstimate(input=len(request.messages))

    async def complete(self, request: ModelRequest) -> ModelReply:
        """The next guess, from what the conversation says so far."""
        low, high = 1, 100
        for before, after in zip(request.messages, request.messages[1:], strict=False):
            if before.tool_calls and after.role == "tool":
                number = json.loads(before.tool_calls[0].arguments)["number"]
                if after.content == "right":
                    return ModelReply("It is done.", usage=Usage(input=len(request.messages), output=1))
                low, high = (number + 1, high) if after.content == "higher" else (low, number - 1)
        call = ToolCall(f"call-{low}-{high}", "guess", json.dumps({"number": (low + high) // 2}))
        return ModelReply("", (call,), usage=Usage(input=len(request.messages), output=1))


async def play(folder: Path) -> RunResult:
    """One run in a folder of its own."""
    task = folder / "guess_the_number"
    (task / "workspace").mkdir(parents=True)
    (task / "task.yaml").write_text(TASK)
    options = RunOptions(task=task, model="mine/bisection", sandbox="local", runs_dir=folder / "runs")
    async with Engine(models={"mine/bisection": Bisection()}, tools=[Guess()]) as engine:
        return await engine.run(options)


def main() -> None:
    """Play in a temporary folder and say how it went."""
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(play(Path(folder)))
    print(f"{result.status}, score {result.score} after {result.tool_calls} guesses, ${result.cost_usd:.2f}")


if __name__ == "__main__":
    main()
