"""Much to do at once, done in slices between which the event loop turns."""

import asyncio
from collections.abc import Iterable


__all__ = ["in_slices"]

_STEPS = 200  # some milliseconds


async def in_slices(steps: Iterable[object]) -> None:
    """
    Take all steps, also if cancelled: what was left half-way would be left for ever.

    Raises:
        CancelledError: After the last step, if this was cancelled meanwhile.
    """
    stop: asyncio.CancelledError | None = None
    for number, _ in enumerate(steps, start=1):
        if number % _STEPS == 0:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as error:
                stop = error
    if stop is not None:
        raise stop
