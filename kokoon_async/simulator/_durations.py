"""
How long simulated images take: distributions with a `sample` method.

All numbers are seconds of the simulated server's clock.
"""

import math
import random
from typing import Protocol

import attrs


_MOST_EXPONENT = 700.0  # beyond 709 math.exp overflows


class Durations(Protocol):
    """Anything that can draw how long one image takes, in seconds."""

    def sample(self, rng: random.Random, /) -> float:
        """Draw one duration with the given source of randomness."""
        ...


def _above_zero(_instance: object, attribute: "attrs.Attribute[float]", value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{attribute.name} must be a number above 0, not {value!r}")


def _not_negative(_instance: object, attribute: "attrs.Attribute[float]", value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{attribute.name} must be a number of at least 0, not {value!r}")


@attrs.frozen
class Constant:
    """
    Every image takes the same time.

    Attributes:
        seconds: That time.
    """

    seconds: float = attrs.field(validator=_not_negative)

    def sample(self, rng: random.Random, /) -> float:  # noqa: ARG002 - the protocol's parameter
        """Give the one duration."""
        return self.seconds


@attrs.frozen
class LogNormal:
    """
    Most images take about the median, a few take much longer.

    Attributes:
        median: Half of the images are done after this many seconds.

        sigma: Standard deviation of the logarithm; 0.6 puts 95 % below 2.7 medians.
    """

    median: float = attrs.field(default=20.0, validator=_above_zero)
    sigma: float = attrs.field(default=0.6, validator=_not_negative)

    def sample(self, rng: random.Random, /) -> float:
        """Draw one duration."""
        exponent = rng.normalvariate(math.log(self.median), self.sigma)
        return math.exp(min(exponent, _MOST_EXPONENT))


@attrs.frozen
class QueueAndRun:
    """
    An exponential wait in a queue, then a gamma-distributed run.

    Attributes:
        queue_mean: Mean seconds in the queue.

        run_mean: Mean seconds of work.

        run_shape: How regular the work is: 1 is exponential, 20 nearly constant.
    """

    queue_mean: float = attrs.field(default=5.0, validator=_above_zero)
    run_mean: float = attrs.field(default=15.0, validator=_above_zero)
    run_shape: float = attrs.field(default=4.0, validator=_above_zero)

    def sample(self, rng: random.Random, /) -> float:
        """Draw one duration: queue and run together."""
        queue = rng.expovariate(1.0 / self.queue_mean)
        return queue + rng.gammavariate(self.run_shape, self.run_mean / self.run_shape)
