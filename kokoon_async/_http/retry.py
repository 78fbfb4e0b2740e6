"""
Whether and when to send a request again: a policy, a quota, and one pure decision.

The quota is shared by all calls of a client and paid for by successes, so that an
outage costs a fixed number of extra requests and not a multiple of the load (E2).
"""

import random
from collections.abc import Callable

import attrs

from .._checks import non_negative, positive, whole
from ..errors import KokoonError
from .protocol import hint_of, is_throttling, is_transient


__all__ = ["GiveUp", "RetryPolicy", "RetryQuota", "next_pause"]

_MOST_DOUBLINGS = 62  # 2**n stays a sane number however long a wait fails (F-57)


@attrs.frozen
class RetryPolicy:
    """
    Say how often and how patiently a failed request is sent again.

    The pause before attempt n + 1 is drawn evenly from 0 to ``base * 2 ** (n - 1)``
    seconds ("full jitter"), never less than the server's own hint.

    Attributes:
        attempts: Requests in all for one call; 1 means no second one.

        base: Seconds, after a fault or a server error.

        throttled_base: Seconds, after the server asked for fewer requests.

        cap: The longest drawn pause, in seconds.

        retry_after_cap: The longest hint of the server that a call waits out, in
            seconds; a longer one fails the call at once, and holds up the client's
            other requests for this time only.

        quota: Tokens that all calls of a client share for their retries.

        transient_cost: Tokens for a retry after a fault or a server error.

        throttled_cost: Tokens for a retry after the server asked for fewer requests.
    """

    attempts: int = attrs.field(default=3, validator=whole)
    base: float = attrs.field(default=0.05, validator=non_negative)
    throttled_base: float = attrs.field(default=1.0, validator=non_negative)
    cap: float = attrs.field(default=20.0, validator=positive)
    retry_after_cap: float = attrs.field(default=120.0, validator=positive)
    quota: int = attrs.field(default=500, validator=non_negative)
    transient_cost: int = attrs.field(default=14, validator=non_negative)
    throttled_cost: int = attrs.field(default=5, validator=non_negative)

    def backoff(self, failures: int, *, throttled: bool, draw: Callable[[], float]) -> float:
        """
        Draw the pause after so many failures in a row, in seconds.

        Args:
            failures: From 1.

            throttled: Whether the server asked for fewer requests.

            draw: Gives a number from 0 to 1, e.g. `random.random`.
        """
        base = self.throttled_base if throttled else self.base
        return draw() * min(self.cap, base * 2.0 ** min(failures - 1, _MOST_DOUBLINGS))

    def cost(self, *, throttled: bool) -> int:
        """Give the tokens that a retry costs."""
        return self.throttled_cost if throttled else self.transient_cost


class RetryQuota:
    """
    Count the tokens that retries cost and successes bring back.

    Args:
        size: Tokens at the start, and the most there can be.
    """

    __slots__ = ("_size", "_tokens")

    def __init__(self, size: int) -> None:
        self._size = self._tokens = size

    @property
    def tokens(self) -> int:
        """Tokens left."""
        return self._tokens

    def take(self, cost: int) -> bool:
        """Pay for a retry, or give ``False`` if the tokens do not suffice."""
        if cost > self._tokens:
            return False
        self._tokens -= cost
        return True

    def give_back(self, tokens: int) -> None:
        """Credit a success: its own retry's cost, or 1 if it needed none."""
        self._tokens = min(self._size, self._tokens + tokens)


@attrs.frozen
class GiveUp:
    """
    Say that a failed call is not tried again.

    Attributes:
        reason: Why, as the end of a sentence; empty if trying again cannot help.
    """

    reason: str = ""


def next_pause(
    policy: RetryPolicy,
    quota: RetryQuota,
    error: KokoonError,
    *,
    attempts: int,
    left: float,
    draw: Callable[[], float] = random.random,
) -> float | GiveUp:
    """
    Decide whether a failed attempt is followed by another, and after which pause.

    Takes the retry's cost from the quota if so.

    Args:
        policy: The client's.

        quota: The client's; the only thing that changes.

        error: What went wrong.

        attempts: Requests sent so far for this call.

        left: Seconds until the call's deadline.

        draw: Gives a number from 0 to 1.

    Returns:
        Seconds, or `GiveUp`.
    """
    if not is_transient(error):
        return GiveUp()
    if attempts >= policy.attempts:
        return GiveUp(f"it failed {attempts} times in a row" if attempts > 1 else "")
    throttled = is_throttling(error)
    pause = policy.backoff(attempts, throttled=throttled, draw=draw)
    hint = hint_of(error)
    if hint is not None:
        if hint > policy.retry_after_cap:
            return GiveUp(f"the server asked for a pause of {hint:.0f} s")
        pause = max(pause, hint)
    if pause >= left:
        return GiveUp(f"its time would be over before the next attempt, {pause:.1f} s from now")
    if not quota.take(policy.cost(throttled=throttled)):
        return GiveUp("too many requests fail: the client's quota of retries is used up")
    return pause
