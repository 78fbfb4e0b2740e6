"""
Let ids through while the server answers: what tells an outage from an id that always fails.

Failures that may pass are counted in streaks; a good answer ends a streak. A long streak
closes the valve: nothing is fed any more, and one probe at a time asks for an image that
was answered before. A good probe shows that the ids were at fault (poison ids, F-100); a
bad one shows that the server is, and until a good one nothing else is sent (F-101).
"""

import asyncio
import math

from ..client import KokoonClient
from ..errors import (
    ApiError,
    AuthenticationFailed,
    ConnectionFailed,
    InsufficientCredit,
    JobError,
    KokoonError,
    RateLimited,
    ServerError,
    TransportError,
    UnexpectedResponse,
    WaitError,
    WaitOutage,
    WaitTimedOut,
)
from ..events import logger


__all__ = ["FORBIDDEN", "Streak", "Valve", "may_pass"]

FORBIDDEN = 403

LONGEST_STREAK = 10
"""So many failures in a row, and nothing good among them, close the valve."""

PROBE_EVERY = 10.0
"""Seconds from one probe to the next."""

UNREACHABLE_AFTER = 120.0
"""Seconds after which a job gives up that never reached the API at all."""

BLIND_PROBES = 3
"""So many 5xx in a row, where nothing ever succeeded: the ids may be the reason."""

_GRAIN = 0.001  # a timer may fire this much early, and sums of times are rounded


def may_pass(error: KokoonError) -> bool:
    """Tell whether a failure says more about the server, at this time, than about the id."""
    if isinstance(error, WaitTimedOut):
        return not error.history  # not one good answer in all the time
    if type(error) is ApiError:
        return True  # a refusal in words that nobody knows, perhaps of everything
    if isinstance(error, AuthenticationFailed):
        return error.is_passing
    transient = (TransportError, ServerError, RateLimited, UnexpectedResponse, WaitOutage)
    return isinstance(error, transient)


class Streak:
    """
    Count failures with nothing good among them.

    Attributes:
        failures: How many.

        is_over: Whether it is known what they meant.

        is_outage: Whether they were the server's fault and tell nothing about the ids.
    """

    __slots__ = ("failures", "is_outage", "is_over")

    def __init__(self) -> None:
        self.failures = 0
        self.is_over = False
        self.is_outage = False


