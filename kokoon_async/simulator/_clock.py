"""
What time it is for the simulated server.

The server's clock need not be this machine's: under a virtual-time loop it follows the
loop, in a test it moves by hand, and a demo lets it run fast.
"""

import asyncio
import math
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import Protocol


class Clock(Protocol):
    """Anything that knows the server's time."""

    def time(self) -> float:
        """Give the seconds since 1970 in UTC, as `time.time` does."""
        ...


class LoopClock:
    """
    A clock that follows the running event loop's own clock.

    Under a virtual-time loop it is virtual too. It stands still at *start* until it is
    first asked inside a running loop.

    Args:
        start: An aware time; the present one by default.

        speed: How many seconds this clock gains in one second of the loop.
    """

    def __init__(self, *, start: datetime | None = None, speed: float = 1.0) -> None:
        if not (math.isfinite(speed) and speed > 0):
            raise ValueError(f"speed must be a number above 0, not {speed!r}")
        self._speed = speed
        self._loop: asyncio.AbstractEventLoop | None = None
        # Where the clock stood when the loop's clock showed what.
        self._time = _aware(datetime.now(UTC) if start is None else start).timestamp()
        self._loop_time = 0.0
        self._latest = 0.0

    def time(self) -> float:
        """Give the seconds since 1970 in UTC."""
        if self._loop is None:
            try:
                self._loop = asyncio.get_running_loop()
            except RuntimeError:
                # Images may be added before the loop runs; time has not begun yet.
                return self._time
            self._loop_time = self._latest = self._loop.time()
        now = self._loop.time()
        if now < self._latest:
            # A test on virtual time has just begun, after fixtures on real time: go on from here.
            self._time += (self._latest - self._loop_time) * self._speed
            self._loop_time = now
        self._latest = now
        return self._time + (now - self._loop_time) * self._speed


class ManualClock:
    """
    A clock that moves only when told to.

    Args:
        start: An aware time; 2024-02-01 12:00 UTC by default.
    """

    def __init__(self, start: datetime | None = None) -> None:
        start = datetime(2024, 2, 1, 12, tzinfo=UTC) if start is None else start
        self._start = _aware(start).timestamp()
        # Kept apart: small steps would lose much more to rounding if added to seconds since 1970.
        self._elapsed = 0.0

    def time(self) -> float:
        """Give the seconds since 1970 in UTC."""
        return self._start + self._elapsed

    def advance(self, seconds: float) -> None:
        """
        Move forward by *seconds*.

        Raises:
            ValueError: When it would go back or is not a finite number.
        """
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"a clock advances by 0 seconds or more, not {seconds!r}")
        self._elapsed += seconds


def utc_datetime(timestamp: float) -> datetime:
    """Turn seconds since 1970 into an aware time."""
    # Not `datetime.fromtimestamp`, which rounds half to even and refuses some platforms' ranges.
    return _EPOCH + timedelta(seconds=timestamp)


def iso_timestamp(timestamp: float) -> str:
    """Write seconds since 1970 as the API does: ``2024-02-01T12:17:32.699Z``."""
    text = utc_datetime(timestamp).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


def http_date(timestamp: float) -> str:
    """Write seconds since 1970 as in a ``Date`` header."""
    return formatdate(math.floor(timestamp), usegmt=True)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _aware(moment: datetime) -> datetime:
    """Return *moment* if it says its zone; without one it would mean another time elsewhere."""
    if moment.tzinfo is None:
        raise ValueError(f"start needs a time zone, such as tzinfo=UTC: {moment!r}")
    return moment
