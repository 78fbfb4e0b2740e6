"""The machine that follows one wait: what a look means, and what comes next."""

import math
from typing import Any

from ..errors import (
    ApiError,
    AuthenticationFailed,
    ConnectionFailed,
    ImageFailed,
    ImageNotFound,
    KokoonError,
    RateLimited,
    ServerError,
    TransportError,
    UnexpectedResponse,
    WaitOutage,
    WaitTimedOut,
)
from ..models import Image, ImageState, Sighting
from .policies import SHORTEST_DELAY, Look, PollPolicy, delay_from
from .steps import Done, Failed, LookAgain, Step


__all__ = ["WaitMachine"]

_GRAIN = 0.001  # a timer may fire this much early

# Seconds by which two readings of one birth may differ: 1 for the whole seconds of `Date`,
# 0.5 for the answer's journey.
_DATE_GRAIN = 1.5
_LOOKS_IN_AN_OUTAGE = 4  # after the first that failed, at least, before it is called one
_MOST_TOLD = 5  # states in a message; *history* has them all


def _is_passing(error: KokoonError) -> bool:
    """
    Tell whether a wait goes on after a look failed like this.

    A page of HTML or an unknown refusal passes too: a maintenance page must not end an
    hour's wait, and `WaitOutage` ends what does not pass.
    """
    if isinstance(error, ConnectionFailed):
        return not error.is_lasting
    if isinstance(error, AuthenticationFailed):
        return error.is_passing
    passing = TransportError | UnexpectedResponse | RateLimited | ServerError
    return type(error) is ApiError or isinstance(error, passing)


