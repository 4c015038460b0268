"""A task, a final workspace and a way to judge it with real sandboxes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from fbench.engine.results import CheckResult, Verdict
from fbench.engine.seams import JudgeRequest, OpenSandbox, SandboxSpec
from fbench.judging.judge import judge_workspace
from fbench.tasks.manifest import TaskManifest


@dataclass
class Bench:
    """Folders of one judging; `judge(check, ...)` judges them."""

    root: Path
    open_sandbox: OpenSandbox
    told: list[CheckResult] = field(default_factory=list)
    grader: dict[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> Path:
        return self.root / "task"

    @property
    def final(self) -> Path:
        return self.root / "run" / "workspace_final"

    @property
    def outputs(self) -> Path:
        return self.root / "run" / "grader_outputs"

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    def write(self, folder: Path, files: Mapping[str, str | bytes]) -> None:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def request(self, *checks: Mapping[str, Any]) -> JudgeRequest:
        named = [{"id": f"check{at}", **check} for at, check in enumerate(checks, start=1)]
        manifest = TaskManifest.model_validate(
            {
                "id": "task",
                "title": "A task",
                "difficulty": "easy",
                "domain": "testing",
                "agent": {"prompt_text": "work"},
                "environment": {"env": {"COLOUR": "blue"}},
                "grader": {"checks": named, **self.grader},
            }
        )
        return JudgeRequest(
            manifest=manifest,
            task_folder=self.task,
            workspace_final=self.final,
            scratch=self.scratch,
            outputs=self.outputs,
            spec=SandboxSpec(
                run_id="run-1",
                workspace=self.root / "agents_workspace",
                scratch=self.root / "agents_scratch",
                env={"COLOUR": "blue"},
            ),
            open_sandbox=self.open_sandbox,
            on_check=self.told.append,
        )

    async def judge(self, *checks: Mapping[str, Any], open_sandbox: OpenSandbox | None = None) -> Verdict:
        request = self.request(*checks)
        if open_sandbox is not None:
            request = replace(request, open_sandbox=open_sandbox)
        return await judge_workspace(request)

    async def check(self, **fields: Any) -> CheckResult:
        return (await self.judge(fields)).checks[0]


def make_bench(root: Path, open_sandbox: OpenSandbox) -> Bench:
    bench = Bench(root, open_sandbox)
    for folder in (
        bench.task / "grader",
        bench.final,
        bench.scratch,
        root / "agents_workspace",
        root / "agents_scratch",
    ):
        folder.mkdir(parents=True)
    return bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Judging with sandboxes of the kind `local`."""
    from fbench.sandboxes.local import open_sandbox

    return make_bench(tmp_path, open_sandbox)


@pytest.fixture(params=["local", "bubblewrap"])
def either(request: pytest.FixtureRequest, tmp_path: Path, need_bubblewrap: Callable[[], None]) -> Bench:
    """Judging with sandboxes of both kinds, one test each."""
    if request.param == "bubblewrap":
        need_bubblewrap()
    return make_bench(tmp_path, sandbox_opener(request.param))


@pytest.fixture
def walled(tmp_path: Path, need_bubblewrap: Callable[[], None]) -> Bench:
    """Judging with sandboxes of the kind `bubblewrap`."""
    need_bubblewrap()
    return make_bench(tmp_path, sandbox_opener("bubblewrap"))


def sandbox_opener(kind: str) -> OpenSandbox:
    from fbench.engine.registry import import_dotted

    opener: OpenSandbox = import_dotted(f"fbench.sandboxes.{kind}:open_sandbox")
    return opener
