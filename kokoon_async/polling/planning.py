"""The cheapest schedule for a known distribution, by an exact dynamic programme."""

from collections import deque
from collections.abc import Sequence
from itertools import accumulate


__all__ = ["cheapest_next"]


def cheapest_next(
    ages: Sequence[float], masses: Sequence[float], middles: Sequence[float], price: float
) -> list[int]:
    """
    Give, for every age of a grid, the index of the age at which to look next.

    The cost of a schedule is *price* per look plus the delay between the finish and the
    look that notices it. Backwards over the grid::

        V(i) = price · S(i) + min over j > i of E[delay of a finish in (i, j]] + V(j)

    where S is the survival. With F the mass finished up to an age t and M the sum of its
    mass times age, the minimum is over ``(t(j) F(j) - M(j) + V(j)) - t(j) F(i)``, plus
    M(i): over straight lines in F(i). So one walk along their lower envelope finds all
    choices, in time proportional to the grid.

    Args:
        ages: Ascending, in seconds.

        masses: The probability of finishing in the bin that ends at each age.

        middles: The middle age of each bin.

        price: Seconds of delay that a request is worth.
    """
    finished = list(accumulate(masses))
    moments = list(accumulate(m * middle for m, middle in zip(masses, middles, strict=True)))
    last = len(ages) - 1
    choices = [last] * (last + 1)
    heights = [0.0] * (last + 1)  # where each age's line meets F = 0

    def crossing(one: int, other: int) -> float:
        return (heights[one] - heights[other]) / (ages[one] - ages[other])

    envelope: deque[int] = deque()
    cost = 0.0
    for here in range(last, -1, -1):
        done = finished[here]
        if here < last:
            # F falls from age to age, so the best line only ever moves to younger ones.
            while len(envelope) > 1 and crossing(envelope[0], envelope[1]) >= done:
                envelope.popleft()
            best = choices[here] = envelope[0]
            cost = heights[best] - ages[best] * done + moments[here]
            cost += price * (finished[last] - done)
        heights[here] = ages[here] * done - moments[here] + cost
        while len(envelope) > 1 and (
            crossing(envelope[-1], here) >= crossing(envelope[-2], envelope[-1])
        ):
            envelope.pop()
        envelope.append(here)
    return choices
