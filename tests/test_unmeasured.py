"""That coverage looks away where the mark `unmeasured` says so, and nowhere else."""

from __future__ import annotations

import os
import sys

import coverage
import pytest


def is_passed_on() -> bool:
    """Tell whether a program that is started now would be measured."""
    return "COVERAGE_PROCESS_CONFIG" in os.environ


@pytest.mark.unmeasured
def test_coverage_looks_away() -> None:
    """In a test with the mark nothing is measured, nor in a program that it starts."""
    assert "coverage" not in repr(type(sys.gettrace()))  # a debugger may look on
    assert not is_passed_on()


def test_coverage_looks_at_all_else() -> None:
    """Without the mark, a program that a test starts is measured if the test is."""
    assert is_passed_on() == (coverage.Coverage.current() is not None)
