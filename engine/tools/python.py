"""The tool `python`: code for a fresh Python interpreter, in the working folder and environment of `bash`."""

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from fbench.engine.seams import ToolContext, ToolOutcome
from fbench.engine.tools.shell import DEFAULT_TIMEOUT_S, python_request, run_for_model


class PythonArguments(BaseModel):
    """What `python` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: Annotated[str, Field(description="A Python program; print what you want to see.")]
    timeout_s: Annotated[
        float,
        Field(gt=0, allow_inf_nan=False, description="Seconds after which it and all it started are ended."),
    ] = DEFAULT_TIMEOUT_S


class PythonTool:
    """Runs code by Python."""

    name: ClassVar[str] = "python"
    description: ClassVar[str] = (
        "Run a Python program in a new interpreter, with the working folder and exported variables of bash. "
        "Variables do not last from call to call; only what is printed is shown."
    )
    arguments: ClassVar[type[BaseModel]] = PythonArguments

    async def run(self, arguments: PythonArguments, context: ToolContext) -> ToolOutcome:
        """Run one program. Raises ToolRefused for one that holds a NUL byte."""
        return await run_for_model(python_request(arguments.code), arguments.timeout_s, context)
