"""
Every call in flight: how long it may take, what it is doing, and who ended it.

One watcher serves all calls. It needs one timer of the event loop in all, where a
timer for each call and each read costs 17 µs a call (decision 13). A call is
ended like `asyncio.timeout` does it: its task is cancelled and the cancellation
turned into the error that says why, unless somebody else cancelled it too.

Errors leave a call without the frames in which they arose: their locals hold answers
with presigned addresses, and headers (F-120).
"""

import asyncio
import math
from collections.abc import Coroutine
from itertools import takewhile
from typing import Any, TypeVar, cast

import attrs

from .._checks import positive_or_none
from ..errors import ClientClosed, ConnectionFailed, KokoonError, RequestTimedOut


__all__ = ["Call", "Calls", "Timeouts", "is_cancelled"]

T = TypeVar("T")

_NEVER = math.inf


@attrs.frozen
class Timeouts:
    """
    Say how long things may take, in seconds; ``None`` means for ever.

    Attributes:
        connect: Making one new connection, with name lookup and TLS; in a session of
            yours also the wait until it allows one.

        read: The longest silence of the server once the request is sent.

        total: A whole call: its turn, all attempts, the pauses between them. In a stream
            and in a wait it begins with the turn: a caller's own calls wait for each other.

        outage: How long a wait goes on without one good answer, from the first look that
            failed.
    """

    connect: float | None = attrs.field(default=10.0, validator=positive_or_none)
    read: float | None = attrs.field(default=30.0, validator=positive_or_none)
    total: float | None = attrs.field(default=60.0, validator=positive_or_none)
    outage: float | None = attrs.field(default=120.0, validator=positive_or_none)


class Call:
    """
    Follow one call through its attempts.

    Attributes:
        vid: The image it is about.

        due: When its time is over, on the event loop's clock.

        phase: What it is doing, for the error message.

        attempts: Requests sent so far.

        silent_at: When the server has been silent for too long, on the same clock.

        ending: The error that its caller gets, once somebody ended it.

        task: The task that does its work, while it does.

        cancelling: How often that task had been cancelled before.

        turn: The throttle's ticket for the next attempt, if it is already the call's turn.

        refund: What a success brings back of the client's quota of retries.
    """

    __slots__ = (
        "attempts",
        "cancelling",
        "due",
        "ending",
        "phase",
        "refund",
        "silent_at",
        "task",
        "turn",
        "vid",
    )

    def __init__(self, vid: str, due: float, turn: int | None = None) -> None:
        self.vid = vid
        self.due = due
        self.turn = turn
        self.phase = "waiting for its turn"
        self.attempts = 0
        self.refund = 1
        self.silent_at = _NEVER
        self.task: asyncio.Task[Any] | None = None
        self.cancelling = 0
        self.ending: KokoonError | None = None

    def end(self, error: KokoonError) -> None:
        """Stop the call where it stands; its caller gets *error*, the last one if several."""
        if self.task is not None:
            if self.ending is None:
                self.task.cancel()
            self.ending = error


