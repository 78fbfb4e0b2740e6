"""A wait, the one who is told of it, and the image that one or more waits are for."""

import asyncio
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Protocol

from ..models import Image, ImageState
from ..polling import PollPolicy, WaitMachine


__all__ = ["Awaited", "Entry", "Wait", "Watcher"]

_LONG_AGO = -math.inf  # one object for all

_FEW = 8  # waits for one image, for which a tuple is small and quick


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


class Crowd:
    """Hold many waits for one image: each comes and goes without a look at the others."""

    __slots__ = ("_policies", "_waits")

    def __init__(self, waits: Iterable[Wait]) -> None:
        self._waits: dict[Wait, None] = {}
        # By its id, how many have a policy: not each policy can be hashed.
        self._policies: Counter[int] = Counter()
        for wait in waits:
            self.add(wait)

    def __len__(self) -> int:
        return len(self._waits)

    def __iter__(self) -> Iterator[Wait]:
        return iter(self._waits)

    def __reversed__(self) -> Iterator[Wait]:
        return reversed(self._waits)

    def has_policy(self, policy: PollPolicy) -> bool:
        """Tell whether one of them has this very policy."""
        return id(policy) in self._policies

    def add(self, wait: Wait) -> None:
        """Take in one more."""
        self._waits[wait] = None
        self._policies[id(wait.policy)] += 1

    def remove(self, wait: Wait) -> None:
        """Take one out."""
        del self._waits[wait]
        self._policies[id(wait.policy)] -= 1
        if not self._policies[id(wait.policy)]:
            del self._policies[id(wait.policy)]


class Awaited:
    """
    Hold an image that somebody waits for.

    It is idle, queued for a look, or being looked at; in the heap it has one valid
    entry, for its next look or else for the first deadline of its waits.

    Attributes:
        queued: Whether it stands in the queue.

        worker: The task that looks at it now.

        entry: Its valid entry in the heap; others of it are stale.

        not_before: When the next look may be at the earliest, e.g. because of a hint.
    """

    __slots__ = ("_waits", "entry", "not_before", "queued", "vid", "worker")

    def __init__(self, vid: str) -> None:
        self.vid = vid
        self._waits: tuple[Wait, ...] | Crowd = ()
        self.queued = False
        self.worker: asyncio.Task[None] | None = None
        self.entry: Entry | None = None
        self.not_before = _LONG_AGO

    def __lt__(self, other: object) -> bool:
        # Two stale entries of one time and vid may stand in any order.
        return False

    @property
    def waits(self) -> tuple[Wait, ...]:
        """Those who wait now, the oldest first: a copy, since they may go while it is walked."""
        return tuple(self._waits)

    @property
    def newest(self) -> Wait:
        """The one of its waits that began last."""
        return next(reversed(self._waits))

    @property
    def is_awaited(self) -> bool:
        """Whether anybody waits for it."""
        return bool(self._waits)

    @property
    def state(self) -> ImageState | None:
        """What its waits last saw; ``None`` before the first good look."""
        for wait in self._waits:
            if wait.state is not None:
                return wait.state
        return None

    @property
    def first_deadline(self) -> float:
        """When the time of the first of its waits is over."""
        first = math.inf
        for wait in self._waits:
            first = min(first, wait.deadline)
        return first

    @property
    def due(self) -> float:
        """When its valid entry is due; infinite without one."""
        return math.inf if self.entry is None else self.entry[0]

    @property
    def is_idle(self) -> bool:
        """Whether no look is queued or under way."""
        return self.worker is None and not self.queued

    def has_policy(self, policy: PollPolicy) -> bool:
        """Tell whether one of its waits has this very policy."""
        if isinstance(self._waits, Crowd):
            return self._waits.has_policy(policy)
        return any(wait.policy is policy for wait in self._waits)

    def add(self, wait: Wait) -> None:
        """Take in one more wait."""
        if isinstance(self._waits, tuple):
            if len(self._waits) < _FEW:
                self._waits += (wait,)
                return
            self._waits = Crowd(self._waits)
        self._waits.add(wait)

    def remove(self, wait: Wait) -> None:
        """Take a wait out, for good."""
        wait.is_over = True
        if isinstance(self._waits, Crowd):
            self._waits.remove(wait)
        else:
            self._waits = tuple(other for other in self._waits if other is not wait)


Entry = tuple[float, str, Awaited]
"""When an image is due, its vid, which settles ties, and itself."""
