"""What a wait looks like from outside: iterators that can be left at any point."""

import asyncio
from contextlib import suppress
from functools import partial

from ..errors import ImageFailed, WaitError
from ..models import Image
from .leavable import Leavable
from .scheduler import Scheduler
from .waits import Wait


__all__ = ["Feed", "Watch"]


class Feed:
    """Collect what a scheduler tells of one wait, until somebody takes it."""

    __slots__ = ("_images", "_last", "_news", "_result", "is_closed")

    def __init__(self) -> None:
        self._images: list[Image] = []
        self._last: Image | None = None
        self._result: Image | Exception | None = None
        self._news: asyncio.Future[None] | None = None
        self.is_closed = False

    def changed(self, _: Wait, image: Image) -> None:
        """Keep a record for `next_image`."""
        self._last = image
        self._images.append(image)
        self._wake()

    def ended(self, _: Wait, result: Image | Exception) -> None:
        """Keep the result for `result`."""
        if isinstance(result, WaitError) and self._last is not None:
            result.image = self._last.without_urls()
        self._result = result
        self._wake()

    def close(self) -> None:
        """Give no more records, also to somebody who waits for one now."""
        self.is_closed = True
        self._wake()

    async def next_image(self) -> Image | None:
        """Wait for the next record; ``None`` once there are no more."""
        while not (self._images or self.is_over or self.is_closed):
            self._news = asyncio.get_running_loop().create_future()
            try:
                await self._news
            finally:
                self._news = None
        return self._images.pop(0) if self._images and not self.is_closed else None

    def result(self) -> Image:
        """
        Give the completed record, or raise what the wait ended with.

        Call it after `next_image` gave ``None``.
        """
        if isinstance(self._result, Image):
            return self._result
        if self._result is None:
            message = "the wait has not ended"
            raise RuntimeError(message)
        raise self._result

    @property
    def is_over(self) -> bool:
        """Whether the wait has ended."""
        return self._result is not None

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


class Watch(Leavable[Image]):
    """
    Follow one image: an async iterator of its records, one per change of state.

    The first record comes first, whatever its state; a final one is the last, also when
    it says ``error``. Leave it early by ``break`` within ``async with``, or by `aclose`;
    a plain ``async for`` that runs to the end needs neither.

    Inside ``async with``, a cancelled ``anext`` loses nothing, and the next one goes on:
    ``await asyncio.wait_for(anext(records), 5)`` may time out any number of times.
    Outside, a cancellation ends the watch, and a further ``anext`` is a `RuntimeError`.

    Raises, while iterating:
        KokoonError: If the wait ended without a final record.
    """

    __slots__ = ("_feed", "_scheduler", "_wait")

    def __init__(self, scheduler: Scheduler, wait: Wait, feed: Feed) -> None:
        self._scheduler = scheduler
        self._wait = wait
        self._feed = feed
        super().__init__(partial(scheduler.drop, wait))
        scheduler.add(wait)

    def __repr__(self) -> str:
        return f"<Watch of {self._wait.vid}, {self._wait.last_seen()}>"

    def result(self) -> Image:
        """
        Give the completed record, once the iteration is over.

        Raises:
            KokoonError: What the wait ended with otherwise.

            RuntimeError: If the wait has not ended, since the iteration was left.
        """
        return self._feed.result()

    async def _next(self) -> Image | None:
        image = await self._feed.next_image()
        if image is None and not self._is_closed:
            with suppress(ImageFailed):  # its record, the last one, has said so
                self._feed.result()
        return image

    async def _leave(self, why: BaseException | None, /) -> None:
        if isinstance(why, asyncio.CancelledError) and not self._feed.is_closed:
            # Shown wherever the cancellation ends up, e.g. in an outer timeout.
            why.add_note(
                f"The wait for image {self._wait.vid} was cancelled; {self._wait.last_seen()}."
                " The server's work goes on: wait for the same vid again to resume."
            )
        self._feed.close()
        self._scheduler.drop(self._wait)

    @property
    def _is_unfinished(self) -> bool:
        return not self._feed.is_over
