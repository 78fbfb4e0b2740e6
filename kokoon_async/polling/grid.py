"""A logarithmic grid of ages, and the arithmetic of distributions over it."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


__all__ = [
    "BINS",
    "EDGES",
    "FIRST",
    "LEAST_CHANCE",
    "RATIO",
    "YOUNGEST",
    "Interval",
    "Place",
    "blended",
    "blurred",
    "chances_of",
    "mass_below",
    "normalised",
    "place_of",
    "sums_of",
]

RATIO = 1.05  # 1.15 proved too coarse at low prices (polling.md)
FIRST, _LAST = 0.25, 86_400.0
_STEPS = math.ceil(math.log(_LAST / FIRST) / math.log(RATIO))

EDGES: Sequence[float] = (0.0, *(FIRST * RATIO**step for step in range(_STEPS + 1)))
"""Ages in seconds, from 0 to a little over a day; bin k lies between edges k and k + 1."""

BINS = len(EDGES) - 1


Place = tuple[int, float]
"""An age's: the number of its bin, and the share of that below it."""

Interval = tuple[Place, Place]
YOUNGEST: Place = (0, 0.0)
LEAST_CHANCE = 1e-9


def place_of(age: float) -> Place:
    """Give an age's place on the grid: the number of its bin, and the share of that below it."""
    if age >= EDGES[-1]:
        return BINS, 0.0
    index = bisect_right(EDGES, age) - 1
    return index, (age - EDGES[index]) / (EDGES[index + 1] - EDGES[index])


def blurred(masses: Sequence[float], width: float) -> list[float]:
    """
    Spread every mass over its neighbours, about *width* bins to each side.

    A filter that looks back and one that looks ahead: the cost does not depend on the
    width. The sum stays, but for what leaves at the ends.
    """
    # The exponential filter whose variance is half of the width's square.
    share = (math.sqrt(1 + 2 * width * width) - 1) / (width * width)
    result = list(masses)
    for _ in range(2):
        carried = 0.0
        result = [carried := carried + share * (mass - carried) for mass in result]
        result.reverse()
    return result


def normalised(masses: Sequence[float]) -> list[float]:
    """Scale masses so that they add up to 1."""
    scale = 1 / sum(masses)
    return [mass * scale for mass in masses]


def blended(
    candidates: Sequence[Sequence[float]], merits: Sequence[float], odds: Sequence[float]
) -> list[float]:
    """Give the average of distributions, each weighed by its odds and its merit, a logarithm."""
    best = max(merits)
    weights = [odd * math.exp(merit - best) for merit, odd in zip(merits, odds, strict=True)]
    result = [0.0] * BINS
    for weight, masses in zip(normalised(weights), candidates, strict=True):
        result = [sum_ + weight * mass for sum_, mass in zip(result, masses, strict=True)]
    return result


def sums_of(masses: Sequence[float]) -> list[float]:
    """Give the mass below each edge, and that below the last one twice, for `mass_below`."""
    sums = list(accumulate(masses, initial=0.0))
    sums.append(sums[-1])
    return sums


def mass_below(sums: Sequence[float], place: Place) -> float:
    """Give the mass below a place, from what `sums_of` gave."""
    index, part = place
    return sums[index] + part * (sums[index + 1] - sums[index])


def chances_of(sums: Sequence[float], intervals: Sequence[Interval]) -> list[float]:
    """Give the mass in each interval, from what `sums_of` gave, but never quite nothing."""
    # Half of all that learning costs is here, so `mass_below` is written out.
    chances = [
        sums[j] + after * (sums[j + 1] - sums[j]) - sums[i] - before * (sums[i + 1] - sums[i])
        for (i, before), (j, after) in intervals
    ]
    return [max(chance, LEAST_CHANCE) for chance in chances]
