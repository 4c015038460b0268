"""The examples in the docstrings are true."""

import doctest

import pytest

from fbench.judging import closeness, pytest_check, scoring


@pytest.mark.parametrize("module", [closeness, pytest_check, scoring])
def test_the_examples_of_the_docstrings_hold(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted > 0
    assert found.failed == 0
