"""The folders, the list of packages and the committed files agree with each other."""

import ast
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

FOLDERS = ("engine", "judging", "pricing", "sandboxes", "suites", "tasks")
TOP_LEVEL = {
    *FOLDERS, "tests", "docs", "CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "noxfile.py", "pyproject.toml",
}  # fmt: skip

# Written in pieces, so that this file does not hold what it looks for.
REGISTRY_HOSTS = ("pypi" + ".org", "python" + "hosted.org", "npm" + "js.", "deb." + "debian.org", "yarn" + "pkg.com")
# Root's .ssh is no path of one machine, nor is the root of a process: tests look there as any attacker would.
MACHINE_PATHS = re.compile("|".join(("/wo" + "rk/", r"(?<![*\]])/ro" + r"ot/(?!\.ssh\b)", "/opt/" + "pypi")))


@pytest.fixture(scope="module")
def pyproject(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))


def _packages_in(repository: Path) -> set[str]:
    """Dotted names of the folders that hold an `__init__.py`; a task's folder is data, whatever it holds."""
    found = set()
    for folder in FOLDERS:
        for init in (repository / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(repository).parts
            if not (parts[0] == "tasks" and len(parts) > 1):
                found.add(".".join(("fbench", *parts)))
    return found


def test_the_list_of_packages_is_the_list_of_folders(repository: Path, pyproject: dict[str, Any]) -> None:
    listed = pyproject["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(_packages_in(repository))


def test_each_top_folder_is_mapped_linked_and_typed(repository: Path, pyproject: dict[str, Any]) -> None:
    assert pyproject["tool"]["setuptools"]["package-dir"] == {f"fbench.{folder}": folder for folder in FOLDERS}
    links = {link.name: str(link.readlink()) for link in (repository / ".links" / "fbench").iterdir()}
    assert links == {folder: f"../../{folder}" for folder in FOLDERS}
    assert [folder for folder in FOLDERS if not (repository / folder / "py.typed").is_file()] == []


KNOWS = {
    "tasks": {"tasks"},
    "pricing": {"pricing"},
    "engine": {"engine", "pricing", "tasks"},
    "sandboxes": {"engine", "sandboxes", "tasks"},
    "judging": {"engine", "judging", "tasks"},
    "suites": {"engine", "pricing", "suites", "tasks"},
}


def test_imports_point_one_way(committed_files: tuple[str, ...], repository: Path) -> None:
    wrong = []
    for name in committed_files:
        folder = name.split("/")[0]
        if folder not in KNOWS or not name.endswith(".py") or re.match(r"tasks/[^/]+/", name):
            continue
        for node in ast.walk(ast.parse((repository / name).read_text(encoding="utf-8"))):
            modules = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            known = {module.split(".")[1] for module in modules if module.startswith("fbench.")}
            wrong += [f"{name}: fbench.{other}" for other in sorted(known - KNOWS[folder])]
    assert wrong == []


def test_every_python_file_of_fbench_is_in_a_package(committed_files: tuple[str, ...], repository: Path) -> None:
    packages = {name.removeprefix("fbench.").replace(".", "/") for name in _packages_in(repository)}
    stray = [
        name
        for name in committed_files
        if name.endswith(".py")
        and name.split("/")[0] in FOLDERS
        and not re.match(r"tasks/[^/]+/", name)
        and os.path.dirname(name) not in packages  # noqa: PTH120 - git's names are text
    ]
    assert stray == []


def test_the_top_of_the_repository_holds_what_it_may(committed_files: tuple[str, ...]) -> None:
    top = {name.split("/")[0] for name in committed_files}
    assert {name for name in top if not name.startswith(".")} - TOP_LEVEL == set()
    assert TOP_LEVEL - top == set()


def test_tests_are_no_packages_and_their_names_are_unique(committed_files: tuple[str, ...]) -> None:
    tests = [name for name in committed_files if name.startswith("tests/") and name.endswith(".py")]
    assert [name for name in tests if name.endswith("__init__.py")] == []
    names = [Path(name).name for name in tests if Path(name).name.startswith("test_")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_nothing_of_a_task_is_ignored_by_git(repository: Path) -> None:
    ignored = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "tasks"],
        cwd=repository,
        check=True,
        capture_output=True,
        timeout=60,
    ).stdout.decode()
    leftovers = re.compile(r"(^|/)(__pycache__|\.(pytest|mypy|ruff)_cache)/|\.pyc$")
    assert [name for name in ignored.split("\0") if name and not leftovers.search(name)] == []


def test_no_file_names_a_package_registry_or_a_path_of_one_machine(
    committed_files: tuple[str, ...], repository: Path
) -> None:
    found = []
    for name in committed_files:
        path = repository / name
        if path.is_symlink() or not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", errors="replace").lower()
        found += [f"{name}: {word}" for word in (*REGISTRY_HOSTS, *MACHINE_PATHS.findall(text)) if word in text]
    assert found == []


def test_pinned_requirements_carry_a_hash_each_and_cover_what_is_asked_for(
    repository: Path, pyproject: dict[str, Any]
) -> None:
    pinned: dict[str, set[str]] = {}
    for file in sorted((repository / ".ci").glob("requirements-*.txt")):
        entries = re.split(r"\n(?=[^\s#])", file.read_text(encoding="utf-8").strip())
        assert [entry for entry in entries if not re.match(r"[\w.-]+==\S+", entry)] == [], file.name
        assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == [], file.name
        pinned[file.stem.removeprefix("requirements-")] = {entry.split("==")[0] for entry in entries}
    groups = pyproject["dependency-groups"]
    project = _names(pyproject["project"]["dependencies"])
    extra = _names(pyproject["project"]["optional-dependencies"]["mle"])
    test = _names(groups["test"]) | _names(groups["package"])
    assert project <= pinned["run"]
    assert not extra & pinned["run"]
    assert project | extra | test <= pinned["tests"]
    assert project | extra | test | _names(groups["types"]) <= pinned["types"]
    assert pinned["lint"] == _names(groups["lint"])


def _names(requirements: list[Any]) -> set[str]:
    return {re.split(r"[\[<>=~! ;]", text)[0].lower() for text in requirements if isinstance(text, str)}


def test_ci_runs_the_test_command_of_the_readme(repository: Path) -> None:
    command = "pip install uv && uv run nox"
    script = (repository / ".ci" / "run").read_text(encoding="utf-8")
    assert f"```bash\n{command}\n```" in (repository / "README.md").read_text(encoding="utf-8")
    assert f"bash -c '{command}'" in script
    for name in ("run", "machine.sh"):
        assert os.access(repository / ".ci" / name, os.X_OK)


def test_the_scripts_of_ci_can_be_parsed(repository: Path) -> None:
    scripts = [repository / ".ci" / "run", *sorted((repository / ".ci").rglob("*.sh"))]
    assert len(scripts) > 2
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True, timeout=60)


def test_in_ci_nothing_is_skipped_that_a_test_can_be_told_to_require(
    committed_files: tuple[str, ...], repository: Path
) -> None:
    asked = set()
    for name in committed_files:
        if name.startswith("tests/") and name.endswith(".py"):
            asked |= set(re.findall(r"FBENCH_REQUIRE_[A-Z]+", (repository / name).read_text(encoding="utf-8")))
    script = (repository / ".ci" / "run").read_text(encoding="utf-8")
    assert asked == set(re.findall(r"(FBENCH_REQUIRE_[A-Z]+)=1", script))
