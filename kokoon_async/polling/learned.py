"""The policy that learns: it plans the cheapest schedule for what it has seen."""

import json
import math
import random
from contextlib import suppress
from typing import Any, Self

import attrs

from .._checks import positive, share
from ..errors import ConfigurationError
from .grid import EDGES
from .memory import Memory
from .planning import Plan
from .policies import Look


__all__ = ["Learned"]

_VERSION = 1
_KIND = "kokoon_async.Learned"

# Plan anew when this share more has been seen, of what was known up to so many waits.
_REPLAN_SHARE = 0.2
_MOST_COUNTED = 300


@attrs.define(repr=False)
class Learned:
    """
    Learn how long images take, and look when it is worth the request.

    One instance serves all waits of a client, and learns from each. With nothing learned
    it behaves like an exponential backoff. `to_json` keeps what was learned. Two are
    equal if they have the same settings and know the same.

    Attributes:
        price: Seconds of delay that one request is worth. 0.3 suits a single interactive
            wait, 1 is a fair default, 3 and more suit large batches.

        jitter: Share of the pause by which looks are spread, e.g. 0.1 for ± 10 %; 0 for
            none. Where the next pause is shorter, it is a share of that: a look that was
            timed closely is not spread far.

        seed: Of the jitter.
    """

    price: float = attrs.field(default=1.0, validator=positive)
    jitter: float = attrs.field(default=0.1, validator=share, kw_only=True)
    seed: int | None = attrs.field(default=None, kw_only=True)
    _memory: Memory = attrs.field(factory=Memory, init=False)
    _plan: Plan | None = attrs.field(default=None, init=False, eq=False)
    _planned_price: float = attrs.field(default=0.0, init=False, eq=False)
    _random: random.Random = attrs.field(init=False, eq=False)

    @_random.default
    def _seeded(self) -> random.Random:
        return random.Random(self.seed)

    def __repr__(self) -> str:
        settings = f"price={self.price!r}, jitter={self.jitter!r}, seed={self.seed!r}"
        return f"<{type(self).__name__}({settings}), {self.observed} waits observed>"

    @property
    def observed(self) -> int:
        """How many waits it has learned from."""
        return self._memory.observed

    def next_delay(self, look: Look) -> float:
        """Give the pause until the look that is worth its price."""
        pause, following = self._planned().pauses(_age(look))
        if not self.jitter:
            return pause
        return pause + min(pause, following) * self.jitter * (2 * self._random.random() - 1)

    def follow(self, since: float, until: float) -> None:
        """Learn that an image was unfinished at the age *since*, and still is at *until*."""
        self._memory.follow(since, until)

    def record(self, earliest: float, latest: float, *, since: float = 0.0) -> None:
        """
        Learn that an image finished at an age in (earliest, latest]; latest may be inf.

        Args:
            earliest: In seconds, as is *latest*.

            latest: Infinite for a wait that was given up.

            since: At which age the image was first seen unfinished, or the age up to which
                `follow` was told of it.
        """
        self._memory.add(earliest, latest, since)

    def _planned(self) -> Plan:
        """Give the plan, made anew only when it is worth it: that takes a millisecond."""
        plan, memory = self._plan, self._memory
        due = max(_REPLAN_SHARE * min(memory.observed, _MOST_COUNTED), 1)
        if (
            plan is None
            or memory.unread >= due
            or memory.is_surprised
            or self.price != self._planned_price
        ):
            plan = self._plan = Plan.cheapest(EDGES, memory.distribution(), self.price)
            self._planned_price = self.price
        return plan

    # -- keeping what was learned ------------------------------------------------------

    def to_json(self) -> str:
        """Write down settings and what was learned, but not the jitter's seed and state."""
        # Plan anew: from here on this policy and one that is read from the text plan alike.
        self._plan = None
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


def _age(look: Look) -> float:
    """Give an image's age; a clock that makes no sense counts as none."""
    for age in (look.age, look.elapsed):
        if math.isfinite(age):
            return max(age, 0.0)
    return 0.0
