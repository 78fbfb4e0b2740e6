"""A wait, and the one who is told of it."""

from typing import Protocol

from ..models import Image
from ..polling import PollPolicy, WaitMachine


__all__ = ["Wait", "Watcher"]


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
    """

    __slots__ = ("timeout", "watcher")

    def __init__(
        self,
        vid: str,
        policy: PollPolicy,
        watcher: Watcher,
        *,
        now: float,
        timeout: float | None,
        outage: float = 120.0,
        missing_grace: float = 0.0,
    ) -> None:
        super().__init__(
            vid, policy, now=now, timeout=timeout, outage=outage, missing_grace=missing_grace
        )
        self.timeout = timeout
        self.watcher = watcher