class WaitMachine:
    """
    Follow one wait: what each look means, and when to look next.

    Every method takes *now*, the seconds on a clock that never goes back. There may be a
    million of these at once, so it holds states and times but no records.

    Args:
        vid: The image.

        policy: Asked after each look that leaves the wait open.

        now: When the wait begins.

        timeout: Seconds it may take; ``None`` for ever.

        outage: Seconds, from a failed look, without one good answer that it bears; ``None``
            for ever. The pauses before do not count, however long they were.

        missing_grace: Seconds from the beginning in which "not found" may only mean
            that the server does not know the image yet (U5).

    Attributes:
        vid: The image.

        policy: When to look next.

        timeout: Seconds the wait may take; ``None`` for ever.

        state: What the last good look saw; ``None`` before the first.

        looks: Looks made so far.

        failures_in_a_row: Looks that failed since the last good one.
    """

    __slots__ = (
        "_born",
        "_failing_since",
        "_last_failure",
        "_last_good",
        "_last_look",
        "_missing_grace",
        "_outage",
        "_past",
        "_started",
        "_state_looks",
        "_state_since",
        "failures_in_a_row",
        "looks",
        "policy",
        "state",
        "timeout",
        "vid",
    )

    def __init__(
        self,
        vid: str,
        policy: PollPolicy,
        *,
        now: float,
        timeout: float | None,
        outage: float | None = 120.0,
        missing_grace: float = 0.0,
    ) -> None:
        self.vid = vid
        self.timeout = timeout
        self.state: ImageState | None = None
        self.looks = 0
        self.failures_in_a_row = 0
        self.policy = policy
        self._outage = math.inf if outage is None else outage
        self._missing_grace = missing_grace
        self._started = self._last_good = self._born = self._state_since = self._failing_since = now
        self._state_looks = 0
        self._past: tuple[Sighting, ...] = ()
        self._last_failure = ""
        self._last_look: float | None = None

    @property
    def deadline(self) -> float:
        """When the wait's time is over; infinite if never."""
        return math.inf if self.timeout is None else self._started + self.timeout

    @property
    def history(self) -> tuple[Sighting, ...]:
        """The states seen, oldest first, repeats folded together."""
        if self.state is None:
            return ()
        first, last = self._state_since - self._started, self._last_good - self._started
        return (*self._past, Sighting(self.state, first, last, self._state_looks))

    def elapsed(self, now: float) -> float:
        """Give the seconds since the wait began."""
        return now - self._started

    def age(self, now: float) -> float:
        """Give the image's age in seconds: the server's if it told, else `elapsed`."""
        return now - self._born

    def observe(
        self,
        now: float,
        image: Image,
        *,
        age: float | None = None,
        reserve: float = 0.0,
        is_told: bool = False,
    ) -> Step:
        """
        Take in a look that brought a record.

        A final state ends the wait whatever the clock says, and the first one counts: a
        state that goes back cannot happen for the caller (F-40).

        Args:
            now: When the answer came.

            image: The record.

            age: The image's age by the server's clock, in seconds, if that is known.

            reserve: Seconds before the deadline at which the last look has to start, to
                be answered in time.

            is_told: Whether another wait tells the policy of this look.
        """
        self.looks += 1
        self.failures_in_a_row = 0
        if age is not None:
            self._set_age(now - age)
        before = now if self.state is None else self._last_good
        self._see(image.state, now)
        if not image.state.is_final:
            follow = None if is_told else getattr(self.policy, "follow", None)
            if follow is not None and before < now:
                follow(max(self.age(before), 0.0), self.age(now))
            return self._next(now, self._policy_delay(now), "policy", reserve)
        return Done(image) if image.state == ImageState.COMPLETED else self._failed(now, image)

    def fail(
        self,
        now: float,
        error: KokoonError,
        *,
        pause: float = 0.0,
        hint: float = 0.0,
        reserve: float = 0.0,
    ) -> Step:
        """
        Take in a look that brought no record.

        Args:
            now: When it failed.

            error: Why.

            pause: The retry policy's backoff, in seconds: the next look comes no sooner,
                unless it is the last one before an outage ends the wait.

            hint: Seconds after which the server wants to be asked again; never shortened.

            reserve: As for `observe`.
        """
        self.looks += 1
        in_grace = isinstance(error, ImageNotFound) and self.elapsed(now) < self._missing_grace
        if in_grace or not self.failures_in_a_row:
            self._failing_since = now
        if not in_grace:
            self.failures_in_a_row += 1
            self._last_failure = type(error).__name__
            if not _is_passing(error):
                return Failed(error)
        elif self.state is None:
            self._last_good = now  # the server is well, and this its best answer so far
        outage_in = self._failing_since + self._outage - now
        if outage_in <= 0:
            return self._out(now, error)
        if hint and now + hint >= self.deadline:
            why = f" The server asks not to be asked for {hint:.0f} s, longer than the time left."
            return Failed(self._timed_out(now, why))
        usual = (self._policy_delay(now), "grace" if in_grace else "policy")
        delay, reason = max(usual, (pause, "backoff"))
        # Two failures by chance are no outage, and its last chance comes when the patience ends.
        patience = min(outage_in, self._outage / _LOOKS_IN_AN_OUTAGE)
        delay = max(min(delay, patience), SHORTEST_DELAY)
        delay, reason = max((delay, reason), (hint, "hint"))
        return self._next(now, delay, reason, reserve, soonest=hint)

    def expire(self, now: float) -> Failed:
        """End the wait because its deadline passed."""
        return Failed(self._timed_out(now, ""))

    def conclude(self) -> None:
        """
        Tell the policy when the image was seen to finish, or that it was not.

        Call it once, when the wait is over, however it ended: apart from `observe`, so
        that a policy which raises cannot take a completed record away.
        """
        # An image that was finished at first sight says nothing about how long it took.
        if self.state is None or (self.state.is_final and not self._past):
            return
        earliest, latest = self.age(self._last_good), math.inf
        if self.state.is_final:
            latest = earliest
            earliest = max(self.age(self._started + self._past[-1].last_seen), 0.0)
        if earliest >= latest:  # the server's clock is not to be believed
            return
        # One that follows was told of what went before.
        told = {"since": earliest} if hasattr(self.policy, "follow") else {}
        self.policy.record(earliest, latest, **told)

    def last_seen(self) -> str:
        """Say what is known of the image, as a part of a sentence."""
        return "not seen yet" if self.state is None else f"last seen as {self.state}"

    def _policy_delay(self, now: float) -> float:
        state = ImageState.PENDING if self.state is None else self.state
        look = Look(self.age(now), self.elapsed(now), self.looks, state)
        return max(delay_from(self.policy, look), SHORTEST_DELAY)

    def _next(
        self, now: float, delay: float, reason: str, reserve: float, soonest: float = 0.0
    ) -> Step:
        """Look again after *delay*, or for the last time just before the deadline, or not at all."""
        # Planned once: the reserve may shrink, and there would be many last looks.
        last_look = self.deadline - reserve if self._last_look is None else self._last_look
        last_look = max(last_look, now + soonest)
        if now >= last_look - _GRAIN:
            return self.expire(now)
        if now + delay < last_look - SHORTEST_DELAY:
            return LookAgain(delay, reason)
        self._last_look = last_look
        return LookAgain(last_look - now, "deadline")

    def _set_age(self, born: float) -> None:
        # `Date` has whole seconds: of several readings, the earliest birth is the nearest to
        # the truth, unless the server's clock was set meanwhile.
        is_close = self.state is not None and abs(born - self._born) < _DATE_GRAIN
        self._born = min(born, self._born) if is_close else born

    def _see(self, state: ImageState, now: float) -> None:
        if state != self.state:
            self._past = self.history
            self._state_since, self._state_looks = now, 0
        self.state = state
        self._state_looks += 1
        self._last_good = now

    def _failed(self, now: float, image: Image) -> Failed:
        return Failed(
            ImageFailed(
                f"The server failed to make image {self.vid} {self._story(now)}.",
                hint="Request super-resolution again, or ask the vendor.",
                image=image.without_urls(),
                **self._evidence(now),
            )
        )

    def _out(self, now: float, error: KokoonError) -> Failed:
        return Failed(
            WaitOutage(
                f"Image {self.vid}: no good answer for {now - self._last_good:.0f} s"
                f" {self._story(now)}; the last failure: {error.message}",
                hint="The server's work may go on: wait for the same vid again later.",
                **self._evidence(now),
            )
        )

    def _timed_out(self, now: float, why: str) -> WaitTimedOut:
        failures = self.failures_in_a_row
        if failures:
            why = f" Failed looks in a row at the end: {failures} ({self._last_failure}).{why}"
        return WaitTimedOut(
            f"Image {self.vid} was not finished {self._story(now)}.{why}",
            hint="The server's work goes on: wait for the same vid again to resume.",
            **self._evidence(now),
        )

    def _story(self, now: float) -> str:
        latest = ["…"] * (len(self.history) > _MOST_TOLD)
        latest += [str(sighting) for sighting in self.history[-_MOST_TOLD:]]
        seen = ", ".join(latest) or "never seen"
        return f"after {self.elapsed(now):.1f} s ({seen})"

    def _evidence(self, now: float) -> dict[str, Any]:
        return {
            "vid": self.vid,
            "attempts": self.looks,
            "history": self.history,
            "elapsed": self.elapsed(now),
        }
