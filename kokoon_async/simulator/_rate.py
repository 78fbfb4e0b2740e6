"""
A token bucket: how many requests per second the simulated server puts up with.
"""

import math


class TokenBucket:
    """
    Let *rate* requests per second through, and as many at once after a quiet second.

    Args:
        rate: Requests per second; below 1 still one request passes at first.
    """

    def __init__(self, rate: float) -> None:
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"requests_per_second must be a number above 0, not {rate!r}")
        self._rate = rate
        self._capacity = max(1.0, rate)
        self._tokens = self._capacity
        self._filled_at: float | None = None

    def take(self, now: float) -> float:
        """
        Let one request through if there is room for it.

        Args:
            now: Seconds of any clock; if it goes back, no time has passed.

        Returns:
            0 if it passes, else the seconds until the next one would.
        """
        passed = 0.0 if self._filled_at is None else max(0.0, now - self._filled_at)
        self._tokens = min(self._capacity, self._tokens + passed * self._rate)
        self._filled_at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate
