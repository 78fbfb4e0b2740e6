"""The policy that learns: it plans the cheapest schedule for what it has seen."""

import json
import math
import random
from contextlib import suppress
from typing import Any, Self

import attrs

from .._checks import positive, share
from ..errors import ConfigurationError
from .memory import GRID, MIDDLES, Memory, nearest
from .planning import cheapest_next
from .policies import Look


__all__ = ["Learned"]

_VERSION = 1
_KIND = "kokoon_async.Learned"
_REPLAN_SHARE = 0.1  # plan anew when this share more has been seen
_MOST_COUNTED = 300
_BEYOND_GRID = 0.2  # share of the age, for images older than a day


@attrs.define
class Learned:
    """
    Learn how long images take, and look when it is worth the request.

    One instance serves all waits of a client, and learns from each. With nothing learned
    it behaves like an exponential backoff. `to_json` keeps what was learned.

    Attributes:
        price: Seconds of delay that one request is worth. 0.3 suits a single interactive
            wait, 1 is a fair default, 3 and more suit large batches.

        jitter: Share by which delays are spread, e.g. 0.1 for ± 10 %; 0 for none.

        seed: Of the jitter.
    """

    price: float = attrs.field(default=1.0, validator=positive)
    jitter: float = attrs.field(default=0.1, validator=share, kw_only=True)
    seed: int | None = attrs.field(default=None, kw_only=True)
    _memory: Memory = attrs.field(factory=Memory, init=False, repr=False)
    _plan: list[int] = attrs.field(factory=list, init=False, repr=False, eq=False)
    _planned_at: int = attrs.field(default=0, init=False, repr=False, eq=False)
    _planned_price: float = attrs.field(default=0.0, init=False, repr=False, eq=False)
    _random: random.Random = attrs.field(init=False, repr=False, eq=False)

    @_random.default
    def _seeded(self) -> random.Random:
        return random.Random(self.seed)

    @property
    def observed(self) -> int:
        """How many finished waits it has learned from."""
        return self._memory.observed

    def next_delay(self, look: Look) -> float:
        """Give the pause until the look that is worth its price."""
        age = look.age if math.isfinite(look.age) else look.elapsed
        age = max(age, 0.0)
        self._plan_if_due()
        choice = self._plan[nearest(age)]
        # Rounding to the grid may point at the present, or back.
        while GRID[choice] <= age and choice < len(GRID) - 1:
            choice += 1
        delay = GRID[choice] - age if GRID[choice] > age else _BEYOND_GRID * age
        if not self.jitter:
            return delay
        return delay * (1 + self.jitter * (2 * self._random.random() - 1))

    def record(self, earliest: float, latest: float) -> None:
        """Learn that an image finished at an age in (earliest, latest]; latest may be inf."""
        self._memory.add(earliest, latest)

    def _plan_if_due(self) -> None:
        new = self._memory.observed - self._planned_at
        due = max(1.0, _REPLAN_SHARE * min(self._planned_at, _MOST_COUNTED))
        if self._plan and new < due and self._planned_price == self.price:
            return
        self._plan = cheapest_next(GRID, self._memory.distribution(), MIDDLES, self.price)
        self._planned_at, self._planned_price = self._memory.observed, self.price

    # -- keeping what was learned ------------------------------------------------------

    def to_json(self) -> str:
        """Write down what was learned, without the jitter's state."""
        state = {"kind": _KIND, "version": _VERSION, "price": self.price, "jitter": self.jitter}
        return json.dumps(state | {"memory": self._memory.to_state()})

    @classmethod
    def from_json(cls, text: str, *, seed: int | None = None) -> Self:
        """
        Make a policy that knows what `to_json` wrote down.

        Raises:
            ConfigurationError: If the text is broken, or something else.
        """
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            state: Any = json.loads(text)
            if (state["kind"], state["version"]) == (_KIND, _VERSION):
                policy = cls(state["price"], jitter=state["jitter"], seed=seed)
                policy._memory = Memory.from_state(state["memory"])
                return policy
        raise ConfigurationError(
            "This is not what Learned.to_json() of this version writes.",
            hint="Begin anew with Learned(); it learns within some thirty waits.",
        )
