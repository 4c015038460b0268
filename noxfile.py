"""What CI runs: `nox` for all of it, `nox -s NAME` for one session; `nox -s lock` refreshes the pinned requirements.

Each session installs what its file in .ci/ pins, by hash, and then fbench itself without asking for anything more.
"""

import functools
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "package", "docs", "tests"]
nox.options.error_on_missing_interpreters = True

PYTHON_SOURCES = ("engine", "judging", "noxfile.py", "pricing", "sandboxes", "suites", "tasks", "tests")

# What each requirement file pins, in the words of `uv pip compile`. `run` is what somebody gets who installs the wheel.
LOCKS: dict[str, tuple[str, ...]] = {
    "run": ("pyproject.toml",),
    "lint": ("--group", "lint"),
    "tests": ("pyproject.toml", "--extra", "mle", "--group", "test"),
    "types": ("pyproject.toml", "--extra", "mle", "--group", "test", "--group", "types"),
    # What the benchmarks measure beside fbench. No groups of pyproject.toml: uv.lock would have to fit them together.
    "bench-inspect": (".ci/bench-inspect.in",),
    "bench-harbor": (".ci/bench-harbor.in",),
}
OLDEST_PYTHON = "3.11"
COMPILED = {"UV_COMPILE_BYTECODE": "1"}
"""uv compiles nothing by itself: where PYTHONDONTWRITEBYTECODE is set, every process would compile all it imports."""
PEERS = {"bench-inspect": OLDEST_PYTHON, "bench-harbor": "3.12"}
"""Their requirement files, and the Python each is installed for: Harbor wants a newer one than fbench."""


@nox.session
def lint(session: nox.Session) -> None:
    """Rules and formatting."""
    _install(session, "lint", project=False)
    session.run("ruff", "check", *(session.posargs or PYTHON_SOURCES))
    session.run("ruff", "format", "--check", *(session.posargs or PYTHON_SOURCES))


@nox.session
def types(session: nox.Session) -> None:
    """Types, by two checkers."""
    _install(session, "types")
    session.run("mypy")
    # Node comes from the wheel of pyright's extra `nodejs`, so nothing is fetched at run time.
    session.run(
        "pyright", "--warnings", "--pythonpath", f"{session.bin}/python", env={"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    )


@nox.session
def package(session: nox.Session) -> None:
    """The wheel and the source distribution hold what they should and work elsewhere."""
    _install(session, "tests")
    _pytest(session, "tests/packaging", "--ignore=tests/packaging/test_readme.py")


@nox.session
def docs(session: nox.Session) -> None:
    """The README's commands run, nox itself and the making of images left out."""
    _install(session, "tests")
    _pytest(session, "tests/packaging/test_readme.py")


@nox.session
def tests(session: nox.Session) -> None:
    """Everything else under tests/; arguments after `--` go to pytest.

    What fails beside all the others is run once more alone, and said: on a loaded machine a test of processes may have
    waited too short. What fails alone too is a failure.
    """
    _install(session, "tests")
    paths = session.posargs or ("tests", "--ignore=tests/packaging")
    failed = Path(".pytest_cache/v/cache/lastfailed")
    failed.unlink(missing_ok=True)
    _pytest(session, "-n", "auto", *paths, success_codes=[0, 1])
    if failed.exists() and json.loads(failed.read_text(encoding="utf-8")):
        session.warn("some tests failed beside the others; once more, alone")
        _pytest(session, "--last-failed", *paths)


@nox.session(default=False)
def docker(session: nox.Session) -> None:
    """Of `tests` what needs containers, where no engine is a failure; arguments after `--` go to pytest."""
    _install(session, "tests")
    session.env["FBENCH_REQUIRE_DOCKER"] = "1"
    _pytest(session, "-n", "auto", *(session.posargs or ("tests/sandboxes", "tests/tasks/builtin")))


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """The measurements of tests/benchmarks, one after the other; arguments after `--` go to pytest.

    The peers that fbench is measured beside get an environment each:
    `-- tests/benchmarks/bench_peers.py` runs these alone.
    """
    _install(session, "tests")
    session.env["FBENCH_REQUIRE_DOCKER"] = "1"
    # The peers' own modules are compiled when they are installed; ours stand here.
    own = [source for source in PYTHON_SOURCES if source not in {"noxfile.py", "tests"}]
    session.run("python", "-m", "compileall", "-q", *own, env={"PYTHONDONTWRITEBYTECODE": None})
    paths = session.posargs or sorted(map(str, Path("tests/benchmarks").glob("bench_*.py")))
    if any("bench_peers" in path for path in paths):
        session.env["FBENCH_BENCH_INSPECT"] = _install_peer(session, "bench-inspect")
        session.env["FBENCH_BENCH_HARBOR"] = _install_peer(session, "bench-harbor")
    _pytest(session, *paths)


@nox.session(default=False, venv_backend="none")
def lock(session: nox.Session) -> None:
    """Refresh .ci/requirements-*.txt; arguments after `--` go to uv (`-- --upgrade-package openai`)."""
    uv = shutil.which("uv")
    if uv is None:
        session.error("uv is not on PATH; install it with `pip install uv`")
    for name, selection in LOCKS.items():
        session.run(
            uv,
            "pip",
            "compile",
            *selection,
            "--universal",
            f"--python-version={PEERS.get(name, OLDEST_PYTHON)}",
            "--generate-hashes",
            "--no-header",
            "--no-emit-index-url",
            "--quiet",
            f"--output-file=.ci/requirements-{name}.txt",
            *(session.posargs or ("--upgrade",)),
        )


def _install(session: nox.Session, lock_name: str, *, project: bool = True) -> None:
    """Install what is pinned, then fbench with nothing more; it is built by the pinned setuptools."""
    session.install("--require-hashes", "-r", f".ci/requirements-{lock_name}.txt", env=COMPILED)
    if project:
        session.install("--no-deps", "--no-build-isolation", "--editable", ".")


def _install_peer(session: nox.Session, lock_name: str) -> str:
    """An environment beside the session's own with what is pinned for a peer; gives its Python.

    uv looks for the Python on PATH; where pyenv is used, also among its versions, of which PATH shows one.
    """
    uv = shutil.which("uv")
    if uv is None:
        session.error("uv is not on PATH, which makes the environments of the peers; `pip install uv`")
    folder = Path(session.virtualenv.location).with_name(lock_name)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    path = os.pathsep.join([os.environ["PATH"], *map(str, sorted(pyenv.glob("versions/*/bin")))])
    env = {"PATH": path, "VIRTUAL_ENV": "", **COMPILED}
    run = functools.partial(session.run, uv, external=True, env=env, silent=True)
    run("venv", "--quiet", "--clear", f"--python={PEERS[lock_name]}", str(folder))
    python = str(folder / "bin" / "python")
    run("pip", "install", "--require-hashes", f"--python={python}", "-r", f".ci/requirements-{lock_name}.txt")
    return python


def _pytest(session: nox.Session, *arguments: str, success_codes: Iterable[int] = (0,)) -> None:
    """Run pytest, skips named, without the working folder on `sys.path`, where `engine` would be importable."""
    env = {"PYTHONSAFEPATH": "1", "COLUMNS": os.environ.get("COLUMNS", "100")}
    session.run("pytest", "-rs", *arguments, env=env, success_codes=list(success_codes))
