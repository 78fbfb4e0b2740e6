"""
Figures that tests count and the session prints at its end, such as how often a job was killed.

``record_figure("random kills", 50)`` in a test; the same name from many tests, in all processes, is
one sum. `conftest.py` prints them. What documents quote can so be had by running the tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


RECORDED: Counter[str] = Counter()
"""What was counted in this process, and, where pytest-xdist has workers, in those that are done."""


def record_figure(name: str, count: int) -> None:
    """Add to what the session prints under a name."""
    RECORDED[name] += count


def add_figures(figures: Mapping[str, int]) -> None:
    """Add what another process has recorded."""
    RECORDED.update(figures)


def summary() -> str:
    """Give all figures as one line; empty if there are none."""
    return ", ".join(f"{name}: {count:,}" for name, count in sorted(RECORDED.items()))
