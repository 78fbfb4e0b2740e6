"""
How long callbacks keep an event loop busy, and how long event loops wait for real.

The first in processor time, the second as it was asked for, so that a busy machine does not matter.

```python
with watching_the_loop() as watch:
    asyncio.run(main())
assert watch.longest < 0.05
```
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import attrs


MOST_WAITED = 0.25
"""Seconds: a whole program's retries pause for 0.1 s for real; everything longer is virtual time."""


@attrs.define
class LoopWatch:
    """
    Remember what took longest.

    Attributes:
        longest: The processor time of one callback of any loop in its thread, in seconds.

        culprit: That callback.

        callbacks: How many there were.
    """

    longest: float = 0.0
    culprit: str = ""
    callbacks: int = 0


@contextlib.contextmanager
def watching_the_loop() -> Iterator[LoopWatch]:
    """Watch all loops written in Python."""
    watch = LoopWatch()
    run = asyncio.Handle._run

    def timed_run(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        seconds = time.thread_time() - began
        watch.callbacks += 1
        if seconds > watch.longest:
            watch.longest, watch.culprit = seconds, repr(handle)

    with patch.object(asyncio.Handle, "_run", timed_run):
        yield watch


@contextlib.contextmanager
def watching_waits() -> Iterator[list[float]]:
    """Give the waits of all loops written in Python that were too long, and in which nothing came."""
    too_long: list[float] = []
    select: Any = selectors.DefaultSelector.select

    def watched_select(selector: Any, timeout: float | None = None) -> Any:
        events = select(selector, timeout)
        if timeout is not None and timeout > MOST_WAITED and not events:
            too_long.append(timeout)
        return events

    with patch.object(selectors.DefaultSelector, "select", watched_select):
        yield too_long
