"""
What is known of how long images take: counts on a logarithmic grid of ages.

No sample is kept. A wait tells only an interval in which its image finished, so one count
is spread over that interval in proportion to what is believed so far: the EM step for
interval-censored data. Beside the images that finished in a bin stand those that were at
risk there, that is unfinished when they came to its ages: the ratio is the chance of
finishing there. So images that are still waited for count too. Without them, of many that
began together only the quick ones would be known, and all others thought to be overdue.

What is known of a bin fades with what is new of the same bin: a service that became slower
is followed, and ages of which nothing new is heard are not forgotten.

How fast to forget, and how far to blur a few counts into a distribution, depends on the
service. So there are two memories, a short and a long one, and three widths of blur, all
weighed by how well they foretold the latest observations: the long memory is exact while
nothing changes, and the short one takes over when something does.
"""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, Self

import attrs

from .grid import (
    BINS,
    EDGES,
    FIRST,
    LEAST_CHANCE,
    RATIO,
    YOUNGEST,
    Interval,
    Place,
    blended,
    blurred,
    chances_of,
    mass_below,
    normalised,
    place_of,
    sums_of,
)


__all__ = ["Memory"]

# Before anything was seen: somewhere around the samples of tasks in the vendor's documentation,
# 7 to 100 seconds, give or take a factor of seven, with the weight of two images.
_PRIOR_MEDIAN, _PRIOR_SPREAD, _PRIOR_WEIGHT = 15.0, 2.0, 2.0

# How many images at risk each memory effectively holds, for each bin. How wide each blur is,
# in bins, for one observation; it shrinks as they come in. The odds are those before anything
# was seen.
_SPANS, _SPAN_ODDS = (60.0, 600.0), (1.0, 4.5)
_WIDTHS, _WIDTH_ODDS = (1.0, 2.5, 6.0), (1.0, 2.0, 4.0)

_FORGETTING = 0.98  # how fast merits fade, per observation
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


def _at_risk(finished: Sequence[float]) -> list[float]:
    """Give how many were unfinished when they came to each bin, from those that finished in it."""
    risks = list(accumulate(reversed(finished)))
    risks.reverse()
    return risks


_PRIOR: Sequence[float] = _prior()
_PRIOR_RISKS: Sequence[float] = _at_risk(_PRIOR)


def _by_chances(counts: Sequence[float], risks: Sequence[float]) -> list[float]:
    """Give the probability of each bin, from how many finished and how many were at risk there."""
    left = 1.0
    masses = []
    for count, risk, prior, prior_risk in zip(counts, risks, _PRIOR, _PRIOR_RISKS, strict=True):
        mass = left * min((count + prior) / (risk + prior_risk), 1.0)
        masses.append(mass)
        left -= mass
    return normalised(masses)


