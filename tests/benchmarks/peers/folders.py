"""Task folders and scripts of fbench as the benchmarks need them."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

IMAGE = "fbench/base:1"
"""What the containers are made of; `.ci/machine.sh` makes it."""

SUBMIT: Mapping[str, Any] = {"name": "submit", "arguments": {}}


def write_task(folder: Path, **sections: Any) -> Path:
    """A task in the new folder, whose name is its id. Its one check is `true`; `sections` replace the manifest's."""
    (folder / "workspace").mkdir(parents=True)
    (folder / "workspace" / "readme.txt").write_text("start\n", encoding="utf-8")
    manifest = {
        "id": folder.name,
        "title": "Trivial",
        "difficulty": "easy",
        "domain": "testing",
        "environment": {"image": IMAGE},
        "agent": {"prompt_text": "Do nothing."},
        "grader": {"checks": [{"id": "nothing", "type": "command_exit_zero", "command": "true"}]},
        **sections,
    }
    (folder / "task.yaml").write_text(json.dumps(manifest), encoding="utf-8")  # JSON is YAML
    return folder


def bash_call(command: str) -> dict[str, Any]:
    """A call of the tool bash, as scripts have it."""
    return {"name": "bash", "arguments": {"command": command}}


def write_script(
    folder: Path, calls: Iterable[Mapping[str, Any]], *, latency_s: float = 0.0, loop: bool = False
) -> str:
    """A script with one call a turn, in the folder, played again and again with `loop`; gives the model's name."""
    turns = [{"tool_calls": [call], "latency_s": latency_s} for call in calls]
    path = folder / f"script-{os.urandom(4).hex()}.yaml"
    path.write_text(json.dumps({"turns": turns, "loop": loop}), encoding="utf-8")
    return f"fake/script:{path}"
