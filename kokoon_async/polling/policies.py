"""How long to pause between looks: the policies, all of them plain arithmetic."""

import math
import random
from typing import Any, Protocol

import attrs

from .._checks import is_finite, positive, share, shown
from ..errors import ConfigurationError
from ..models import ImageState


__all__ = [
    "SHORTEST_DELAY",
    "AgeProportional",
    "Exponential",
    "Fixed",
    "Look",
    "PollPolicy",
    "delay_from",
]

SHORTEST_DELAY = 0.1
"""Seconds: a policy that says 0 must not turn a wait into a flood (F-61)."""


@attrs.frozen
class Look:
    """
    Say what is known when a policy is asked for the next delay.

    Attributes:
        age: Seconds since the image was created, by the server's clock.

        elapsed: Seconds since the wait began.

        looks: Looks made so far, from 1.

        state: The image's state at the last good look; ``pending`` before the first.
    """

    age: float
    elapsed: float
    looks: int
    state: ImageState


class PollPolicy(Protocol):
    """
    Decide when to look next, and learn from when images were finished.

    A policy may have a third method, ``follow(since, until)``, to be told after each look
    of an image that was unfinished at the age *since*, and still is at *until*. Its
    ``record`` then gets a keyword *since* too: the age up to which it was told.
    """

    def next_delay(self, look: Look) -> float:
        """Give the seconds from now to the next look; a wait makes less than 0.1 to 0.1 (F-61)."""

    def record(self, earliest: float, latest: float) -> None:
        """Note that an image finished at an age in (earliest, latest]; latest may be inf."""


def delay_from(policy: PollPolicy, look: Look) -> float:
    """
    Ask a policy, which may be anybody's, for the seconds to the next look.

    Raises:
        ConfigurationError: If it gives no finite number: such a pause would never be over,
            or stop the whole schedule.
    """
    delay = policy.next_delay(look)
    if not is_finite(delay):
        name = type(policy).__name__
        raise ConfigurationError(f"{name}.next_delay gave {shown(delay)}, not seconds.")
    return float(delay)


def _no_shrinking(owner: Any, attribute: "attrs.Attribute[Any]", value: float) -> None:
    if value < 1:
        name = f"{type(owner).__name__}.{attribute.name}"
        raise ConfigurationError(f"{name} must be 1 or more, not {value!r}.")


def _at_least(lower: str) -> Any:
    """Make a validator that refuses a value below that of the field *lower*."""

    def check(owner: Any, attribute: "attrs.Attribute[Any]", value: float) -> None:
        least = getattr(owner, lower)
        if value < least:
            name = f"{type(owner).__name__}.{attribute.name}"
            raise ConfigurationError(f"{name} ({value!r}) must not be below {lower} ({least!r}).")

    return check


@attrs.define(kw_only=True)
class _Jittered:
    """
    Spread delays evenly by ± *jitter*, so that waits do not march in step (F-54).

    Attributes:
        jitter: Share of the delay, e.g. 0.1 for ± 10 %; 0 makes the policy deterministic.
    """

    jitter: float = attrs.field(default=0.1, validator=share)
    _random: random.Random = attrs.field(factory=random.Random, init=False, repr=False, eq=False)

    def record(self, earliest: float, latest: float) -> None:
        """Take no notice: this policy does not learn."""

    def _spread(self, delay: float) -> float:
        if not self.jitter:
            return delay
        return delay * (1 + self.jitter * (2 * self._random.random() - 1))


@attrs.define
class Fixed(_Jittered):
    """
    Look every *interval* seconds.

    Attributes:
        interval: Seconds; a wait never pauses for less than 0.1 (F-61).
    """

    interval: float = attrs.field(default=2.0, validator=positive)

    def next_delay(self, look: Look) -> float:  # noqa: ARG002 - the protocol's
        """Give the interval, spread by the jitter."""
        return self._spread(self.interval)


@attrs.define
class Exponential(_Jittered):
    """
    Pause longer after each look, up to a maximum.

    Attributes:
        initial: Seconds after the first look.

        factor: How much longer each pause is than the last; from 1.

        maximum: Seconds.
    """

    initial: float = attrs.field(default=1.0, validator=positive)
    factor: float = attrs.field(default=1.5, validator=[positive, _no_shrinking])
    maximum: float = attrs.field(default=20.0, validator=[positive, _at_least("initial")])

    def next_delay(self, look: Look) -> float:
        """Give the pause that follows so many looks, spread by the jitter."""
        try:
            pause = self.initial * float(self.factor) ** max(look.looks - 1, 0)
        except OverflowError:  # after hundreds of looks (F-57)
            pause = math.inf
        return self._spread(min(pause, self.maximum))


@attrs.define
class AgeProportional(_Jittered):
    """
    Pause for a share of the image's age: whatever its time, it is noticed in proportion.

    Attributes:
        fraction: Share of the age.

        minimum: The shortest pause, in seconds.

        maximum: The longest pause, in seconds.
    """

    fraction: float = attrs.field(default=0.15, validator=positive)
    minimum: float = attrs.field(default=0.5, validator=positive)
    maximum: float = attrs.field(default=15.0, validator=[positive, _at_least("minimum")])

    def next_delay(self, look: Look) -> float:
        """Give the share of the age, within its bounds, spread by the jitter."""
        return self._spread(min(max(self.fraction * look.age, self.minimum), self.maximum))
