"""
Run the quickest tests first, by the durations that mutmut noted.

``pytest -p tests.quickest_first``, in a folder with mutmut's notes. A mutant ends with the first test that
notices it, and mutmut itself leaves the tests in the order in which it met them.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest


NOTES = Path("mutmut-stats.json")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort tests by duration; do nothing before there are notes."""
    with contextlib.suppress(FileNotFoundError):
        seconds = json.loads(NOTES.read_text("utf-8"))["duration_by_test"]
        items.sort(key=lambda item: seconds.get(item.nodeid, 0))
