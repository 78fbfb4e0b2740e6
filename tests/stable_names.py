"""
Check that pytest finds tests again by the names that it gave them.

``python tests/stable_names.py tests/test_x.py`` collects tests twice in one process and compares. Names
from `ids=` with a backslash in them change, since pytest escapes them anew each time. mutmut runs tests
by their names, and takes a test that is not found for one that noticed the change.
"""

from __future__ import annotations

import contextlib
import os
import sys

import pytest


class Names:
    """Remember the names of what was collected."""

    def __init__(self) -> None:
        self.collected: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Take the names."""
        self.collected = {item.nodeid for item in session.items}


def names_of(*arguments: str) -> set[str]:
    """Collect the tests that arguments of pytest select, and give their names."""
    names = Names()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        code = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *arguments], [names])
    if code != pytest.ExitCode.OK:
        sys.exit(f"pytest cannot collect {arguments}: {code!r}")
    return names.collected


def main(*arguments: str) -> str | None:
    """Compare two collections; give what is wrong with the names."""
    lost = names_of(*arguments) - names_of(*arguments)
    return f"pytest does not find again: {sorted(lost)}" if lost else None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
