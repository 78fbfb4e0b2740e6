"""
What is known of how long images take: counts on a logarithmic grid of ages.

No sample is kept. A look tells only an interval, so one count is spread over it in
proportion to what is believed so far: the EM step for interval-censored data. Old
counts fade, so that a service that became slower is followed. Two memories, a short and
a long one, are weighed by how well each foretold the latest observations: the long one
is exact while nothing changes, the short one takes over when something does.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import attrs


__all__ = ["GRID", "MIDDLES", "Memory", "nearest", "smoothed"]

_RATIO = 1.05  # 1.15 proved too coarse at low prices (polling.md)
_FIRST, _LAST = 0.25, 86_400.0
_STEPS = math.ceil(math.log(_LAST / _FIRST) / math.log(_RATIO))

GRID: Sequence[float] = (0.0, *(_FIRST * _RATIO**step for step in range(_STEPS + 1)))
"""Ages in seconds, from 0 to a little over a day; bin k lies between k - 1 and k."""

MIDDLES: Sequence[float] = (0.0, *((a + b) / 2 for a, b in pairwise(GRID)))
"""The middle age of each bin."""

_LAST_BIN = len(GRID) - 1

# Before anything was seen: somewhere around the vendor's samples of 7 to 100 seconds
# (kokoon-api.md E10), give or take a factor of seven, with the weight of three images.
_PRIOR_MEDIAN, _PRIOR_SPREAD, _PRIOR_WEIGHT = 20.0, 2.0, 3.0

_FORGETTING = 0.97  # how fast the two memories' merits fade, per observation
_LEAST_CHANCE = 1e-9
_MOST_GAIN = 1e9


def _prior() -> list[float]:
    masses = [0.0]
    for middle in MIDDLES[1:]:
        deviation = math.log(middle / _PRIOR_MEDIAN) / _PRIOR_SPREAD
        masses.append(math.exp(-0.5 * deviation * deviation))
    scale = _PRIOR_WEIGHT / sum(masses)
    return [mass * scale for mass in masses]


_PRIOR: Sequence[float] = _prior()


def nearest(age: float) -> int:
    """Give the index of the grid's age next to *age*."""
    after = min(bisect_right(GRID, age), _LAST_BIN)
    return after - 1 if age - GRID[after - 1] <= GRID[after] - age else after


def smoothed(masses: Sequence[float], width: float) -> list[float]:
    """
    Spread every mass over its neighbours, about *width* bins to each side.

    Two passes of a filter that looks back and one that looks ahead: the cost does not
    depend on the width. The sum stays, but for what leaves at the ends.
    """
    share = 2 * (math.sqrt(1 + width * width) - 1) / (width * width)
    result = list(masses)
    for _ in range(2):
        for order in (range(1, len(result)), range(len(result) - 1, 0, -1)):
            carried = 0.0
            for position in order:
                carried += share * (result[position] - carried)
                result[position] = carried
    return result


_Spread = tuple[int, list[float]]  # the first bin, and what lies in it and the next ones


