"""How long before its deadline a wait makes its last look."""

__all__ = ["Reserve"]

# The last look starts this much before the deadline: an answer after it is of no use.
_LOOKS = 2.0
_MOST = 0.1  # share of the wait
_FIRST_ESTIMATE = 0.05
_SMOOTHING = 0.2
_SHORTEST_LOOK = 0.005


class Reserve:
    """Learn how long looks take, and keep time for the last one."""

    __slots__ = ("_look_seconds",)

    def __init__(self) -> None:
        self._look_seconds = _FIRST_ESTIMATE

    def learn(self, seconds: float) -> None:
        """Take in how long a look took."""
        self._look_seconds += _SMOOTHING * (seconds - self._look_seconds)

    def seconds(self, timeout: float | None) -> float:
        """Give the seconds before the deadline at which a wait's last look has to start."""
        usual = _LOOKS * max(self._look_seconds, _SHORTEST_LOOK)
        return usual if timeout is None else min(usual, _MOST * timeout)
