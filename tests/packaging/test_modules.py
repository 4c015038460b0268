"""Every module of fbench: importing it says nothing, and the examples in its docstrings are true."""

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

FOLDERS = ("engine", "judging", "pricing", "sandboxes", "suites", "tasks")
ROOT = Path(__file__).resolve().parents[2]


def _modules() -> list[str]:
    """Dotted names of all modules, the folders of tasks left out."""
    found = []
    for folder in FOLDERS:
        files = (ROOT / folder).glob("*.py") if folder == "tasks" else (ROOT / folder).rglob("*.py")
        for file in files:
            parts = file.relative_to(ROOT).with_suffix("").parts
            found.append(".".join(("fbench", *(part for part in parts if part != "__init__"))))
    return sorted(found)


@pytest.mark.parametrize("name", _modules())
def test_docstring_examples_are_true(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert outcome.failed == 0


@pytest.mark.parametrize("name", _modules())
def test_a_module_that_holds_anything_says_what_it_is(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__file__ is not None
    is_empty = not Path(module.__file__).read_text(encoding="utf-8").strip()
    assert is_empty or (module.__doc__ or "").strip()


def test_importing_everything_prints_nothing_and_writes_nothing(tmp_path: Path) -> None:
    script = (
        "import importlib, sys, threading\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *_modules()],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_importing_the_api_imports_no_client_library() -> None:
    script = (
        "import sys\n"
        "from fbench.engine import Engine, RunOptions, RunResult\n"
        "heavy = {'openai', 'httpx', 'httpx2', 'aiosqlite', 'aiodocker', 'python_on_whales', 'pandas'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]"
