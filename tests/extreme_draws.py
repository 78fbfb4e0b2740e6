"""
Let chance do its worst: give the package the least draw there is, the greatest, or both in turn.

``KOKOON_DRAWS=low pytest -p extreme_draws``, or ``high``, or ``turns``, with the folder of the tests in
PYTHONPATH; `nox -s draws` does all three. A bound that jitter oversteps once in fifty runs is
overstepped here at once.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import types
from collections import Counter
from collections.abc import Iterator

import pytest


LEAST, GREATEST = 0.0, 1 - 2**-53
WAYS: dict[str, Iterator[float]] = {
    "low": itertools.repeat(LEAST),
    "high": itertools.repeat(GREATEST),
    "turns": itertools.cycle([LEAST, GREATEST]),
}
JITTERED = {
    "kokoon_async._http.retry",
    "kokoon_async.polling.learned",
    "kokoon_async.polling.policies",
}


class Draws:
    """
    What the package draws, one number after another.

    Attributes:
        counts: How many each module got.

        is_on: Whether the package gets them now; not in tests of jitter itself.
    """

    def __init__(self, way: str) -> None:
        self.counts: Counter[str] = Counter()
        self.is_on = True
        self._numbers = WAYS[way]

    def next_for(self, caller: types.FrameType) -> float | None:
        """Give the next number to a module that jitters, and nothing to others."""
        module = caller.f_globals["__name__"]
        if not self.is_on or module not in JITTERED:
            return None
        self.counts[module] += 1
        return next(self._numbers)


draws = Draws(os.environ["KOKOON_DRAWS"])
_random = random.random


class ExtremeRandom(random.Random):
    """Stand in for a generator; all but the package get what it gives."""

    getrandbits = random.Random.getrandbits  # or it would do without in `choice`, and give others

    def random(self) -> float:
        """Give a number from 0 to 1."""
        drawn = draws.next_for(sys._getframe(1))
        return super().random() if drawn is None else drawn


def extreme_random() -> float:
    """Stand in for the function."""
    drawn = draws.next_for(sys._getframe(1))
    return _random() if drawn is None else drawn


# Before the package is loaded, which keeps the class and the function where it needs them.
assert not JITTERED & sys.modules.keys()
random.Random = ExtremeRandom  # type: ignore[misc]
random.random = extreme_random


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave chance to the tests that are marked `jitter`."""
    draws.is_on = item.get_closest_marker("jitter") is None


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Add the numbers of draws to the figures that the session prints."""
    for module, count in draws.counts.items():
        # As `conftest.py` has loaded it; imported from here it would be another.
        figures = sys.modules["tests.figures"]
        figures.record_figure(f"extreme draws of {module}", count)
