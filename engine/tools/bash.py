"""The tool `bash`: a command in the sandbox; working folder and exported variables last from call to call."""

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from fbench.engine.seams import ToolContext, ToolOutcome
from fbench.engine.tools.shell import DEFAULT_TIMEOUT_S, bash_request, run_for_model


class BashArguments(BaseModel):
    """What `bash` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: Annotated[str, Field(description="The command or script, as bash reads it.")]
    timeout_s: Annotated[
        float,
        Field(gt=0, allow_inf_nan=False, description="Seconds after which it and all it started are ended."),
    ] = DEFAULT_TIMEOUT_S


class BashTool:
    """Runs a command by bash."""

    name: ClassVar[str] = "bash"
    description: ClassVar[str] = (
        "Run a command with bash. The working folder and exported variables last from call to call; other shell state "
        "does not. Standard input is empty. What is started with & and has its output redirected keeps running."
    )
    arguments: ClassVar[type[BaseModel]] = BashArguments

    async def run(self, arguments: BashArguments, context: ToolContext) -> ToolOutcome:
        """Run one command. Raises ToolRefused for one that holds a NUL byte."""
        return await run_for_model(bash_request(arguments.command), arguments.timeout_s, context)
