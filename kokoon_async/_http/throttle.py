"""
Concurrency and rate: one budget for everything that a client sends.

Calls take their turn in the order in which they came, and one that is tried again goes
first: behind thousands of others, it would hold its share of the retry quota for as long
as they take. When the server asks for fewer requests, all of them brake together: at most
half as many at once as before, and none until its hint has passed; then one more per round
of successes (AIMD).
"""

import asyncio
import math
import sys
from collections import deque

import attrs

from .._checks import positive_or_none, whole_or_none
from ..errors import RateLimited
from ..events import Braked, Hooks


__all__ = ["Limits", "Throttle"]

# A timer is late now and then; within this time the lost turns are made up for.
# Longer, and a pause of the caller would turn into a burst (G9).
_CATCH_UP = 0.05


@attrs.frozen
class Limits:
    """
    Say how much a client may ask of the server.

    Attributes:
        max_in_flight: Requests at once; ``None`` for no limit.

        requests_per_second: Their rate; ``None`` for no limit.
    """

    max_in_flight: int | None = attrs.field(default=64, validator=whole_or_none)
    requests_per_second: float | None = attrs.field(default=None, validator=positive_or_none)


class Throttle:
    """
    Let attempts go, one by one, as the limits and the server allow.

    Args:
        limits: The user's limits.

        hooks: Told when the server makes the client brake.
    """

    def __init__(self, limits: Limits, hooks: Hooks) -> None:
        self._hooks = hooks
        most = limits.max_in_flight
        self._most = math.inf if most is None else float(min(most, sys.maxsize))
        self._spacing = 1 / limits.requests_per_second if limits.requests_per_second else 0.0
        self._allowed = self._most
        self._in_flight = 0
        # Each waits for its ticket, or for None if a brake lasts beyond its deadline.
        self._queue: deque[tuple[asyncio.Future[int | None], float]] = deque()
        self._next_turn = -math.inf
        self._braked_until = -math.inf
        # Counts the brakes: an answer to a request sent before the last brake tells
        # nothing new, so a whole batch of 429s halves the limit once.
        self._epoch = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def in_flight(self) -> int:
        """How many attempts are running."""
        return self._in_flight

    @property
    def max_in_flight(self) -> float:
        """How many may run now: between 1 and the user's limit."""
        return self._allowed

    def turn_now(self, due: float) -> int | None:
        """Give a ticket, as `take_turn` does, if nothing has to be waited for."""
        if self._queue or self._braked_until > due:
            return None
        return self._epoch if self._may_go(asyncio.get_running_loop().time()) else None

    async def take_turn(self, vid: str, due: float, *, again: bool = False) -> int:
        """
        Wait until an attempt may go, and give the ticket to hand back with `done`.

        Args:
            vid: The image it is about.

            due: When the call's time is over.

            again: Whether the call has had a turn before: then it is the next.

        Raises:
            RateLimited: As soon as the server's own pause lasts beyond *due*.
        """
        loop = asyncio.get_running_loop()
        if self._braked_until > due:
            raise self._too_long(vid, loop.time())
        now = self.turn_now(due)
        if now is not None:
            return now
        turn: asyncio.Future[int | None] = loop.create_future()
        (self._queue.appendleft if again else self._queue.append)((turn, due))
        self._let_go()
        try:
            ticket = await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.result() is not None:
                self._in_flight -= 1  # the turn came together with the cancellation
            self._let_go()
            raise
        if ticket is None:
            raise self._too_long(vid, loop.time())
        return ticket

    def done(self) -> None:
        """Give the place of a finished attempt to the next one."""
        self._in_flight -= 1
        if self._queue:
            self._let_go()

    def succeeded(self) -> None:
        """Allow one more at once after a round of successes."""
        if self._allowed < self._most:
            self._allowed = min(self._most, self._allowed + 1 / self._allowed)

    def brake(self, ticket: int, hint: float | None) -> None:
        """
        Slow everything down, because the server asked for it.

        Args:
            ticket: The refused attempt's.

            hint: Seconds for which nothing is sent; a later brake never shortens them.
        """
        now = asyncio.get_running_loop().time()
        before = (self._braked_until, self._allowed)
        if hint is not None:
            self._braked_until = max(self._braked_until, now + hint)
            for turn, due in self._queue:
                if self._braked_until > due and not turn.done():
                    turn.set_result(None)  # never wait only to fail (F-51)
        if ticket == self._epoch:
            self._epoch += 1
            now_allowed = self._in_flight if math.isinf(self._allowed) else self._allowed
            self._allowed = max(1.0, now_allowed // 2)
        if (self._braked_until, self._allowed) != before and self._hooks.hears(Braked):
            delay = max(0.0, self._braked_until - now)
            self._hooks.tell(Braked(delay=delay, max_in_flight=int(self._allowed)))

    def _may_go(self, now: float) -> bool:
        """Take a place, the server's leave and a turn for one attempt, if all are free."""
        if self._in_flight + 1 > self._allowed or now < self._braked_until:
            return False
        if self._spacing:
            if now < self._next_turn:
                return False
            self._next_turn = max(self._next_turn, now - _CATCH_UP) + self._spacing
        self._in_flight += 1
        return True

    def _let_go(self) -> None:
        """Let the longest waiting go, as many as may; set the timer if one must wait."""
        loop = asyncio.get_running_loop()
        while self._queue:
            turn = self._queue[0][0]
            if not turn.done():  # neither cancelled nor refused meanwhile
                if not self._may_go(loop.time()):
                    break
                turn.set_result(self._epoch)
            del self._queue[0]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._queue and self._in_flight + 1 <= self._allowed:
            at = max(self._braked_until, self._next_turn)
            self._timer = loop.call_at(at, self._let_go)

    def _too_long(self, vid: str, now: float) -> RateLimited:
        left = self._braked_until - now
        return RateLimited(
            f"The API asked for a pause of {left:.0f} s more, longer than image {vid} can wait.",
            hint="Ask again after that time.",
            vid=vid,
            retry_after=left,
        )
