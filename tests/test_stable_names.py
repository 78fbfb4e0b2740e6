"""That pytest finds tests again by their names, or says which ones it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


SCRIPT = Path(__file__).with_name("stable_names.py")
TESTS = """
import pytest

@pytest.mark.parametrize("content", [b"a", b"\\xff"]{ids})
def test_content(content):
    assert content
"""


@pytest.mark.parametrize(
    ("ids", "code", "said"),
    [("", 0, ""), (", ids=repr", 1, "pytest does not find again: [")],
    ids=["own", "repr"],
)
def test_a_name_that_changes_is_told(tmp_path, ids, code, said):
    """A name that pytest escapes anew each time is told before it makes a test unfindable."""
    (tmp_path / "test_odd.py").write_text(TESTS.format(ids=ids))
    arguments = [f"--rootdir={tmp_path}", "-c", "/dev/null", str(tmp_path / "test_odd.py")]
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stderr) == (code, True)
    assert done.stderr.count("test_content") == code
