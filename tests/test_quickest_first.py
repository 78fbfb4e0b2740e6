"""That tests run in the order of their durations, where these are known."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest


TESTS = "def test_a(): ...\ndef test_b(): ...\ndef test_c(): ...\n"


@pytest.mark.parametrize(
    ("seconds", "order"),
    [
        (None, "abc"),
        ({"a": 3.0, "b": 0.1, "c": 2.0}, "bca"),
        ({"a": 3.0, "c": 2.0}, "bca"),
    ],
    ids=["without notes", "all known", "one new"],
)
def test_the_quickest_test_is_first(tmp_path, seconds, order):
    """Tests keep their order without notes; with them, the quickest is first, after new ones."""
    (tmp_path / "test_some.py").write_text(TESTS)
    if seconds is not None:
        by_name = {f"test_some.py::test_{letter}": taken for letter, taken in seconds.items()}
        notes = json.dumps({"duration_by_test": by_name})
        (tmp_path / "mutmut-stats.json").write_text(notes)
    options = ["-p", "tests.quickest_first", "-p", "no:randomly", "-p", "no:cacheprovider", "-v"]
    command = [sys.executable, "-m", "pytest", *options, "-c", "/dev/null", "--rootdir=."]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "".join(re.findall(r"::test_(.) PASSED", done.stdout)) == order
