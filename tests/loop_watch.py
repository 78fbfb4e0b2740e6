"""
How long callbacks keep an event loop busy: in processor time, so that a busy machine does not matter.

```python
with watching_the_loop() as watch:
    asyncio.run(main())
assert watch.longest < 0.05
```
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from unittest.mock import patch

import attrs


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
