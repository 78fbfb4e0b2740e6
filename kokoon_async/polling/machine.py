"""The machine that follows one wait: what a look means, and what comes next."""

import math
from typing import Any

import attrs

from ..errors import (
    ApiError,
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
from .policies import Look, PollPolicy


__all__ = ["Done", "Failed", "LookAgain", "Step", "WaitMachine"]

_SHORTEST_DELAY = 0.1  # a policy that says 0 must not turn a wait into a flood (F-61)


@attrs.frozen
class LookAgain:
    """
    Go on waiting.

    Attributes:
        delay: Seconds from now to the next look.

        reason: Why then: ``first``, ``policy``, ``backoff``, ``hint``, ``grace`` or ``deadline``.
    """

    delay: float
    reason: str


@attrs.frozen
class Done:
    """
    End a wait well.

    Attributes:
        image: Completed.
    """

    image: Image


@attrs.frozen
class Failed:
    """
    End a wait with an error.

    Attributes:
        error: What the waiting caller gets.
    """

    error: KokoonError


Step = LookAgain | Done | Failed


def _is_passing(error: KokoonError) -> bool:
    """
    Tell whether a wait goes on after a look failed like this.

    A page of HTML or an unknown refusal passes too: a maintenance page must not end an
    hour's wait, and `WaitOutage` ends what does not pass.
    """
    if isinstance(error, ConnectionFailed):
        return not error.is_lasting
    if isinstance(error, TransportError | UnexpectedResponse | RateLimited | ServerError):
        return True
    return type(error) is ApiError or (isinstance(error, ApiError) and error.status in (408, 425))


class WaitMachine:
    """
    Follow one wait: what each look means, and when to look next.

    Every method takes *now*, the seconds on a clock that never goes back.

    Args:
        vid: The image.

        policy: Asked after each look that brought a record.

        now: When the wait begins.

        timeout: Seconds it may take; ``None`` for ever.

        outage: Seconds without one good answer that it bears.

        missing_grace: Seconds from the beginning in which "not found" may only mean
            that the server does not know the image yet (U5).
    """

    __slots__ = (
        "_born",
        "_last_good",
        "_missing_grace",
        "_outage",
        "_policy",
        "_sightings",
        "_started",
        "_unfinished_at",
        "deadline",
        "failures_in_a_row",
        "image",
        "looks",
        "vid",
    )

    def __init__(
        self,
        vid: str,
        policy: PollPolicy,
        *,
        now: float,
        timeout: float | None,
        outage: float = 120.0,
        missing_grace: float = 0.0,
    ) -> None:
        self.vid = vid
        self.image: Image | None = None
        self.looks = 0
        self.failures_in_a_row = 0
        self.deadline = math.inf if timeout is None else now + timeout
        self._policy = policy
        self._started = self._last_good = self._born = now
        self._outage = outage
        self._missing_grace = missing_grace
        self._sightings: tuple[Sighting, ...] = ()
        # The age at the last look that saw the image unfinished.
        self._unfinished_at: float | None = None

    @property
    def history(self) -> tuple[Sighting, ...]:
        """The states seen, oldest first, repeats folded together."""
        return self._sightings

    def elapsed(self, now: float) -> float:
        """Give the seconds since the wait began."""
        return now - self._started

    def age(self, now: float) -> float:
        """Give the image's age in seconds: the server's if it told, else `elapsed`."""
        return now - self._born

    def observe(
        self, now: float, image: Image, *, age: float | None = None, reserve: float = 0.0
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
        """
        self.looks += 1
        self.failures_in_a_row = 0
        self.image = image
        self._last_good = now
        if age is not None:
            self._born = now - age
        self._see(image.state, now - self._started)
        if image.state.is_final:
            self._tell_policy(self.age(now))
            return Done(image) if image.state == ImageState.COMPLETED else self._image_failed(now)
        self._unfinished_at = self.age(now)
        return self._next(now, self._policy_delay(now), "policy", reserve)

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

            pause: The retry policy's backoff: the next look comes no sooner, in seconds.

            hint: Seconds after which the server wants to be asked again; never shortened.

            reserve: As for `observe`.
        """
        self.looks += 1
        self.failures_in_a_row += 1
        in_grace = isinstance(error, ImageNotFound) and self.elapsed(now) < self._missing_grace
        if not in_grace:
            if not _is_passing(error):
                return Failed(error)
            if now - self._last_good >= self._outage:
                return self._out(now, error)
        if now + hint >= self.deadline:
            why = f" The server asks not to be asked for {hint:.0f} s, longer than the time left."
            return Failed(self._timed_out(now, why if hint else ""))
        delay, reason = max(
            (self._policy_delay(now), "grace" if in_grace else "policy"),
            (pause, "backoff"),
            (hint, "hint"),
        )
        return self._next(now, delay, reason, reserve, soonest=hint)

    def expire(self, now: float) -> Failed:
        """End the wait because its deadline passed."""
        return Failed(self._timed_out(now, ""))

    def give_up(self) -> None:
        """Tell the policy that the image was not finished when last seen."""
        self._tell_policy(math.inf)

    def _policy_delay(self, now: float) -> float:
        state = ImageState.PENDING if self.image is None else self.image.state
        look = Look(self.age(now), self.elapsed(now), self.looks, state)
        return max(self._policy.next_delay(look), _SHORTEST_DELAY)

    def _tell_policy(self, latest: float) -> None:
        # An image that was finished at first sight says nothing about how long it took.
        if self._unfinished_at is not None and latest > self._unfinished_at:
            self._policy.record(self._unfinished_at, latest)
        self._unfinished_at = None

    def _next(
        self, now: float, delay: float, reason: str, reserve: float, soonest: float = 0.0
    ) -> Step:
        """Look again after *delay*, or for the last time just before the deadline, or not at all."""
        last_look = max(self.deadline - reserve, now + soonest)
        if now >= last_look:
            return self.expire(now)
        if now + delay >= last_look:
            return LookAgain(last_look - now, "deadline")
        return LookAgain(delay, reason)

    def _see(self, state: ImageState, elapsed: float) -> None:
        if self._sightings and self._sightings[-1].state == state:
            last = self._sightings[-1]
            seen = attrs.evolve(last, last_seen=elapsed, looks=last.looks + 1)
            self._sightings = (*self._sightings[:-1], seen)
        else:
            self._sightings = (*self._sightings, Sighting(state, elapsed, elapsed, 1))

    def _image_failed(self, now: float) -> Failed:
        return Failed(
            ImageFailed(
                f"The server failed to make image {self.vid} {self._story(now)}.",
                hint="Request super-resolution again, or ask the vendor.",
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
        return WaitTimedOut(
            f"Image {self.vid} was not finished {self._story(now)}.{why}",
            hint="The server's work goes on: wait for the same vid again to resume.",
            **self._evidence(now),
        )

    def _story(self, now: float) -> str:
        seen = ", ".join(str(sighting) for sighting in self._sightings) or "never seen"
        return f"after {now - self._started:.1f} s ({seen})"

    def _evidence(self, now: float) -> dict[str, Any]:
        return {
            "vid": self.vid,
            "attempts": self.looks,
            "image": self.image and self.image.without_urls(),
            "history": self._sightings,
            "elapsed": now - self._started,
        }
