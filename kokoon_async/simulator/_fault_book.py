"""
Which faults are still to come, and which have been met.

A request takes the first fault that waits for it. Only when that fault was really put on
the wire is it crossed out; otherwise it goes back to where it was (F-127).
"""

from collections import deque
from collections.abc import Iterable

import attrs

from ._faults import Fault


MAX_STEPS = 100_000
"""How many steps one call may plan: a slip must not fill the memory."""


class UnconsumedFaults(AssertionError):
    """Planned faults were never met, so a test did not test what it meant to (F-127)."""


@attrs.frozen(eq=False)
class PlannedFault:
    """
    One fault that waits for its request.

    Attributes:
        number: Its place in the order of planning.

        plan: The number of the call that planned it.

        vid: The image it waits for; ``None`` for any request.

        fault: What shall happen.
    """

    number: int
    plan: int
    vid: str | None
    fault: Fault


class FaultBook:
    """The faults of one simulator that are still to come."""

    def __init__(self) -> None:
        self._waiting: dict[str | None, deque[PlannedFault]] = {}
        self._open: dict[int, PlannedFault] = {}
        self._number = 0
        self._plan = 0

    @property
    def unconsumed(self) -> tuple[PlannedFault, ...]:
        """All faults not yet met, also those just under way, in the order of planning."""
        return tuple(self._open.values())

    def plan(self, faults: Iterable[Fault], *, vid: str | None, times: int) -> int:
        """
        Let the next requests meet *faults*, one each, in this order; return the plan's number.

        Args:
            faults: What shall happen.

            vid: Only requests for this image count; ``None`` for any.

            times: How many times the whole list is gone through.

        Raises:
            ValueError: When there is nothing to plan, or too much.

            TypeError: When something is no fault.
        """
        steps = tuple(faults)
        for step in steps:
            if not isinstance(step, Fault):
                raise TypeError(f"{step!r} is no fault; write for example Status(503)")
        if type(times) is not int or times < 1 or not steps:
            raise ValueError(f"plan at least one fault at least once (times={times!r})")
        if len(steps) * times > MAX_STEPS:
            raise ValueError(f"at most {MAX_STEPS} steps in one call, not {len(steps) * times}")
        self._plan += 1
        queue = self._waiting.setdefault(vid, deque())
        for step in steps * times:
            self._number += 1
            planned = PlannedFault(self._number, self._plan, vid, step)
            self._open[planned.number] = planned
            queue.append(planned)
        return self._plan

    def take(self, vid: str | None) -> PlannedFault | None:
        """
        Give the fault that the next request for *vid* meets; it is then under way.

        An image's own faults come before those for any request.
        """
        if not self._waiting:  # the usual case, kept short
            return None
        for key in (vid, None):
            queue = self._waiting.get(key)
            if queue:
                planned = queue.popleft()
                if not queue:
                    del self._waiting[key]
                return planned
        return None

    def cross_out(self, planned: PlannedFault) -> None:
        """Take note that a fault was put on the wire."""
        self._open.pop(planned.number, None)

    def put_back(self, planned: PlannedFault) -> None:
        """Let a fault that could not be put on the wire wait again, unless it was cleared."""
        if planned.number in self._open:
            self._waiting.setdefault(planned.vid, deque()).appendleft(planned)

    def clear(self) -> None:
        """Forget all faults that are still to come."""
        self._waiting.clear()
        self._open.clear()
