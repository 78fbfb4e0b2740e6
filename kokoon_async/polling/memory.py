"""
What is known of how long images take: counts on a logarithmic grid of ages.

No sample is kept. A wait tells only an interval in which its image finished, so one count
is spread over that interval in proportion to what is believed so far: the EM step for
interval-censored data. Old counts fade, so that a service that became slower is
followed.

How fast to forget, and how far to blur a few counts into a distribution, depends on the
service. So there are two memories, a short and a long one, and three widths of blur, all
weighed by how well they foretold the latest observations: the long memory is exact while
nothing changes, and the short one takes over when something does.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, Self

import attrs


__all__ = ["BINS", "EDGES", "Memory", "blurred", "place_of"]

_RATIO = 1.05  # 1.15 proved too coarse at low prices (polling.md)
_FIRST, _LAST = 0.25, 86_400.0
_STEPS = math.ceil(math.log(_LAST / _FIRST) / math.log(_RATIO))

EDGES: Sequence[float] = (0.0, *(_FIRST * _RATIO**step for step in range(_STEPS + 1)))
"""Ages in seconds, from 0 to a little over a day; bin k lies between edges k and k + 1."""

BINS = len(EDGES) - 1

# Before anything was seen: somewhere around the vendor's samples of 7 to 100 seconds
# (kokoon-api.md E10), give or take a factor of seven, with the weight of two images.
_PRIOR_MEDIAN, _PRIOR_SPREAD, _PRIOR_WEIGHT = 15.0, 2.0, 2.0

# How many observations each memory effectively holds. How wide each blur is, in bins, for
# one observation; it shrinks as they come in. The odds are those before anything was seen.
_SPANS, _SPAN_ODDS = (60.0, 600.0), (1.0, 4.5)
_WIDTHS, _WIDTH_ODDS = (1.0, 2.5, 6.0), (1.0, 2.0, 4.0)

_FORGETTING = 0.98  # how fast merits fade, per observation
_LEAST_CHANCE = 1e-9
_BATCH = 64  # so many observations at most are learned from together, which is cheaper

# A memory that is read from a file holds nothing beyond these.
_MOST_COUNTED, _MOST_MERIT = 1e4, 1e4


def _prior() -> list[float]:
    masses = []
    for start, end in pairwise(EDGES):
        deviation = math.log((start + end) / 2 / _PRIOR_MEDIAN) / _PRIOR_SPREAD
        masses.append(math.exp(-0.5 * deviation * deviation))
    scale = _PRIOR_WEIGHT / sum(masses)
    return [mass * scale for mass in masses]


_PRIOR: Sequence[float] = _prior()


_Place = tuple[int, float]
_Interval = tuple[_Place, _Place]


def place_of(age: float) -> _Place:
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


def _normalised(masses: Sequence[float]) -> list[float]:
    scale = 1 / sum(masses)
    return [mass * scale for mass in masses]


def _blended(
    candidates: Sequence[Sequence[float]], merits: Sequence[float], odds: Sequence[float]
) -> list[float]:
    """Give the average of distributions, each weighed by its odds and its merit, a logarithm."""
    best = max(merits)
    weights = [odd * math.exp(merit - best) for merit, odd in zip(merits, odds, strict=True)]
    result = [0.0] * BINS
    for weight, masses in zip(_normalised(weights), candidates, strict=True):
        result = [sum_ + weight * mass for sum_, mass in zip(result, masses, strict=True)]
    return result


def _sums(masses: Sequence[float]) -> list[float]:
    """Give the mass below each edge, and that below the last one twice, for `_below`."""
    sums = list(accumulate(masses, initial=0.0))
    sums.append(sums[-1])
    return sums


def _below(sums: Sequence[float], place: _Place) -> float:
    """Give the mass below a place, from what `_sums` gave."""
    index, part = place
    return sums[index] + part * (sums[index + 1] - sums[index])


def _chances(sums: Sequence[float], intervals: Sequence[_Interval]) -> list[float]:
    """Give the mass in each interval, from what `_sums` gave, but never quite nothing."""
    # Half of all that learning costs is here, so `_below` is written out.
    chances = [
        sums[j] + after * (sums[j + 1] - sums[j]) - sums[i] - before * (sums[i + 1] - sums[i])
        for (i, before), (j, after) in intervals
    ]
    return [max(chance, _LEAST_CHANCE) for chance in chances]


@attrs.frozen
class _Belief:
    """
    Foretell the next observation.

    Attributes:
        by_span: What each memory says alone: a probability for each bin.

        by_width: What each blur makes of the memories' average.

        masses: The average of the blurs: what is believed.

        sums: Of the masses, for `_below`.
    """

    by_span: Sequence[Sequence[float]]
    by_width: Sequence[Sequence[float]]
    masses: Sequence[float]
    sums: Sequence[float]


@attrs.define
class Memory:
    """
    Learn the distribution of the ages at which images finish.

    Attributes:
        observed: How many observations there were.

        unread: How many of them came since the distribution was last asked for.
    """

    observed: int = 0
    # By span and bin: how many images finished there; and the log of how well each span
    # and each width foretold the latest observations.
    _counts: list[list[float]] = attrs.field(factory=lambda: [[0.0] * BINS for _ in _SPANS])
    _span_merits: list[float] = attrs.field(factory=lambda: [0.0 for _ in _SPANS])
    _width_merits: list[float] = attrs.field(factory=lambda: [0.0 for _ in _WIDTHS])
    # Observations still to be learned from.
    _pending: list[_Interval] = attrs.field(factory=list, init=False)
    _belief: _Belief = attrs.field(init=False, eq=False, repr=False)
    unread: int = attrs.field(default=0, init=False, eq=False)
    _drift: float = attrs.field(default=0.0, init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        self._belief = self._believe()

    @property
    def is_surprised(self) -> bool:
        """
        Tell whether the unread observations lie oddly low or high in the distribution.

        Were it right, their ranks in it would be even between 0 and 1, with a variance of
        1/12. Beyond three standard deviations something has probably changed.
        """
        return self._drift**2 > 3**2 / 12 * self.unread

    def add(self, earliest: float, latest: float) -> None:
        """
        Note that an image finished at an age in (earliest, latest]; latest may be inf.

        What cannot be an observation (not a number, before 0, an empty interval) is
        left out: a clock that jumped must not spoil the memory.
        """
        if not (0 <= earliest < latest and math.isfinite(earliest)):
            return
        begin, end = place_of(earliest), place_of(latest)
        sums = self._belief.sums
        self._drift += (_below(sums, begin) + _below(sums, end)) / 2 - 0.5
        self._pending.append((begin, end))
        self.observed += 1
        self.unread += 1
        if len(self._pending) >= _BATCH:
            self._learn()

    def distribution(self) -> Sequence[float]:
        """Give the believed probability of each bin."""
        self._learn()
        self.unread, self._drift = 0, 0.0
        return self._belief.masses

    # -- learning ----------------------------------------------------------------------

    def _learn(self) -> None:
        """Take in what is pending."""
        if not self._pending:
            return
        self._judge(self._span_merits, self._belief.by_span)
        self._judge(self._width_merits, self._belief.by_width)
        fresh = self._spread()
        count = len(self._pending)
        for index, span in enumerate(_SPANS):
            kept = (1 - 1 / span) ** count
            weight = span * (1 - kept) / count  # as if each had faded with those after it
            parts = zip(self._counts[index], fresh, strict=True)
            self._counts[index] = [kept * old + weight * new for old, new in parts]
        self._pending.clear()
        self._belief = self._believe()

    def _judge(self, merits: list[float], candidates: Sequence[Sequence[float]]) -> None:
        """Add to each candidate's merit the log of the chance it gave to what is pending."""
        kept = _FORGETTING ** len(self._pending)
        for index, masses in enumerate(candidates):
            chances = _chances(_sums(masses), self._pending)
            merits[index] = kept * merits[index] + sum(map(math.log, chances))

    def _spread(self) -> list[float]:
        """Give the counts of what is pending: of each observation one, where it is believed."""
        counts = [0.0] * BINS
        # By how much each bin's belief has to be multiplied: rises and falls from bin to bin.
        changes = [0.0] * (BINS + 2)
        chances = _chances(self._belief.sums, self._pending)
        for ((first, before), (last, after)), chance in zip(self._pending, chances, strict=True):
            if chance <= _LEAST_CHANCE:  # beyond the grid, or where nothing was thought possible
                counts[min(first, BINS - 1)] += 1.0
                continue
            changes[first] += (1 - before) / chance
            changes[first + 1] += before / chance
            changes[last] -= (1 - after) / chance
            changes[last + 1] -= after / chance
        # Rounding may leave a trace below 0 where the changes add up to nothing.
        factors = [max(factor, 0.0) for factor in accumulate(changes[:BINS])]
        parts = zip(counts, factors, self._belief.masses, strict=True)
        return [count + factor * mass for count, factor, mass in parts]

    def _believe(self) -> _Belief:
        by_span = [
            _normalised([count + prior for count, prior in zip(counts, _PRIOR, strict=True)])
            for counts in self._counts
        ]
        average = _blended(by_span, self._span_merits, _SPAN_ODDS)
        # The usual law: the blur that errs least shrinks with the fifth root of the counts.
        shrunk = (1 + min(self.observed, max(_SPANS))) ** -0.2
        by_width = [blurred(average, width * shrunk) for width in _WIDTHS]
        masses = _normalised(_blended(by_width, self._width_merits, _WIDTH_ODDS))
        return _Belief(by_span, by_width, masses, _sums(masses))

    # -- keeping what was learned ------------------------------------------------------

    def to_state(self) -> dict[str, Any]:
        """Give plain values that `from_state` reads."""
        self._learn()
        return {
            "observed": self.observed,
            "grid": [_FIRST, _RATIO, BINS],
            "spans": list(_SPANS),
            "widths": list(_WIDTHS),
            "counts": [list(counts) for counts in self._counts],
            "span_merits": list(self._span_merits),
            "width_merits": list(self._width_merits),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """
        Read what `to_state` gave.

        Raises:
            ValueError: If a value cannot be one of a memory's; also KeyError, TypeError.
        """
        form = [state["grid"], state["spans"], state["widths"]]
        observed = state["observed"]
        is_known = form == [[_FIRST, _RATIO, BINS], [*_SPANS], [*_WIDTHS]]
        if not is_known or type(observed) is not int or observed < 0:
            reason = "not a memory of this version"
            raise ValueError(reason)
        counts = [
            _numbers(masses, BINS, 0.0, _MOST_COUNTED)
            for _, masses in zip(_SPANS, state["counts"], strict=True)
        ]
        spans = _numbers(state["span_merits"], len(_SPANS), -_MOST_MERIT, _MOST_MERIT)
        widths = _numbers(state["width_merits"], len(_WIDTHS), -_MOST_MERIT, _MOST_MERIT)
        return cls(observed, counts, spans, widths)


def _numbers(values: Any, count: int, least: float, most: float) -> list[float]:
    """Check numbers that were read from a file."""
    if len(values) != count or not all(
        type(value) in (int, float) and least <= value <= most for value in values
    ):
        reason = "not the numbers of a memory"
        raise ValueError(reason)
    return [float(value) for value in values]
