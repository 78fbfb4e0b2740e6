"""What a wait looks like from outside: iterators that can be left at any point."""

import asyncio
import warnings
from contextlib import suppress
from types import TracebackType
from typing import Self

from ..errors import ImageFailed, WaitError
from ..models import Image
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
        """
        Wait for the next record; ``None`` once there are no more.

        Raises:
            RuntimeError: If somebody else waits for it already.
        """
        if self._news is not None:
            message = "somebody else iterates over this watch already"
            raise RuntimeError(message)
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


class Watch:
    """
    Follow one image: an async iterator of its records, one per change of state.

    The first record comes first, whatever its state; a final one is the last, also when
    it says ``error``. Leave it early by ``break`` within ``async with``, or by `aclose`;
    a plain ``async for`` that runs to the end needs neither.

    Raises, while iterating:
        KokoonError: If the wait ended without a final record.
    """

    __slots__ = ("_feed", "_loop", "_scheduler", "_wait")

    def __init__(self, scheduler: Scheduler, wait: Wait, feed: Feed) -> None:
        self._scheduler = scheduler
        self._wait = wait
        self._feed = feed
        self._loop = asyncio.get_running_loop()
        scheduler.add(wait)

    def __repr__(self) -> str:
        return f"<Watch of {self._wait.vid}, {self._wait.last_seen()}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Image:
        if self._feed.is_closed:
            raise StopAsyncIteration
        try:
            image = await self._feed.next_image()
        except asyncio.CancelledError as stop:
            self._leave(stop)
            raise
        if image is not None:
            return image
        if not self._feed.is_closed:
            self._feed.close()
            with suppress(ImageFailed):  # its record, the last one, has said so
                self._feed.result()
        raise StopAsyncIteration

    def result(self) -> Image:
        """
        Give the completed record, once the iteration is over.

        Raises:
            KokoonError: What the wait ended with otherwise.

            RuntimeError: If the wait has not ended, since the iteration was left.
        """
        return self._feed.result()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave(error)

    async def aclose(self) -> None:
        """Stop watching; the server's work goes on."""
        self._leave()

    def _leave(self, why: BaseException | None = None) -> None:
        if isinstance(why, asyncio.CancelledError) and not self._feed.is_closed:
            # Shown wherever the cancellation ends up, e.g. in an outer timeout.
            why.add_note(
                f"The wait for image {self._wait.vid} was cancelled; {self._wait.last_seen()}."
                " The server's work goes on: wait for the same vid again to resume."
            )
        self._feed.close()
        self._scheduler.drop(self._wait)

    def __del__(self) -> None:
        if self._feed.is_closed or self._feed.is_over:
            return
        # Later, and on the loop: finalisers run at any time, in any thread.
        with suppress(RuntimeError):  # the loop is closed, and every wait with it
            self._loop.call_soon_threadsafe(self._scheduler.drop, self._wait)
        warnings.warn(
            f"{self!r} was abandoned; use async with", ResourceWarning, stacklevel=2, source=self
        )