@attrs.frozen
class _Belief:
    """
    Foretell the next observation.

    Attributes:
        by_span: What each memory says alone: a probability for each bin.

        by_width: What each blur makes of the memories' average.

        masses: The average of the blurs: what is believed.

        sums: Of the masses, for `mass_below`.
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
    # By span and bin: how many images finished there, and how many were at risk; and the log
    # of how well each span and each width foretold the latest observations.
    _counts: list[list[float]] = attrs.field(factory=lambda: [[0.0] * BINS for _ in _SPANS])
    _risks: list[list[float]] = attrs.field(factory=lambda: [[0.0] * BINS for _ in _SPANS])
    _span_merits: list[float] = attrs.field(factory=lambda: [0.0 for _ in _SPANS])
    _width_merits: list[float] = attrs.field(factory=lambda: [0.0 for _ in _WIDTHS])
    # Observations still to be learned from: where images finished, and by how much the number
    # at risk changes from bin to bin, beside those.
    _pending: list[Interval] = attrs.field(factory=list, init=False)
    _steps: list[float] = attrs.field(factory=lambda: [0.0] * (BINS + 2), init=False)
    _has_steps: bool = attrs.field(default=False, init=False)
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

    def follow(self, since: float, until: float) -> None:
        """
        Note that an image was unfinished at the age *since*, and still is at *until*.

        What cannot be so is left out, as by `add`.
        """
        if 0 <= since < until < math.inf:
            self._step(place_of(since), place_of(until), 1.0)

    def add(self, earliest: float, latest: float, since: float = 0.0) -> None:
        """
        Note that an image finished at an age in (earliest, latest]; latest may be inf.

        What cannot be an observation (not a number, before 0, an empty interval) is
        left out: a clock that jumped must not spoil the memory.

        Args:
            earliest: In seconds, as is *latest*.

            latest: Infinite for a wait that was given up.

            since: At which age the image came to be at risk; `follow` was told what went
                before.
        """
        if not (0 <= since <= earliest < latest and math.isfinite(earliest)):
            return
        begin, end = place_of(earliest), place_of(latest)
        sums = self._belief.sums
        self._drift += (mass_below(sums, begin) + mass_below(sums, end)) / 2 - 0.5
        if latest < math.inf:
            self._pending.append((begin, end))
            self._step(YOUNGEST, place_of(since), -1.0)
        else:
            self._step(place_of(since), begin, 1.0)
        self.observed += 1
        self.unread += 1
        if len(self._pending) >= _BATCH:
            self._learn()

    def _step(self, begin: Place, end: Place, change: float) -> None:
        """Change the number at risk between two places."""
        (first, before), (last, after) = begin, end
        steps = self._steps
        steps[first] += change * (1 - before)
        steps[first + 1] += change * before
        steps[last] -= change * (1 - after)
        steps[last + 1] -= change * after
        self._has_steps = True

    def distribution(self) -> Sequence[float]:
        """Give the believed probability of each bin."""
        self._learn()
        self.unread, self._drift = 0, 0.0
        return self._belief.masses

    # -- learning ----------------------------------------------------------------------

    def _learn(self) -> None:
        """Take in what is pending."""
        if not (self._pending or self._has_steps):
            return
        self._judge(self._span_merits, self._belief.by_span)
        self._judge(self._width_merits, self._belief.by_width)
        finished = self._spread()
        parts = zip(finished, _at_risk(finished), accumulate(self._steps[:BINS]), strict=True)
        # Rounding may leave a trace below 0, or fewer at risk than finished.
        fresh = [max(risk + step, count) for count, risk, step in parts]
        for span, counts, risks in zip(_SPANS, self._counts, self._risks, strict=True):
            kept = [math.exp(-risk / span) for risk in fresh]
            # As if each of the fresh ones had faded with those after it.
            gains = [
                span * (1 - k) / risk if risk else 1.0 for k, risk in zip(kept, fresh, strict=True)
            ]
            for known, new in ((counts, finished), (risks, fresh)):
                terms = zip(kept, known, gains, new, strict=True)
                known[:] = [keep * old + gain * add for keep, old, gain, add in terms]
        self._pending.clear()
        self._steps = [0.0] * (BINS + 2)
        self._has_steps = False
        self._belief = self._believe()

    def _judge(self, merits: list[float], candidates: Sequence[Sequence[float]]) -> None:
        """Add to each candidate's merit the log of the chance it gave to what is pending."""
        kept = _FORGETTING ** len(self._pending)
        for index, masses in enumerate(candidates):
            chances = chances_of(sums_of(masses), self._pending)
            merits[index] = kept * merits[index] + sum(map(math.log, chances))

    def _spread(self) -> list[float]:
        """Give the counts of what is pending: of each observation one, where it is believed."""
        counts = [0.0] * BINS
        # By how much each bin's belief has to be multiplied: rises and falls from bin to bin.
        changes = [0.0] * (BINS + 2)
        chances = chances_of(self._belief.sums, self._pending)
        for ((first, before), (last, after)), chance in zip(self._pending, chances, strict=True):
            if chance <= LEAST_CHANCE:  # beyond the grid, or where nothing was thought possible
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
        by_span = list(map(_by_chances, self._counts, self._risks))
        average = blended(by_span, self._span_merits, _SPAN_ODDS)
        # The usual law: the blur that errs least shrinks with the fifth root of the counts.
        shrunk = (1 + min(self.observed, max(_SPANS))) ** -0.2
        by_width = [blurred(average, width * shrunk) for width in _WIDTHS]
        masses = normalised(blended(by_width, self._width_merits, _WIDTH_ODDS))
        return _Belief(by_span, by_width, masses, sums_of(masses))

    # -- keeping what was learned ------------------------------------------------------

    def to_state(self) -> dict[str, Any]:
        """Give plain values that `from_state` reads."""
        self._learn()
        return {
            "observed": self.observed,
            "grid": [FIRST, RATIO, BINS],
            "spans": list(_SPANS),
            "widths": list(_WIDTHS),
            "counts": [list(counts) for counts in self._counts],
            "risks": [list(risks) for risks in self._risks],
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
        is_known = form == [[FIRST, RATIO, BINS], [*_SPANS], [*_WIDTHS]]
        if not is_known or type(observed) is not int or observed < 0:
            reason = "not a memory of this version"
            raise ValueError(reason)
        counts, risks = (
            [
                _numbers(values, BINS, 0.0, _MOST_COUNTED)
                for _, values in zip(_SPANS, state[key], strict=True)
            ]
            for key in ("counts", "risks")
        )
        spans = _numbers(state["span_merits"], len(_SPANS), -_MOST_MERIT, _MOST_MERIT)
        widths = _numbers(state["width_merits"], len(_WIDTHS), -_MOST_MERIT, _MOST_MERIT)
        return cls(observed, counts, risks, spans, widths)


def _numbers(values: Any, count: int, least: float, most: float) -> list[float]:
    """Check numbers that were read from a file."""
    if len(values) != count or not all(
        type(value) in (int, float) and least <= value <= most for value in values
    ):
        reason = "not the numbers of a memory"
        raise ValueError(reason)
    return [float(value) for value in values]
