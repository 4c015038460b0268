"""The tools an agent may call, and what the model is told of them."""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from fbench.engine.seams import Tool, ToolSchema

if TYPE_CHECKING:
    from pydantic import BaseModel

SUBMIT = ToolSchema(
    name="submit",
    description="Hand in the work as it stands in the workspace. Call it once everything is done.",
    parameters={"type": "object", "properties": {}, "additionalProperties": False},
)
"""Always offered and never run: the engine reads it as the end."""


def tool_schema(tool: "Tool | type[Tool]") -> ToolSchema:
    """What the model is told of `tool`: its JSON Schema without what only pydantic's readers need."""
    arguments: type[BaseModel] = tool.arguments
    return ToolSchema(tool.name, tool.description, _parameters(arguments))


@cache
def _parameters(arguments: "type[BaseModel]") -> Mapping[str, Any]:
    """Made once a process: it takes milliseconds, and every run of a suite asks for it."""
    return _compact(arguments.model_json_schema())


def _compact(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without titles, docstrings and nulls; an optional value is one that may be left out."""
    document = {key: value for key, value in schema.items() if key not in {"title", "description"}}
    if "properties" in document:
        document["properties"] = {name: _property(value) for name, value in document["properties"].items()}
    return document


def _property(schema: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in schema.items() if key != "title" and not (key == "default" and value is None)}
    options = [option for option in found.get("anyOf", ()) if option.get("type") != "null"]
    if len(options) == 1:
        del found["anyOf"]
        found.update(options[0])
    if isinstance(found.get("items"), dict):
        found["items"] = _property(found["items"])
    return found