class Valve:
    """
    Feed ids while the server answers, and pause while it does not.

    Args:
        client: Sends the probes.

        patience: Seconds without any good answer until the job is given up; ``None``
            for ever.

        holds: Whether after a failure nothing more is fed until something in flight
            succeeds. So an outage costs the requests in flight and no more; but where
            good news takes minutes, as in waits, it would only hold things up.

    Attributes:
        in_flight: How many ids were let through and did not come back.

        reason: Why the valve is closed, once a probe has failed; else ``None``.

        requests: How many requests the probes took.

        turns: Whoever feeds a shard for the first time holds this lock, so that one shard
            runs dry while the next one is already being fed.
    """

    def __init__(self, client: KokoonClient, *, patience: float | None, holds: bool = True) -> None:
        self._client = client
        self._patience = patience
        self._holds = holds
        self._streak = Streak()
        self._good: str | None = None
        self._earlier: str | None = None
        self._suspect = ""
        self._error: KokoonError = KokoonError()
        self._dark_since: float | None = None
        self._is_closed = False
        self._is_probing = False
        self._blind = 0
        self._stopped: KokoonError | None = None
        self._changed = asyncio.Event()
        self.in_flight = 0
        self.requests = 0
        self.reason: str | None = None
        self.turns = asyncio.Lock()

    def lets_through(self) -> bool:
        """Tell whether one more id may be asked for; if so, count it as in flight."""
        if self._is_closed or (self._holds and self._streak.failures and self.in_flight):
            return False
        self.in_flight += 1
        return True

    async def wait_for_passage(self) -> None:
        """
        Wait until `lets_through` says yes.

        Raises:
            JobError: If it is no use to go on.

            AuthenticationFailed: If a probe met it.
        """
        while not self.lets_through():
            if self._is_closed:
                await self._probe_or_wait()
            else:
                await self._changed.wait()

    def answered(self, vid: str) -> None:
        """Take note that an id came back with a good answer."""
        self._good = vid
        self._dark_since = None
        if self._streak.failures and not self._is_closed:
            self._end_streak()
        self.dropped(1)

    def failed(self, vid: str, error: KokoonError) -> Streak:
        """Take note that an id came back with a failure that may pass."""
        streak = self._streak
        streak.failures += 1
        self._suspect, self._error = vid, error
        if isinstance(error, WaitError) and error.history:
            self.seen(vid)
        self._darkens()
        if streak.failures == LONGEST_STREAK:
            self._is_closed = True
            self._wake()
        self.dropped(1)
        return streak

    def seen(self, vid: str) -> None:
        """Take note that the API has answered for an id, at some time: it will do for probes."""
        self._good = vid

    def looked_at(self, vid: str) -> None:
        """Take note of a good answer on the way: the wait goes on, and so may a streak."""
        self._good = vid
        self._dark_since = None

    def remember(self, vid: str) -> None:
        """Take note that an earlier run had a good answer for an id: it will do for probes."""
        self._earlier = vid

    def dropped(self, count: int) -> None:
        """Take note that ids came back with nothing to learn from."""
        self.in_flight -= count
        if not self.in_flight and self._streak.failures:
            self._wake()

    async def resolve(self, streak: Streak) -> None:
        """
        Find out what the failures of a streak meant.

        Raises:
            JobError: If it is no use to go on.

            AuthenticationFailed: If a probe met it.
        """
        while not streak.is_over:
            self._is_closed = True
            await self._probe_or_wait()

    # -- inside ------------------------------------------------------------------------

    async def _probe_or_wait(self) -> None:
        if self._stopped is not None:
            raise self._stopped
        # The first who comes does it for all; if it is cancelled, the next one does.
        if self._is_probing:
            await self._changed.wait()
            return
        self._is_probing = True
        try:
            await self._probe_until_open()
        except KokoonError as error:
            self._stopped = error
            raise
        finally:
            self._is_probing = False
            self._wake()

    async def _probe_until_open(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            # First of all, since nothing else tells that the API is well while waits go on.
            error = await self._probe()
            if error is None or self._is_blind(error):
                self._open()
                return
            self._note(error)
            patience = self._patience_left()
            await asyncio.sleep(max(0.0, min(started + PROBE_EVERY - loop.time(), patience)))

    async def _probe(self) -> KokoonError | None:
        """Ask for one image; give what went wrong, if it may pass."""
        vid = self._good or self._earlier or self._suspect
        # A stream and not `get_image`, which does not tell how often a good answer was asked for.
        async with self._client.get_images([vid]) as outcomes:
            outcome = await anext(outcomes)
        self.requests += outcome.attempts
        error = outcome.error
        if error is not None and may_pass(error):
            return error
        if isinstance(error, AuthenticationFailed | InsufficientCredit):
            if self._good not in (None, vid) and error.status == FORBIDDEN:
                return None  # another image was answered meanwhile
            raise error
        self._good = vid
        self._dark_since = None
        return None

    def _is_blind(self, error: KokoonError) -> bool:
        """Tell whether to go on, since the server is there and no id is known to be good."""
        if self._good or self._earlier or not isinstance(error, ServerError):
            self._blind = 0
            return False
        self._blind = (self._blind + 1) % BLIND_PROBES
        return not self._blind

    def _note(self, error: KokoonError) -> None:
        if self.reason is None:
            logger.warning("job.paused", extra={"kokoon_error": type(error).__name__})
        self._error = error
        self.reason = f"No good answer from the API: {error.message}"

    def _open(self) -> None:
        if self.reason is not None:
            logger.warning("job.resumed")
        # If the server is not known to be well, then the failures do count.
        self._streak.is_outage = self.reason is not None and self._good is not None
        self._is_closed = False
        self.reason = None
        self._end_streak()

    def _darkens(self) -> float:
        """Take note that there is no good answer; give for how many seconds that is so."""
        now = asyncio.get_running_loop().time()
        if self._dark_since is None:
            self._dark_since = now
        return now - self._dark_since

    def _end_streak(self) -> None:
        self._streak.is_over = True
        self._streak = Streak()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _patience_left(self) -> float:
        """
        Give for how many seconds to try on; infinite if for ever.

        Raises:
            JobError: It says what happened; the job adds what was kept.
        """
        error, dark = self._error, self._darkens()
        if self._good is None and isinstance(error, ConnectionFailed) and error.is_lasting:
            raise JobError(f"The API cannot be reached. {error.message}", error.hint)
        is_api = isinstance(error, ServerError | RateLimited)
        if self._good is None and not is_api and dark >= UNREACHABLE_AFTER:
            raise JobError(
                f"No usable answer from the API, for {dark:.0f} s from the start. {error.message}",
                error.hint,
            )
        left = math.inf if self._patience is None else self._patience - dark
        if left <= _GRAIN:
            raise JobError(f"No good answer from the API for {dark:.0f} s. {error.message}")
        return left