@attrs.define
class _Counts:
    """
    Count observations, the old ones ever less.

    Attributes:
        span: How many observations it effectively remembers.

        masses: By bin, in units of *gain*.

        gain: What one new observation weighs. It grows, so that old ones need not be
            touched to fade.
    """

    span: float
    masses: list[float] = attrs.field(factory=lambda: [0.0] * len(GRID))
    gain: float = 1.0

    def spread(self, earliest: float, latest: float) -> _Spread:
        """Give the mass that is believed to lie in an interval, bin by bin."""
        first = min(max(bisect_right(GRID, earliest), 1), _LAST_BIN)
        last = max(min(bisect_left(GRID, latest), _LAST_BIN), first)
        masses = [
            mass / self.gain + prior
            for mass, prior in zip(
                self.masses[first : last + 1], _PRIOR[first : last + 1], strict=True
            )
        ]
        # The bins at the ends count by the part of them that lies inside.
        masses[0] *= max(GRID[first] - earliest, 0.0) / (GRID[first] - GRID[first - 1])
        outside = max(GRID[last] - latest, 0.0)
        masses[-1] *= 1 - outside / (GRID[last] - GRID[last - 1])
        return first, masses

    def chance(self, spread: _Spread) -> float:
        """Give the probability that was foretold for what `spread` gave."""
        believed = sum(self.masses) / self.gain + _PRIOR_WEIGHT
        return max(sum(spread[1]) / believed, _LEAST_CHANCE)

    def add(self, spread: _Spread) -> None:
        """Count one observation, spread as `spread` gave it."""
        self.gain /= 1 - 1 / self.span
        if self.gain > _MOST_GAIN:
            self.masses = [mass / self.gain for mass in self.masses]
            self.gain = 1.0
        first, masses = spread
        total = sum(masses)
        if total <= 0:  # beyond the grid, or where nothing was thought possible
            self.masses[first + len(masses) - 1] += self.gain
            return
        scale = self.gain / total
        for index, mass in enumerate(masses, first):
            self.masses[index] += scale * mass

    def distribution(self) -> list[float]:
        """Give the believed probability of each bin."""
        masses = [m / self.gain + p for m, p in zip(self.masses, _PRIOR, strict=True)]
        scale = 1 / sum(masses)
        return [mass * scale for mass in masses]


@attrs.define
class Memory:
    """
    Learn the distribution of the ages at which images finish.

    Attributes:
        observed: How many observations there were.
    """

    observed: int = 0
    _short: _Counts = attrs.field(factory=lambda: _Counts(60.0))
    _long: _Counts = attrs.field(factory=lambda: _Counts(600.0))
    # The logarithm of how much better the short memory foretold the latest observations.
    _favour: float = 0.0

    def add(self, earliest: float, latest: float) -> None:
        """
        Note that an image finished at an age in (earliest, latest]; latest may be inf.

        What cannot be an observation (not a number, before 0, an empty interval) is
        left out: a clock that jumped must not spoil the memory.
        """
        if not (0 <= earliest < latest and math.isfinite(earliest)):
            return
        short = self._short.spread(earliest, latest)
        long = self._long.spread(earliest, latest)
        merit = math.log(self._short.chance(short) / self._long.chance(long))
        self._favour = _FORGETTING * self._favour + merit
        self._short.add(short)
        self._long.add(long)
        self.observed += 1

    def distribution(self) -> list[float]:
        """
        Give the believed probability of each bin.

        Smoothed over a width that shrinks as observations come in: neighbouring ages
        are about as likely, and a few samples must not look like a comb.
        """
        trust = 1 / (1 + math.exp(min(max(-self._favour, -50.0), 50.0)))
        weighed = [
            trust * new + (1 - trust) * old
            for new, old in zip(self._short.distribution(), self._long.distribution(), strict=True)
        ]
        known = trust * min(self.observed, self._short.span)
        known += (1 - trust) * min(self.observed, self._long.span)
        width = 0.3 * (known + 1) ** -0.2 / math.log(_RATIO)
        return smoothed(weighed, width)

    def to_state(self) -> dict[str, Any]:
        """Give plain values that `from_state` reads."""
        memories = [self._short, self._long]
        return {
            "observed": self.observed,
            "favour": self._favour,
            "grid": [_FIRST, _RATIO, len(GRID)],
            "spans": [counts.span for counts in memories],
            "masses": [[mass / counts.gain for mass in counts.masses] for counts in memories],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """
        Read what `to_state` gave.

        Raises:
            ValueError: If a value cannot be one of a memory's; also KeyError, TypeError.
        """
        memories = [
            _Counts(float(span), [float(mass) for mass in masses])
            for span, masses in zip(state["spans"], state["masses"], strict=True)
        ]
        short, long = memories
        numbers = [state["favour"], *short.masses, *long.masses]
        if (
            state["grid"] != [_FIRST, _RATIO, len(GRID)]
            or [len(short.masses), len(long.masses)] != [len(GRID)] * 2
            or not all(map(math.isfinite, numbers))
            or min(numbers[1:]) < 0
            or min(short.span, long.span) <= 1
            or type(state["observed"]) is not int
        ):
            reason = "not a memory"
            raise ValueError(reason)
        return cls(state["observed"], short, long, state["favour"])
