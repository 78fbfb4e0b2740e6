"""A wait, the one who is told of it, and the image that one or more waits are for."""

import asyncio
import math
from typing import Protocol

from ..models import Image, ImageState
from ..polling import PollPolicy, WaitMachine


__all__ = ["Awaited", "Entry", "Wait", "Watcher"]

_LONG_AGO = -math.inf  # one object for all


class Watcher(Protocol):
    """Be told what becomes of a wait."""

    def changed(self, wait: "Wait", image: Image, /) -> None:
        """Take the first record, and each one in another state than the last."""

    def ended(self, wait: "Wait", result: Image | Exception, /) -> None:
        """Take the completed record, or the error that the wait ended with."""


class Wait(WaitMachine):
    """
    Follow one wait, for one watcher.

    Args:
        watcher: Told of changes and of the end.

    Attributes:
        is_over: Whether the scheduler is done with it: ended, or dropped.
    """

    __slots__ = ("is_over", "watcher")

    def __init__(
        self,
        vid: str,
        policy: PollPolicy,
        watcher: Watcher,
        *,
        now: float,
        timeout: float | None,
        outage: float | None = 120.0,
        missing_grace: float = 0.0,
    ) -> None:
        super().__init__(
            vid, policy, now=now, timeout=timeout, outage=outage, missing_grace=missing_grace
        )
        self.watcher = watcher
        self.is_over = False


class Awaited:
    """
    Hold an image that somebody waits for.

    It is idle, queued for a look, or being looked at; in the heap it has one valid
    entry, for its next look or else for the first deadline of its waits.

    Attributes:
        waits: Replaced and never changed, since others may be walking it.

        queued: Whether it stands in the queue.

        worker: The task that looks at it now.

        entry: Its valid entry in the heap; others of it are stale.

        not_before: When the next look may be at the earliest, e.g. because of a hint.
    """

    __slots__ = ("entry", "not_before", "queued", "vid", "waits", "worker")

    def __init__(self, vid: str) -> None:
        self.vid = vid
        self.waits: tuple[Wait, ...] = ()
        self.queued = False
        self.worker: asyncio.Task[None] | None = None
        self.entry: Entry | None = None
        self.not_before = _LONG_AGO

    def __lt__(self, other: object) -> bool:
        # Two stale entries of one time and vid may stand in any order.
        return False

    @property
    def state(self) -> ImageState | None:
        """What its waits last saw; ``None`` before the first good look."""
        for wait in self.waits:
            if wait.state is not None:
                return wait.state
        return None

    @property
    def first_deadline(self) -> float:
        """When the time of the first of its waits is over."""
        first = math.inf
        for wait in self.waits:
            first = min(first, wait.deadline)
        return first

    @property
    def is_idle(self) -> bool:
        """Whether no look is queued or under way."""
        return self.worker is None and not self.queued

    def remove(self, wait: Wait) -> None:
        """Take a wait out, for good."""
        wait.is_over = True
        self.waits = tuple(other for other in self.waits if other is not wait)


Entry = tuple[float, str, Awaited]
"""When an image is due, its vid, which settles ties, and itself."""
