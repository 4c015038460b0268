"""The wheel and the source distribution carry everything, and the wheel works on its own."""

import json
import re
import stat
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess

CommandRun = Callable[..., "subprocess.CompletedProcess[str]"]
LEFTOVERS = re.compile(r"(^|/)__pycache__/|\.pyc$")
FOLDERS = ("engine/", "judging/", "pricing/", "sandboxes/", "suites/", "tasks/")
TASKS = (
    "ab_test",
    "corpus_search",
    "hello_repo_fix",
    "pandas_transform",
    "postgres_migration",
    "rag_metrics",
    "sklearn_classifier",
    "support_thread",
)


def _wanted(committed_files: tuple[str, ...]) -> set[str]:
    return {name for name in committed_files if name.startswith(FOLDERS) and not LEFTOVERS.search(name)}


def test_the_wheel_holds_each_file_of_the_packages_and_nothing_else(
    committed_files: tuple[str, ...], distributions: Any
) -> None:
    with zipfile.ZipFile(distributions.wheel) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == {f"fbench/{name}" for name in _wanted(committed_files)}


def test_task_files_keep_their_exec_bit_in_the_wheel(
    committed_files: tuple[str, ...], distributions: Any, repository: Path
) -> None:
    tasks = [name for name in _wanted(committed_files) if name.startswith("tasks/")]
    with zipfile.ZipFile(distributions.wheel) as wheel:
        held = {name: bool((wheel.getinfo(f"fbench/{name}").external_attr >> 16) & stat.S_IXUSR) for name in tasks}
    assert held == {name: bool((repository / name).stat().st_mode & stat.S_IXUSR) for name in tasks}


def test_the_sdist_holds_each_committed_file_but_links_and_editor_settings(
    committed_files: tuple[str, ...], distributions: Any
) -> None:
    with tarfile.open(distributions.sdist) as archive:
        held = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    left_out = {name for name in committed_files if name == ".gitignore" or name.startswith(".links/")}
    assert {name for name in committed_files if not LEFTOVERS.search(name)} - left_out - held == set()
    assert [name for name in held if LEFTOVERS.search(name)] == []


def test_the_installed_command_lists_the_tasks(installed: Path, run_command: CommandRun, tmp_path: Path) -> None:
    assert "Usage" in run_command([installed / "fbench", "--help"], cwd=tmp_path).stdout
    listed = run_command([installed / "fbench", "list-tasks"], cwd=tmp_path).stdout
    assert [name for name in TASKS if name not in listed] == []


def test_the_installed_command_runs_a_task(installed: Path, run_command: CommandRun, tmp_path: Path) -> None:
    command = [installed / "fbench", "run", "--task", "hello_repo_fix", "--model", "fake/oracle", "--json"]
    result = json.loads(run_command(command, cwd=tmp_path).stdout)
    assert (result["status"], result["passed"], result["score"]) == ("completed", True, 1.0)
    (run_folder,) = (tmp_path / "runs").glob("*hello_repo_fix*")
    stored = json.loads((run_folder / "result.json").read_text(encoding="utf-8"))
    assert stored["run_id"] == run_folder.name == result["run_id"]


def test_a_task_hashes_the_same_in_the_checkout_and_in_the_wheel(
    installed: Path, run_command: CommandRun, repository: Path, tmp_path: Path
) -> None:
    script = (
        "import json, sys\n"
        "from importlib.resources import files\n"
        "from pathlib import Path\n"
        "from fbench.tasks.hashing import hash_task\n"
        "base = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(str(files('fbench.tasks')))\n"
        "print(json.dumps({f.parent.name: hash_task(f.parent) for f in sorted(base.glob('*/task.yaml'))}))\n"
    )
    python = installed / "python"
    from_wheel = json.loads(run_command([python, "-c", script], cwd=tmp_path).stdout)
    from_checkout = json.loads(run_command([python, "-c", script, repository / "tasks"], cwd=tmp_path).stdout)
    assert from_wheel == from_checkout
    assert set(TASKS) <= set(from_wheel)


def test_the_wheel_claims_the_namespace_and_no_name_of_its_own(installed: Path, run_command: CommandRun) -> None:
    script = (
        "import importlib.util, json\n"
        f"names = {[folder.rstrip('/') for folder in FOLDERS]!r}\n"
        "print(json.dumps([name for name in names if importlib.util.find_spec(name) is not None]))\n"
    )
    assert json.loads(run_command([installed / "python", "-I", "-c", script], cwd=installed).stdout) == []


@pytest.mark.parametrize("arguments", [("--help",), ("--version",)])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...], run_command: CommandRun, tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "fbench"
    traced = run_command([sys.executable, "-X", "importtime", script, *arguments], cwd=tmp_path).stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in traced.splitlines()}
    assert "fbench" in imported, "the trace was not understood"
    heavy = {"pydantic", "structlog", "openai", "httpx", "httpx2", "aiosqlite", "aiodocker", "python_on_whales", "yaml"}
    assert imported & heavy == set()
