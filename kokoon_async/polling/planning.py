"""The cheapest schedule for a known distribution, by an exact dynamic programme."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Self

import attrs


__all__ = ["Plan", "cheapest_next", "cut_finer"]

_FINENESS = 3.0  # ages to choose from, for each look that is likely
_MOST_PIECES = 8
_RARE = 0.02  # the share of images that may meet coarse ages

# Beyond these a price changes no plan, but may leave the range of floating-point numbers.
_LEAST_PRICE, _HIGHEST_PRICE = 1e-6, 1e12

_BEYOND = 0.2  # share of the age, for images older than all ages of a plan


def cheapest_next(ages: Sequence[float], masses: Sequence[float], price: float) -> list[int]:
    """
    Give, for every age of a grid, the index of the age at which to look next.

    The cost of a schedule is *price* per look plus the delay between the finish and the
    look that notices it. Backwards over the grid::

        V(i) = price · S(i) + min over j > i of E[delay of a finish in (i, j]] + V(j)

    where S is the survival. When images finish is the same for all schedules, so that the
    age of the look that notices it stands for the delay. With F the mass finished up to an
    age t, the minimum is over ``(t(j) F(j) + V(j)) - t(j) F(i)``: over straight lines in
    F(i). So one walk along their lower envelope finds all choices, in time proportional to
    the grid.

    Args:
        ages: Ascending, in seconds.

        masses: The probability of finishing in the bin that ends at each age.

        price: Seconds of delay that a request is worth.
    """
    finished = list(accumulate(masses))
    last = len(ages) - 1
    choices = [last] * (last + 1)
    heights = [0.0] * (last + 1)  # where each age's line meets F = 0
    # The lower envelope: the ages whose lines form it, from its first one on, and the values
    # of F at which each of them crosses the next.
    envelope: list[int] = []
    crossings: list[float] = []
    first = 0
    for here in range(last, -1, -1):
        age, done = ages[here], finished[here]
        height = age * done
        if here < last:
            # F falls from age to age, so the best line only ever moves to younger ones.
            while first < len(crossings) and crossings[first] >= done:
                first += 1
            best = choices[here] = envelope[first]
            height += heights[best] - ages[best] * done + price * (finished[last] - done)
        heights[here] = height
        while len(envelope) > first:
            crossing = (heights[envelope[-1]] - height) / (ages[envelope[-1]] - age)
            if len(crossings) == first or crossing < crossings[-1]:
                crossings.append(crossing)
                break
            crossings.pop()
            envelope.pop()
        envelope.append(here)
    return choices


def cut_finer(
    edges: Sequence[float], masses: Sequence[float], price: float
) -> tuple[list[float], list[float]]:
    """
    Cut bins into pieces where the ages to choose from would be too far apart.

    Where the density is f and the survival S, the pause that costs least is about
    ``sqrt(2 · price · S / f)``: this tells how many looks a bin will see.

    Args:
        edges: Of the bins; ascending, in seconds.

        masses: The probability of each bin.

        price: Seconds of delay that a request is worth.

    Returns:
        Ages from the first edge to the last, and the mass between each and the one before.
    """
    ages, parts = [edges[0]], [0.0]
    left = sum(masses)
    for index, ((start, end), mass) in enumerate(zip(pairwise(edges), masses, strict=True)):
        if left <= _RARE:
            return [*ages, *edges[index + 1 :]], [*parts, *masses[index:]]
        looks = math.sqrt(mass * (end - start) / (2 * price * left))
        pieces = max(math.ceil(min(_FINENESS * looks, _MOST_PIECES)), 1)
        if pieces > 1:
            ages += [start + (end - start) * piece / pieces for piece in range(1, pieces)]
        ages.append(end)
        parts += [mass / pieces] * pieces
        left -= mass
    return ages, parts


@attrs.frozen
class Plan:
    """
    Hold a schedule.

    Attributes:
        ages: At which there may be a look; ascending, in seconds.

        choices: For each of them, the index of the age of the next look.
    """

    ages: Sequence[float]
    choices: Sequence[int]

    @classmethod
    def cheapest(cls, edges: Sequence[float], masses: Sequence[float], price: float) -> Self:
        """
        Plan for the probabilities of bins.

        Args:
            edges: Of the bins; ascending, in seconds.

            masses: The probability of each bin.

            price: Seconds of delay that a request is worth.
        """
        price = min(max(price, _LEAST_PRICE), _HIGHEST_PRICE)
        ages, parts = cut_finer(edges, masses, price)
        return cls(ages, cheapest_next(ages, parts, price))

    def pauses(self, age: float) -> tuple[float, float]:
        """Give the pause until the next look, and the one that would follow."""
        ages, last = self.ages, len(self.ages) - 1
        if age >= ages[last]:
            return _BEYOND * age, _BEYOND * age
        after = bisect_right(ages, age)
        nearest = after - 1 if age - ages[after - 1] <= ages[after] - age else after
        # The nearest age's choice may be the very age that is nearest, or lie before *age*.
        choice = max(self.choices[nearest], after)
        pause = ages[choice] - age
        return pause, (ages[self.choices[choice]] - ages[choice] if choice < last else pause)
