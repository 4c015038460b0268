"""Fixtures for all tests: `loopback`, an OpenAI-compatible server (see tests/loopback/server.py)."""

import importlib.util
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.loopback.server import LoopbackServer

_SERVER = Path(__file__).parent / "loopback" / "server.py"


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A command that a test runs in this process may show the log on stderr: only for that test."""
    logger = logging.getLogger("fbench")
    handlers, level, propagates = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagates
    logger.setLevel(level)


@pytest.fixture
def need_bubblewrap() -> Callable[[], None]:
    """Ends the test as skipped where there is no bubblewrap, as failed where there must be one."""

    def need() -> None:
        if shutil.which("bwrap") is None:
            trouble = "bubblewrap is not installed on this machine: `apt-get install bubblewrap`"
            if os.environ.get("FBENCH_REQUIRE_BUBBLEWRAP") == "1":
                pytest.fail(f"FBENCH_REQUIRE_BUBBLEWRAP=1 and {trouble}")
            pytest.skip(f"NOT TESTED HERE: {trouble}")

    return need


@pytest.fixture
def loopback() -> Iterator["LoopbackServer"]:
    """A server of this test's own. Its type is imported for checkers only: tests are no package."""
    with _load_server().LoopbackServer() as server:
        yield server


def _load_server() -> Any:
    name = "fbench_tests_loopback"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _SERVER)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
    return sys.modules[name]