class Calls:
    """
    Keep the calls in flight within their time, and end them all when asked to.

    Args:
        timeouts: The limits that hold for every call.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        self._total = _NEVER if timeouts.total is None else timeouts.total
        self._read = _NEVER if timeouts.read is None else timeouts.read
        # No sets: those whose time is over together are ended in one order, and not by their
        # addresses, so that what went wrong can be made to happen again. And since each may
        # take equally long from when it is put last, the first is the next whose time is over.
        self._calls: dict[Call, None] = {}
        self._awaiting: dict[Call, None] = {}  # those of them to which the server is silent
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER

    def new(self, vid: str, turn: int | None = None) -> Call:
        """Make a call that may take the usual time from now on."""
        return Call(vid, self.due_from_now(), turn)

    def due_from_now(self) -> float:
        """Give the time at which a call that begins now would be over."""
        return asyncio.get_running_loop().time() + self._total

    def awaits_answer(self, call: Call, phase: str) -> None:
        """Note that from now on the server must not be silent for too long."""
        call.phase = phase
        call.silent_at = at = asyncio.get_running_loop().time() + self._read
        if call.task is not None:  # else it is over, though its request is still being written
            self._awaiting.pop(call, None)
            self._awaiting[call] = None
        if at < self._timer_at:
            self._wake_at(at)

    async def run(self, call: Call, work: Coroutine[Any, Any, T]) -> T:
        """
        Do a call's work in this task, until it is done or the call is ended.

        Raises:
            RequestTimedOut: When the call's time or the server's is over.

            ClientClosed: When `end_all` was called meanwhile.
        """
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        call.task, call.cancelling = task, task.cancelling()
        self._calls[call] = None
        if call.due < self._timer_at:
            self._wake_at(call.due)
        try:
            return await work
        except asyncio.CancelledError as stop:
            error = self._why(call, task)
            if error is None:
                stop.__context__ = None
                raise stop.with_traceback(None)  # noqa: B904 - the same exception, not another
        except KokoonError as failure:
            error = failure
        finally:
            self._calls.pop(call, None)
            self._awaiting.pop(call, None)
            call.task = None
            if call.ending is not None:
                task.uncancel()
        error.vid, error.attempts = call.vid, call.attempts
        # Out here, so that no foreign exception hangs on it (F-120).
        raise error.with_traceback(None)

    def go_on_after_silence(self, call: Call) -> RequestTimedOut | None:
        """
        Let a call go on whose attempt was cancelled because the server was silent.

        Returns:
            The attempt's error; ``None`` if the call itself was ended, or somebody else
            cancelled: then it must not go on.
        """
        task, error = call.task, call.ending
        if task is None or not isinstance(error, RequestTimedOut):
            return None
        is_over = call.due <= asyncio.get_running_loop().time()
        if is_over or task.cancelling() > call.cancelling + 1:
            return None
        task.uncancel()
        call.ending = None
        self.pauses(call, call.phase)
        if call.due < self._timer_at:
            self._wake_at(call.due)
        return error

    def pauses(self, call: Call, phase: str) -> None:
        """Note that the call does not wait for the server now."""
        call.phase = phase
        call.silent_at = _NEVER
        self._awaiting.pop(call, None)

    def end_all(self, message: str) -> None:
        """End every call with `ClientClosed`, and stop the timer."""
        for call in tuple(self._calls):
            call.end(ClientClosed(message, vid=call.vid, attempts=call.attempts))
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, _NEVER

    def _why(self, call: Call, task: asyncio.Task[Any]) -> KokoonError | None:
        """Give the error a call was ended with, or ``None`` if somebody else cancelled."""
        ours = 0 if call.ending is None else 1
        if task.cancelling() > call.cancelling + ours:
            return None
        return call.ending or ConnectionFailed(
            f"Something cancelled the request for image {call.vid}, but not its task.",
            hint="Look for a middleware of the session, or a future, that is cancelled.",
        )

    def _wake_at(self, at: float) -> None:
        """Set the timer for an earlier time than it is set for."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_at(at, self._tick)

    def _tick(self) -> None:
        """End the calls whose time is over, and set the timer for the next one."""
        now = asyncio.get_running_loop().time()
        self._timer, self._timer_at = None, _NEVER
        over = list(takewhile(lambda call: call.due <= now, self._calls))
        over += takewhile(lambda call: call.silent_at <= now, self._awaiting)
        for call in over:
            if call.ending is None:
                call.end(self._timed_out(call, now))
        # Those that were ended are gone with the next turn.
        due = next((call.due for call in self._calls if call.ending is None), _NEVER)
        silent = next((call.silent_at for call in self._awaiting if call.ending is None), _NEVER)
        at = min(due, silent)
        if at < _NEVER:
            self._wake_at(at)

    def _timed_out(self, call: Call, now: float) -> RequestTimedOut:
        limit = (
            f"the call took over {self._total:g} s"
            if call.due <= now
            else f"the server was silent for {self._read:g} s"
        )
        return RequestTimedOut(
            f"The request for image {call.vid} timed out while {call.phase}: {limit}.",
            hint="Ask again, or raise Timeouts.total or Timeouts.read.",
            vid=call.vid,
            attempts=call.attempts,
            phase=call.phase,
        )


def is_cancelled() -> bool:
    """Tell whether somebody cancelled this task, and not its own code raised the error."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
